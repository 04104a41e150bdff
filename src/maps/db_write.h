/*
 * maps/db_write.h - a new file of Berkeley DB's format, page by page
 *
 * As libdb 5.3 writes it for postmap, in this machine's byte order.  What db_hash_write.c and
 * db_btree_write.c have in common.  The first failure is kept in the writer, and what follows does
 * nothing.  One thread at a time.
 */
#ifndef PH_MAPS_DB_WRITE_H
#define PH_MAPS_DB_WRITE_H

#include "maps/db_pages.h"

#define DB_PAGE_SIZE 4096U

struct db_writer {
    int fd;
    bool with_nul; /* of every key and value */
    int rc;        /* negative errno of the first failure, or 0 */
    uint32_t next; /* the first page that has no content yet */
};

/* A page that is being filled: places of items from its head upwards, items from its end down. */
struct db_new_page {
    char p[DB_PAGE_SIZE];
    uint32_t no, previous;
    uint16_t entries, free_at;
    uint8_t level;
    enum db_page_type type;
};

/* Bytes of a key or value, of which the last may be a NUL that is not there in memory. */
struct db_text {
    struct str s;
    bool nul;
};

static inline size_t db_text_size(const struct db_text *t) {
    return t->s.n + t->nul;
}

void db_text_put(const struct db_text *t, char *to);
/* An empty page. */
void db_new_page(struct db_new_page *page, uint32_t no, uint32_t previous, enum db_page_type type,
                 uint8_t level);
/* Room for items of so many bytes, each with its place? */
bool db_new_page_fits(const struct db_new_page *page, size_t items, size_t bytes);
/* Makes a place for an item and returns where its bytes go. */
char *db_new_item(struct db_new_page *page, size_t bytes);
/* Writes the page; next: the one that comes behind it, or 0. */
void db_new_page_put(struct db_writer *w, struct db_new_page *page, uint32_t next);
/* Writes the text to pages of its own and the item of DB_BIG_ITEM bytes that stands for it to to;
 * its type is the third byte in a btree, the first in a hash file. */
void db_big_put(struct db_writer *w, const struct db_text *t, size_t type_at, char *to);
/* Writes the first page: meta, which begins with a struct db_head that is filled in here. */
void db_meta_put(struct db_writer *w, enum db_magic magic, void *meta, size_t bytes);

#endif
