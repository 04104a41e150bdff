/*
 * maps/hash_check.c - see hash_check.h
 *
 * Layout of libdb 5.3's hash access method, versions 8 and 9.
 */
#include "maps/hash_check.h"

#include <string.h>

#include "maps/db_pages.h"
#include "util/fs.h"

#define VERSION 9U
#define SPARES  32U

enum { PAGE_UNUSED = 0, PAGE_UNSORTED = 2, PAGE_META = 8, PAGE_HASH = 13 };
enum { ITEM_DATA = 1, ITEM_BIG = 3 };

struct hash_meta {
    struct db_head head;
    uint32_t max_bucket, high_mask, low_mask, fill, elements, char_key, spares[SPARES];
};

struct hash_file {
    struct db_file f;
    struct hash_meta m;
    uint64_t used; /* pages that hold items or could */
};

/* Items lie one behind the other from the page's end downwards. */
static bool items_ok(struct hash_file *h, const struct db_page *g) {
    uint32_t end = h->f.head.page_size;
    if (g->entries % 2 != 0 || DB_PAGE_HEAD + 2U * g->entries > g->free_at || g->free_at > end)
        return false;
    for (unsigned i = 0; i < g->entries; i++) {
        uint16_t at;
        memcpy(&at, g->p + DB_PAGE_HEAD + 2 * i, sizeof at);
        if (at < g->free_at || at >= end)
            return false;
        uint8_t type = (uint8_t)g->p[at];
        if (type != ITEM_DATA &&
            (type != ITEM_BIG || end - at != DB_BIG_ITEM || !db_big_ok(&h->f, g->p + at)))
            return false;
        end = at;
    }
    return true;
}

static bool page_unused(const struct db_page *g) {
    return g->type == PAGE_UNUSED && g->no == 0 && g->next == 0 && g->entries == 0;
}

static bool bucket_ok(struct hash_file *h, uint32_t bucket) {
    unsigned log2 = 0;
    while (log2 < SPARES - 1 && (1ULL << log2) < (uint64_t)bucket + 1)
        log2++;
    uint64_t no = (uint64_t)bucket + h->m.spares[log2];
    if (no == 0) /* the first page is no bucket's */
        return false;
    while (no != 0) {
        struct db_page g;
        if (no > h->f.head.last || !db_page_get(&h->f, (uint32_t)no, &g))
            return false;
        if (page_unused(&g)) /* a bucket that was never filled */
            return true;
        if (g.no != no || (g.type != PAGE_HASH && g.type != PAGE_UNSORTED) || !items_ok(h, &g))
            return false;
        h->used++;
        no = g.next;
    }
    return true;
}

static bool hash_buckets_ok(const struct hash_meta *m) {
    return m->max_bucket <= m->high_mask && m->high_mask < UINT32_MAX &&
           (m->high_mask & (m->high_mask + 1)) == 0 && m->low_mask == m->high_mask >> 1 &&
           m->low_mask <= m->max_bucket;
}

static const char *hash_file_check(const void *p, uint64_t n) {
    struct hash_file file = {.f = {.p = p, .size = n}}, *h = &file;
    const char *why = db_head_read(&h->f, DB_MAGIC_HASH, VERSION, PAGE_META, sizeof h->m);
    if (why != NULL)
        return why;
    memcpy(&h->m, p, sizeof h->m);
    if (!hash_buckets_ok(&h->m))
        return "its first page is damaged";
    for (uint32_t b = 0; b <= h->m.max_bucket; b++)
        if (!bucket_ok(h, b))
            return "it is damaged";
    return h->used > 0 ? NULL : "it is damaged"; /* libdb looks for a page for ever */
}

const char *hash_check(const char *path) {
    return fs_mapped(path, hash_file_check);
}
