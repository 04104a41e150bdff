/*
 * maps/db_pages.h - the pages of a Berkeley DB file, read without its library
 *
 * What db_hash.c and db_btree.c have in common: the first page's head, a page's head, an item, and
 * the pages of a large item, as libdb 5.3 writes them for postmap (no checksums, no encryption, no
 * duplicates, no partitions), in either byte order.  A file is read page by page and never mapped:
 * one that another program cuts off meanwhile gives an error.  Nothing in a file is believed.
 *
 * An open file belongs to one thread at a time.
 */
#ifndef PH_MAPS_DB_PAGES_H
#define PH_MAPS_DB_PAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "util/str.h"

#define DB_PAGE_HEAD     26U
#define DB_BIG_ITEM      12U /* bytes of an item that stands for what lies on other pages */
#define DB_VERSION_HASH  9U
#define DB_VERSION_BTREE 9U
#define DB_DAMAGED       "it is damaged"
#define DB_WRITTEN       "another program is writing it"

enum db_magic { DB_MAGIC_HASH = 0x061561, DB_MAGIC_BTREE = 0x053162 };
enum db_page_type {
    DB_PAGE_UNUSED = 0,
    DB_PAGE_UNSORTED = 2, /* of a hash file, by older libraries */
    DB_PAGE_BRANCH = 3,
    DB_PAGE_LEAF = 5,
    DB_PAGE_BIG = 7, /* part of a large item */
    DB_PAGE_HASH_META = 8,
    DB_PAGE_BTREE_META = 9,
    DB_PAGE_HASH = 13
};
enum db_item_type { DB_ITEM_DATA = 1, DB_ITEM_BIG = 3, DB_ITEM_DELETED = 0x80 };

/* What every file's first page begins with. */
struct db_head {
    uint32_t lsn[2];
    uint32_t no, magic, version, page_size;
    uint8_t encryption, type, meta_flags, unused;
    uint32_t free, last, parts, keys, records, flags;
    uint8_t uid[20];
};

struct db_file {
    int fd;         /* -1: not open */
    bool swapped;   /* written by a machine of the other byte order */
    struct stat st; /* when it was opened */
    bool written;   /* another program held it locked when it was opened, as postmap does */
    uint64_t seen;  /* pages asked for in this walk */
    int err;        /* why it could not be opened or read; 0: that is not the reason */
    struct db_head head;
};

/* A page in memory of its own; db_page_free when done.  Zero-initialised is valid and empty. */
struct db_page {
    char *p;
    uint32_t size;
    uint32_t no, previous, next;
    uint16_t entries;
    uint32_t free_at; /* the lowest item; of a large item's pages: how much they hold */
    uint8_t level, type;
};

/* A key or a value: bytes of a page, or the first of the pages where it lies. */
struct db_item {
    bool big;
    struct str here;            /* when not big */
    uint32_t big_at, big_bytes; /* when big */
};

/* Opens the file at path and reads all of its first page that has a meaning: meta_bytes to meta, a
 * struct db_head before the type's own numbers of 32 bits, in this machine's order.  NULL, or what
 * is wrong (static text, or strerror's of f->err); f is then closed.  Until db_file_opened is
 * called Postfix's postmap waits: what is looked at meanwhile is whole, or was never so. */
const char *db_file_open(struct db_file *f, const char *path, enum db_magic magic, void *meta,
                         size_t meta_bytes);
/* The file was looked at: others may write it again. */
void db_file_opened(struct db_file *f);
void db_file_close(struct db_file *f);
/* Is the file still as it was when it was opened? */
bool db_unchanged(const struct db_file *f);
/* Begins a walk through the file. */
static inline void db_walk(struct db_file *f) {
    f->seen = 0;
}

/* Reads page no; false if there is no such page, or if far more were asked for in this walk than
 * there are.  What page holds is overwritten. */
bool db_page_get(struct db_file *f, uint32_t no, struct db_page *page);
void db_page_free(struct db_page *page);
uint16_t db_u16(const struct db_file *f, const char *p);
uint32_t db_u32(const struct db_file *f, const char *p);
/* Fills item from the DB_BIG_ITEM bytes at p. */
void db_item_big(const struct db_file *f, const char *p, struct db_item *item);
/* Appends the item's bytes; false if they are not all there. */
bool db_item_text(struct db_file *f, const struct db_item *item, struct sbuf *out);
/* As libdb orders keys, byte by byte and the shorter first: order is below 0 when key comes before
 * the item.  False if the item's pages are damaged. */
bool db_item_compare(struct db_file *f, struct str key, const struct db_item *item, int *order);
int db_compare(struct str a, struct str b);

/* Called for every pair of a walk; false ends it. */
struct db_row {
    struct db_item key, value;
};
typedef bool (*db_row_fn)(void *arg, struct db_file *f, const struct db_row *row);

#endif
