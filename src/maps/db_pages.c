/*
 * maps/db_pages.c - see db_pages.h
 */
#include "maps/db_pages.h"

#include <string.h>

enum { PAGE_OVERFLOW = 7 };

static const char *db_other_magic(uint32_t found, enum db_magic wanted) {
    if (found == DB_MAGIC_BTREE && wanted == DB_MAGIC_HASH)
        return "it is a btree file, no hash file";
    if (found == DB_MAGIC_HASH && wanted == DB_MAGIC_BTREE)
        return "it is a hash file, no btree file";
    return wanted == DB_MAGIC_HASH ? "it is no hash file" : "it is no btree file";
}

static bool db_head_ok(const struct db_head *h, uint32_t version, uint8_t type) {
    uint32_t size = h->page_size;
    return h->no == 0 && h->type == type && (h->version == version || h->version == version - 1) &&
           size >= 512 && size <= 65536 && (size & (size - 1)) == 0 && h->encryption == 0 &&
           h->meta_flags == 0 && h->parts == 0 && h->flags == 0 && h->free <= h->last;
}

const char *db_head_read(struct db_file *f, enum db_magic magic, uint32_t version, uint8_t type,
                         uint64_t length) {
    struct db_head *h = &f->head;
    if (f->size < sizeof *h)
        return db_other_magic(0, magic);
    memcpy(h, f->p, sizeof *h);
    if (h->magic != (uint32_t)magic)
        return db_other_magic(h->magic, magic);
    if (!db_head_ok(h, version, type))
        return "its first page is damaged";
    if (f->size < length || f->size % h->page_size != 0 ||
        (h->last + 1ULL) * h->page_size > f->size)
        return "it is cut off";
    return NULL;
}

bool db_page_get(struct db_file *f, uint32_t no, struct db_page *page) {
    if (no == 0 || no > f->head.last || f->seen++ > f->head.last)
        return false;
    page->p = f->p + (uint64_t)no * f->head.page_size;
    memcpy(&page->no, page->p + 8, 4);
    memcpy(&page->previous, page->p + 12, 4);
    memcpy(&page->next, page->p + 16, 4);
    memcpy(&page->entries, page->p + 20, 2);
    memcpy(&page->free_at, page->p + 22, 2);
    page->level = (uint8_t)page->p[24];
    page->type = (uint8_t)page->p[25];
    return true;
}

bool db_big_ok(struct db_file *f, const char *item) {
    uint32_t no, left;
    struct db_page page;
    memcpy(&no, item + 4, 4);
    memcpy(&left, item + 8, 4);
    while (no != 0) {
        if (!db_page_get(f, no, &page) || page.no != no || page.type != PAGE_OVERFLOW ||
            page.free_at > f->head.page_size - DB_PAGE_HEAD || page.free_at > left)
            return false;
        left -= page.free_at;
        no = page.next;
    }
    return left == 0;
}
