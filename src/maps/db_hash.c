/*
 * maps/db_hash.c - see db_hash.h
 *
 * Layout of libdb 5.3's hash access method, versions 7 to 9.  A bucket is a chain of pages; keys
 * and values lie in them by turns, one behind the other from the page's end downwards.
 */
#include "maps/db_hash.h"

#include <string.h>

/* libdb begins a file with so many buckets where it is told no fill factor. */
#define FIRST_BUCKETS 2U
/* What Postfix's postmap has libdb begin the count of a file's rows with. */
#define POSTMAP_ELEMENTS 4096U

enum hash_walk { HASH_ON, HASH_STOPPED, HASH_DAMAGED };

struct hash_walker {
    struct db_hash *h;
    db_row_fn fn;
    void *arg;
    uint64_t used;     /* pages that hold items or could */
    uint64_t unfilled; /* buckets that have no page yet, … */
    uint32_t last;     /* … the last of them; 0 where there is none */
};

uint32_t db_hash_of(uint32_t hash, struct str bytes) {
    for (size_t i = 0; i < bytes.n; i++)
        hash = (hash * 16777619U) ^ (uint8_t)bytes.p[i];
    return hash;
}

static uint32_t hash_bucket(const struct db_hash *h, uint32_t hash) {
    uint32_t bucket = hash & h->m.high_mask;
    return bucket > h->m.max_bucket ? bucket & h->m.low_mask : bucket;
}

/* The item that ends where the one before begins; end becomes its own beginning. */
static bool hash_item(const struct db_hash *h, const struct db_page *page, unsigned i,
                      uint32_t *end, struct db_item *item) {
    uint16_t at = db_u16(&h->f, page->p + DB_PAGE_HEAD + (size_t)2 * i);
    if (at < page->free_at || at >= *end)
        return false;
    uint8_t type = (uint8_t)page->p[at];
    uint32_t bytes = *end - at;
    *end = at;
    *item = (struct db_item){.here = str_make(page->p + at + 1, bytes - 1)};
    if (type == DB_ITEM_BIG && bytes == DB_BIG_ITEM)
        db_item_big(&h->f, page->p + at, item);
    return type == DB_ITEM_DATA || item->big;
}

static enum hash_walk hash_page_walk(struct hash_walker *w, const struct db_page *page) {
    uint32_t end = page->size;
    if (page->entries % 2 != 0 || DB_PAGE_HEAD + 2U * page->entries > page->free_at ||
        page->free_at > end)
        return HASH_DAMAGED;
    for (unsigned i = 0; i < page->entries; i += 2) {
        struct db_row row;
        if (!hash_item(w->h, page, i, &end, &row.key) ||
            !hash_item(w->h, page, i + 1, &end, &row.value))
            return HASH_DAMAGED;
        if (!w->fn(w->arg, &w->h->f, &row))
            return HASH_STOPPED;
    }
    return HASH_ON;
}

static bool hash_page_unused(const struct db_page *page) {
    return page->p[0] == 0 && memcmp(page->p, page->p + 1, page->size - 1) == 0;
}

static uint64_t hash_bucket_page(const struct db_hash *h, uint32_t bucket) {
    unsigned log2 = 0;
    while (log2 < DB_HASH_SPARES - 1 && (1ULL << log2) < (uint64_t)bucket + 1)
        log2++;
    return (uint64_t)bucket + h->m.spares[log2];
}

static enum hash_walk hash_bucket_walk(struct hash_walker *w, uint32_t bucket) {
    struct db_file *f = &w->h->f;
    struct db_page page = {0};
    uint64_t first = hash_bucket_page(w->h, bucket), no = first;
    enum hash_walk walk = no == 0 ? HASH_DAMAGED : HASH_ON; /* the first page is no bucket's */
    while (walk == HASH_ON && no != 0) {
        if (no > f->head.last || !db_page_get(f, (uint32_t)no, &page))
            walk = HASH_DAMAGED;
        else if (no == first && hash_page_unused(&page)) { /* a bucket that was never filled */
            w->unfilled++;
            w->last = bucket;
            break;
        } else if (page.no != no || (page.type != DB_PAGE_HASH && page.type != DB_PAGE_UNSORTED))
            walk = HASH_DAMAGED;
        else
            walk = hash_page_walk(w, &page);
        w->used++;
        no = page.next;
    }
    db_page_free(&page);
    return walk;
}

static enum hash_walk hash_walk_all(struct hash_walker *w) {
    enum hash_walk walk = HASH_ON;
    db_walk(&w->h->f);
    for (uint32_t b = 0; walk == HASH_ON && b <= w->h->m.max_bucket; b++)
        walk = hash_bucket_walk(w, b);
    return walk;
}

static bool hash_buckets_ok(const struct db_hash_meta *m) {
    return m->max_bucket <= m->high_mask && m->high_mask < UINT32_MAX &&
           (m->high_mask & (m->high_mask + 1)) == 0 && m->low_mask == m->high_mask >> 1 &&
           m->low_mask <= m->max_bucket;
}

/* Can this pair be read, and is it found where its key is looked for? */
struct hash_check {
    const struct db_hash *h;
    uint32_t bucket;
    uint64_t rows;
    bool bad;
    struct sbuf text;
};

static bool hash_row_check(void *arg, struct db_file *f, const struct db_row *row) {
    struct hash_check *c = arg;
    struct str key = row->key.here;
    c->text.n = 0;
    if (row->key.big) {
        c->bad = !db_item_text(f, &row->key, &c->text);
        key = sbuf_str(&c->text);
    }
    c->bad = c->bad || hash_bucket(c->h, db_hash_of(0, key)) != c->bucket;
    c->text.n = 0;
    if (!c->bad && row->value.big)
        c->bad = !db_item_text(f, &row->value, &c->text);
    c->rows++;
    return !c->bad;
}

/* Pages of zeros are those that libdb has not filled yet, or what a crash has left of rows.  The
 * first are of buckets that the file began with, and the count of rows agrees with what was found.
 * With a fill factor, which postmap does not set, a file may begin with any number of either. */
static bool hash_unfilled_ok(const struct hash_walker *w, uint64_t rows) {
    const struct db_hash_meta *m = &w->h->m;
    return w->unfilled == 0 || m->fill != 0 ||
           (w->last < FIRST_BUCKETS &&
            (m->elements == rows || m->elements == rows + POSTMAP_ELEMENTS));
}

static bool hash_rows_ok(struct db_hash *h) {
    struct hash_check check = {.h = h};
    struct hash_walker w = {.h = h, .fn = hash_row_check, .arg = &check};
    enum hash_walk walk = HASH_ON;
    db_walk(&h->f);
    for (; walk == HASH_ON && check.bucket <= h->m.max_bucket; check.bucket++)
        walk = hash_bucket_walk(&w, check.bucket);
    sbuf_wipe(&check.text);
    return walk == HASH_ON && w.used > 0 && hash_unfilled_ok(&w, check.rows);
}

const char *db_hash_open(struct db_hash *h, const char *path) {
    const char *why = db_file_open(&h->f, path, DB_MAGIC_HASH, &h->m, sizeof h->m);
    if (why != NULL)
        return why;
    if (!hash_buckets_ok(&h->m))
        why = "its first page is damaged";
    else if (h->m.char_key != db_hash_of(0, str_make(DB_HASH_MARK, sizeof DB_HASH_MARK)))
        why = "its keys are hashed by a function that is not known here";
    else if (!hash_rows_ok(h))
        why = DB_DAMAGED;
    if (why != NULL)
        db_file_close(&h->f);
    else
        db_file_opened(&h->f);
    return why;
}

struct hash_question {
    struct str key;
    struct sbuf *value;
    enum map_rc rc;
};

static bool hash_row_ask(void *arg, struct db_file *f, const struct db_row *row) {
    struct hash_question *q = arg;
    int order = 1;
    size_t bytes = row->key.big ? row->key.big_bytes : row->key.here.n;
    if (bytes != q->key.n)
        return true;
    if (!db_item_compare(f, q->key, &row->key, &order))
        q->rc = MAP_ERROR;
    else if (order == 0)
        q->rc = db_item_text(f, &row->value, q->value) ? MAP_FOUND : MAP_ERROR;
    return q->rc == MAP_NOT_FOUND;
}

enum map_rc db_hash_get(struct db_hash *h, struct str key, struct sbuf *value) {
    struct hash_question q = {key, value, MAP_NOT_FOUND};
    struct hash_walker w = {.h = h, .fn = hash_row_ask, .arg = &q};
    db_walk(&h->f);
    if (hash_bucket_walk(&w, hash_bucket(h, db_hash_of(0, key))) == HASH_DAMAGED)
        return MAP_ERROR;
    return q.rc;
}

bool db_hash_each(struct db_hash *h, db_row_fn fn, void *arg) {
    struct hash_walker w = {.h = h, .fn = fn, .arg = arg};
    return hash_walk_all(&w) != HASH_DAMAGED;
}
