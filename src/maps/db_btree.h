/*
 * maps/db_btree.h - Berkeley DB's btree files
 *
 * Read and written without its library, as db_hash.h.
 */
#ifndef PH_MAPS_DB_BTREE_H
#define PH_MAPS_DB_BTREE_H

#include "maps/db_pages.h"
#include "maps/map.h"

struct db_btree_meta {
    struct db_head head;
    uint32_t unused, min_keys, record_length, record_pad, root;
};

struct db_btree {
    struct db_file f;
    struct db_btree_meta m;
};

#define DB_LEAF_HEAD   3U  /* of an item of a leaf: length and type */
#define DB_BRANCH_HEAD 12U /* of a branch: length, type, the page below, a count */

/* Opens the file and follows its tree: pages and items lie inside the file and keys are in order,
 * without which one would be passed by.  NULL, or what is wrong (static text); t->f.fd is then -1.
 */
const char *db_btree_open(struct db_btree *t, const char *path);
/* Appends the value of key. */
enum map_rc db_btree_get(struct db_btree *t, struct str key, struct sbuf *value);
/* Calls fn for every pair, in the keys' order.  False if the file was found damaged. */
bool db_btree_each(struct db_btree *t, db_row_fn fn, void *arg);
/* As db_hash_write. */
int db_btree_write(int fd, const struct map_pair *v, size_t n, bool with_nul);

#endif
