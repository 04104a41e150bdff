/*
 * maps/db_pages.h - the pages of a Berkeley DB file, looked at before libdb is given it
 *
 * libdb believes what a file says of itself, and its own verification does so too: a damaged file
 * would end the process.  What hash_check.c and btree_check.c have in common: the first page's head
 * and the pages of a large value, as libdb 5.3 writes them for postmap (no checksums, no
 * encryption, no duplicates, no partitions, this machine's byte order).  A whole file is in memory
 * that the caller owns.
 */
#ifndef PH_MAPS_DB_PAGES_H
#define PH_MAPS_DB_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#define DB_PAGE_HEAD 26U
#define DB_BIG_ITEM  12U /* bytes of an item that stands for a value on other pages */

enum db_magic { DB_MAGIC_HASH = 0x061561, DB_MAGIC_BTREE = 0x053162 };

/* What every file's first page begins with. */
struct db_head {
    uint64_t lsn;
    uint32_t no, magic, version, page_size;
    uint8_t encryption, type, meta_flags, unused;
    uint32_t free, last, parts, keys, records, flags;
    uint8_t uid[20];
};

struct db_file {
    const char *p;
    uint64_t size;
    struct db_head head;
    uint64_t seen; /* pages visited: no more than there are */
};

struct db_page {
    const char *p;
    uint32_t no, previous, next;
    uint16_t entries, free_at; /* of a large value's pages: free_at is the length */
    uint8_t level, type;
};

/* Reads the head of a file with such a magic number, of one of two versions and of that type of
 * first page, which is at least that long.  NULL, or what is wrong (static text). */
const char *db_head_read(struct db_file *f, enum db_magic magic, uint32_t version, uint8_t type,
                         uint64_t length);
/* False if there is no such page, or more were asked for than there are. */
bool db_page_get(struct db_file *f, uint32_t no, struct db_page *page);
/* Is all of the value there that an item of DB_BIG_ITEM bytes stands for? */
bool db_big_ok(struct db_file *f, const char *item);

#endif
