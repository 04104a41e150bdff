/*
 * maps/db_hash.h - Berkeley DB's hash files
 *
 * Read and written without its library.  A file that was opened is whole: what changes in it later
 * is seen by db_unchanged.  One thread at a time.
 */
#ifndef PH_MAPS_DB_HASH_H
#define PH_MAPS_DB_HASH_H

#include "maps/db_pages.h"
#include "maps/map.h"

#define DB_HASH_SPARES 32U

struct db_hash_meta {
    struct db_head head;
    uint32_t max_bucket, high_mask, low_mask, fill, elements, char_key, spares[DB_HASH_SPARES];
};

struct db_hash {
    struct db_file f;
    struct db_hash_meta m;
};

/* Opens the file and follows every bucket: pages and items lie inside the file, and each key in the
 * bucket where it is looked for.  NULL, or what is wrong (static text); h->f.fd is then -1. */
const char *db_hash_open(struct db_hash *h, const char *path);
/* Appends the value of key. */
enum map_rc db_hash_get(struct db_hash *h, struct str key, struct sbuf *value);
/* Calls fn for every pair, in libdb's order.  False if the file was found damaged. */
bool db_hash_each(struct db_hash *h, db_row_fn fn, void *arg);
/* The function that libdb chooses a bucket by, going on from hash (0 at the start). */
uint32_t db_hash_of(uint32_t hash, struct str bytes);
#define DB_HASH_MARK "%$sniglet^&" /* its hash, with its NUL, tells the function apart */
/* Writes a file of n rows, keys of which no two are the same, to fd; with_nul: a NUL ends each key
 * and value.  0 or negative errno. */
int db_hash_write(int fd, const struct map_pair *v, size_t n, bool with_nul);

#endif
