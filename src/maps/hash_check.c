/*
 * maps/hash_check.c - see hash_check.h
 *
 * Layout of libdb 5.3's hash access method, versions 8 and 9, as postmap uses it: no checksums, no
 * encryption, no duplicates, no partitions, this machine's byte order.
 */
#include "maps/hash_check.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "util/fs.h"

#define MAGIC     0x061561U
#define PAGE_HEAD 26U
#define SPARES    32U

enum { PAGE_UNUSED = 0, PAGE_UNSORTED = 2, PAGE_OVERFLOW = 7, PAGE_META = 8, PAGE_HASH = 13 };
enum { ITEM_DATA = 1, ITEM_BIG = 3 };

struct hash_meta {
    uint64_t lsn;
    uint32_t no, magic, version, page_size;
    uint8_t encryption, type, meta_flags, unused;
    uint32_t free, last, parts, keys, records, flags;
    uint8_t uid[20];
    uint32_t max_bucket, high_mask, low_mask, fill, elements, char_key, spares[SPARES];
};

struct page {
    const char *p;
    uint32_t no, next;
    uint16_t entries, free_at; /* overflow pages: free_at is the length */
    uint8_t type;
};

struct file {
    const char *p;
    uint64_t size;
    struct hash_meta m;
    uint64_t seen; /* pages visited: no more than there are */
    uint64_t used; /* … that hold items or could */
};

static bool hash_page_get(struct file *f, uint32_t no, struct page *g) {
    if (no == 0 || no > f->m.last || f->seen++ > f->m.last)
        return false;
    g->p = f->p + (uint64_t)no * f->m.page_size;
    memcpy(&g->no, g->p + 8, 4);
    memcpy(&g->next, g->p + 16, 4);
    memcpy(&g->entries, g->p + 20, 2);
    memcpy(&g->free_at, g->p + 22, 2);
    g->type = (uint8_t)g->p[25];
    return true;
}

/* A value on pages of its own. */
static bool big_ok(struct file *f, const char *item, uint32_t n) {
    uint32_t no, left;
    struct page g;
    if (n != 12)
        return false;
    memcpy(&no, item + 4, 4);
    memcpy(&left, item + 8, 4);
    while (no != 0) {
        if (!hash_page_get(f, no, &g) || g.no != no || g.type != PAGE_OVERFLOW ||
            g.free_at > f->m.page_size - PAGE_HEAD || g.free_at > left)
            return false;
        left -= g.free_at;
        no = g.next;
    }
    return left == 0;
}

/* Items lie one behind the other from the page's end downwards. */
static bool items_ok(struct file *f, const struct page *g) {
    uint32_t end = f->m.page_size;
    if (g->entries % 2 != 0 || PAGE_HEAD + 2U * g->entries > g->free_at || g->free_at > end)
        return false;
    for (unsigned i = 0; i < g->entries; i++) {
        uint16_t at;
        memcpy(&at, g->p + PAGE_HEAD + 2 * i, sizeof at);
        if (at < g->free_at || at >= end)
            return false;
        uint8_t type = (uint8_t)g->p[at];
        if (type != ITEM_DATA && (type != ITEM_BIG || !big_ok(f, g->p + at, end - at)))
            return false;
        end = at;
    }
    return true;
}

static bool page_unused(const struct page *g) {
    return g->type == PAGE_UNUSED && g->no == 0 && g->next == 0 && g->entries == 0;
}

static bool bucket_ok(struct file *f, uint32_t bucket) {
    unsigned log2 = 0;
    while (log2 < SPARES - 1 && (1ULL << log2) < (uint64_t)bucket + 1)
        log2++;
    uint64_t no = (uint64_t)bucket + f->m.spares[log2];
    if (no == 0) /* the first page is no bucket's */
        return false;
    while (no != 0) {
        struct page g;
        if (no > f->m.last || !hash_page_get(f, (uint32_t)no, &g))
            return false;
        if (page_unused(&g)) /* a bucket that was never filled */
            return true;
        if (g.no != no || (g.type != PAGE_HASH && g.type != PAGE_UNSORTED) || !items_ok(f, &g))
            return false;
        f->used++;
        no = g.next;
    }
    return true;
}

static bool meta_ok(const struct file *f) {
    const struct hash_meta *m = &f->m;
    uint32_t size = m->page_size;
    if (m->no != 0 || m->type != PAGE_META || (m->version != 8 && m->version != 9))
        return false;
    if (size < 512 || size > 32768 || (size & (size - 1)) != 0 || f->size % size != 0)
        return false;
    if (m->encryption != 0 || m->meta_flags != 0 || m->parts != 0 || m->flags != 0)
        return false;
    if ((m->last + 1ULL) * size > f->size || m->free > m->last)
        return false;
    return m->max_bucket <= m->high_mask && m->high_mask < UINT32_MAX &&
           (m->high_mask & (m->high_mask + 1)) == 0 && m->low_mask == m->high_mask >> 1 &&
           m->low_mask <= m->max_bucket;
}

static const char *hash_file_check(const void *p, uint64_t n) {
    struct file file = {.p = p, .size = n}, *f = &file;
    if (f->size < sizeof f->m)
        return "it is no hash file";
    memcpy(&f->m, f->p, sizeof f->m);
    if (f->m.magic != MAGIC)
        return "it is no hash file";
    if (!meta_ok(f))
        return "its first page is damaged";
    for (uint32_t b = 0; b <= f->m.max_bucket; b++)
        if (!bucket_ok(f, b))
            return "it is damaged";
    return f->used > 0 ? NULL : "it is damaged"; /* libdb looks for a page for ever */
}

const char *hash_check(const char *path) {
    return fs_mapped(path, hash_file_check);
}
