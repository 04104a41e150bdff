/*
 * maps/db_hash_write.c - a new hash file; see db_hash.h
 *
 * As many buckets as the rows will fill by half, a power of two; their first pages are the file's
 * first; what does not fit into them lies behind.
 */
#include <stdlib.h>
#include <string.h>

#include "maps/db_hash.h"
#include "maps/db_write.h"
#include "util/mem.h"

#define BUCKET_FILL 3000U /* bytes of a page that are wanted to be used, of 4,070 */
#define ITEM_MAX    (DB_PAGE_SIZE / 4)
#define TYPE_BYTE   1U

struct hash_new_row {
    uint32_t hash, bucket;
    const struct map_pair *pair;
};

struct hash_new {
    struct db_writer w;
    struct hash_new_row *rows;
    size_t n;
    uint32_t buckets;
};

static size_t hash_item_bytes(size_t text) {
    return text > ITEM_MAX ? DB_BIG_ITEM : TYPE_BYTE + text;
}

static size_t hash_pair_bytes(const struct hash_new *t, const struct map_pair *v) {
    return hash_item_bytes(v->key.n + t->w.with_nul) + hash_item_bytes(v->value.n + t->w.with_nul);
}

static int hash_row_order(const void *a, const void *b) {
    const struct hash_new_row *x = a, *y = b;
    if (x->bucket != y->bucket)
        return x->bucket < y->bucket ? -1 : 1;
    return db_compare(x->pair->key, y->pair->key); /* a NUL at both ends does not change it */
}

/* Which bucket each row is for, and how many there are. */
static void hash_rows_place(struct hash_new *t, const struct map_pair *v) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < t->n; i++) {
        uint32_t hash = db_hash_of(0, v[i].key);
        t->rows[i].hash = t->w.with_nul ? db_hash_of(hash, str_make("", 1)) : hash;
        t->rows[i].pair = &v[i];
        bytes += hash_pair_bytes(t, &v[i]) + 4;
    }
    t->buckets = 2;
    while ((uint64_t)t->buckets * BUCKET_FILL < bytes && t->buckets < 1U << 30)
        t->buckets *= 2;
    for (size_t i = 0; i < t->n; i++)
        t->rows[i].bucket = t->rows[i].hash & (t->buckets - 1);
    qsort(t->rows, t->n, sizeof *t->rows, hash_row_order);
}

static void hash_item_put(struct hash_new *t, struct db_new_page *page, struct str s) {
    struct db_text text = {s, t->w.with_nul};
    char *to = db_new_item(page, hash_item_bytes(db_text_size(&text)));
    if (db_text_size(&text) > ITEM_MAX) {
        db_big_put(&t->w, &text, 0, to);
    } else {
        *to = DB_ITEM_DATA;
        db_text_put(&text, to + TYPE_BYTE);
    }
}

/* Writes the bucket's pages; returns the row behind its own. */
static size_t hash_bucket_put(struct hash_new *t, uint32_t bucket, size_t i) {
    struct db_new_page page;
    db_new_page(&page, bucket + 1, 0, DB_PAGE_HASH, 0);
    for (; i < t->n && t->rows[i].bucket == bucket; i++) {
        const struct map_pair *v = t->rows[i].pair;
        if (!db_new_page_fits(&page, 2, hash_pair_bytes(t, v))) {
            uint32_t no = page.no, next = t->w.next++;
            db_new_page_put(&t->w, &page, next);
            db_new_page(&page, next, no, DB_PAGE_HASH, 0);
        }
        hash_item_put(t, &page, v->key);
        hash_item_put(t, &page, v->value);
    }
    db_new_page_put(&t->w, &page, 0);
    return i;
}

static void hash_meta_put(struct hash_new *t) {
    struct db_hash_meta m = {
        .max_bucket = t->buckets - 1,
        .high_mask = t->buckets - 1,
        .low_mask = (t->buckets - 1) >> 1,
        .elements = (uint32_t)t->n,
        .char_key = db_hash_of(0, str_make(DB_HASH_MARK, sizeof DB_HASH_MARK)),
    };
    for (unsigned i = 0; i < DB_HASH_SPARES && 1ULL << i <= t->buckets; i++)
        m.spares[i] = 1; /* the page of bucket 0: all follow each other */
    db_meta_put(&t->w, DB_MAGIC_HASH, &m, sizeof m);
}

int db_hash_write(int fd, const struct map_pair *v, size_t n, bool with_nul) {
    struct hash_new t = {.w = {.fd = fd, .with_nul = with_nul}, .n = n};
    size_t row = 0;
    t.rows = mem_zalloc((n + 1) * sizeof *t.rows);
    hash_rows_place(&t, v);
    t.w.next = t.buckets + 1;
    for (uint32_t b = 0; b < t.buckets && t.w.rc == 0; b++)
        row = hash_bucket_put(&t, b, row);
    hash_meta_put(&t);
    free(t.rows);
    return t.w.rc;
}
