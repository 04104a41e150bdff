/*
 * maps/btree_check.c - see btree_check.h
 *
 * Layout of libdb 5.3's btree access method, versions 9 and 10.  Pages of branches have a key and
 * the page below it for each entry, the first of which has no key; those of leaves have keys and
 * values by turns, and are a chain from the lowest key to the highest.
 */
#include "maps/btree_check.h"

#include <string.h>

#include "maps/db_pages.h"
#include "util/fs.h"
#include "util/str.h"

#define VERSION     10U
#define DEPTH_MAX   32U
#define LEAF_HEAD   3U  /* length and type */
#define BRANCH_HEAD 12U /* length, type, a page's number, a count */

enum { PAGE_BRANCH = 3, PAGE_LEAF = 5, PAGE_META = 9 };
enum { ITEM_DATA = 1, ITEM_BIG = 3, ITEM_DELETED = 0x80 };

struct btree_meta {
    struct db_head head;
    uint32_t unused, min_keys, record_length, record_pad, root;
};

struct btree {
    struct db_file f;
    struct str last; /* key before; p is NULL where there is none, or it has pages of its own */
    bool may_repeat; /* … is that of a branch: the leaf below may begin with it */
    uint32_t leaf;   /* page of the leaf before; 0: none yet */
    uint32_t next;   /* the one that it says comes behind it */
};

struct btree_item {
    const char *p;
    struct str key; /* p is NULL: it has pages of its own */
    bool big;
};

/* The item at an entry's place. */
static bool btree_item_get(const struct btree *t, const struct db_page *page, unsigned at,
                           unsigned head, struct btree_item *item) {
    uint16_t from, length;
    uint32_t size = t->f.head.page_size;
    memcpy(&from, page->p + DB_PAGE_HEAD + 2 * at, sizeof from);
    if (from < page->free_at || from + head > size)
        return false;
    item->p = page->p + from;
    memcpy(&length, item->p, sizeof length);
    unsigned type = (uint8_t)item->p[2] & ~(unsigned)ITEM_DELETED;
    item->big = type == ITEM_BIG;
    item->key = STR_NONE;
    if (type != ITEM_DATA && !item->big)
        return false;
    /* a leaf's large item has no length: its own head lies where the item begins */
    unsigned bytes = !item->big          ? head + length
                     : head == LEAF_HEAD ? DB_BIG_ITEM
                                         : head + DB_BIG_ITEM;
    if (!item->big)
        item->key = str_make(item->p + head, length);
    return from + bytes <= size;
}

/* As libdb orders keys: byte by byte, and the shorter first. */
static int btree_compare(struct str a, struct str b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n == 0 ? 0 : memcmp(a.p, b.p, n);
    return order != 0 ? order : a.n < b.n ? -1 : a.n > b.n ? 1 : 0;
}

static bool btree_order_ok(struct btree *t, struct str key, bool branch) {
    int order = t->last.p == NULL || key.p == NULL ? -1 : btree_compare(t->last, key);
    bool ok = order < 0 || (order == 0 && t->may_repeat);
    t->last = key;
    t->may_repeat = branch;
    return ok;
}

static bool btree_leaf_ok(struct btree *t, const struct db_page *page) {
    bool ok = page->level == 1 && page->entries % 2 == 0 && page->previous == t->leaf &&
              (t->leaf == 0 || t->next == page->no);
    t->leaf = page->no;
    t->next = page->next;
    for (unsigned i = 0; ok && i < page->entries; i++) {
        struct btree_item item;
        ok = btree_item_get(t, page, i, LEAF_HEAD, &item) &&
             (!item.big || db_big_ok(&t->f, item.p)) &&
             (i % 2 == 1 || btree_order_ok(t, item.key, false));
    }
    return ok;
}

static bool btree_page_ok(struct btree *t, uint32_t no, unsigned level);

static bool btree_branch_ok(struct btree *t, const struct db_page *page) {
    bool ok = page->entries > 0;
    for (unsigned i = 0; ok && i < page->entries; i++) {
        struct btree_item item;
        uint32_t below;
        ok = btree_item_get(t, page, i, BRANCH_HEAD, &item);
        if (ok && i > 0)
            ok = (!item.big || db_big_ok(&t->f, item.p + BRANCH_HEAD)) &&
                 btree_order_ok(t, item.key, true);
        if (!ok)
            return false;
        memcpy(&below, item.p + 4, sizeof below);
        ok = btree_page_ok(t, below, page->level - 1U);
    }
    return ok;
}

/* level 0: any */
static bool btree_page_ok(struct btree *t, uint32_t no, unsigned level) {
    struct db_page page;
    if (!db_page_get(&t->f, no, &page) || page.no != no ||
        DB_PAGE_HEAD + 2U * page.entries > page.free_at || page.free_at > t->f.head.page_size ||
        page.level == 0 || page.level > DEPTH_MAX || (level != 0 && page.level != level))
        return false;
    return page.type == PAGE_LEAF     ? btree_leaf_ok(t, &page)
           : page.type == PAGE_BRANCH ? page.level > 1 && btree_branch_ok(t, &page)
                                      : false;
}

static const char *btree_file_check(const void *p, uint64_t n) {
    struct btree tree = {.f = {.p = p, .size = n}};
    struct btree_meta meta;
    const char *why = db_head_read(&tree.f, DB_MAGIC_BTREE, VERSION, PAGE_META, sizeof meta);
    if (why != NULL)
        return why;
    memcpy(&meta, p, sizeof meta);
    return btree_page_ok(&tree, meta.root, 0) && tree.next == 0 ? NULL : "its tree is damaged";
}

const char *btree_check(const char *path) {
    return fs_mapped(path, btree_file_check);
}
