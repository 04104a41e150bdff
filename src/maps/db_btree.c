/*
 * maps/db_btree.c - see db_btree.h
 *
 * Layout of libdb 5.3's btree access method, versions 8 and 9.  Pages of branches have a key and
 * the page below it for each entry, the first of which is below every key; those of leaves have
 * keys and values by turns, and are a chain from the lowest key to the highest.
 */
#include "maps/db_btree.h"

#include <string.h>

#define DEPTH_MAX 32U

enum btree_walk { BTREE_ON, BTREE_STOPPED, BTREE_DAMAGED };

struct btree_walker {
    struct db_btree *t;
    db_row_fn fn;
    void *arg;
    bool ordered;     /* are keys looked at? */
    bool any;         /* was there a key before? */
    bool may_repeat;  /* … it was a branch's: the leaf below may begin with it */
    struct sbuf last; /* the key before */
    struct sbuf now;
    uint32_t leaf; /* page of the leaf before; 0: none yet */
    uint32_t next; /* the one that it says comes behind it */
};

/* The item at an entry's place of a page with head bytes at the beginning of each item. */
static bool btree_item(const struct db_btree *t, const struct db_page *page, unsigned at,
                       unsigned head, struct db_item *item, unsigned *type) {
    uint16_t from = db_u16(&t->f, page->p + DB_PAGE_HEAD + (size_t)2 * at);
    if (from < page->free_at || from + head > page->size)
        return false;
    const char *p = page->p + from;
    uint16_t length = db_u16(&t->f, p);
    *type = (uint8_t)p[2];
    unsigned kind = *type & ~(unsigned)DB_ITEM_DELETED;
    bool big = kind == DB_ITEM_BIG;
    /* a leaf's large item has no length: its own head lies where the item begins */
    unsigned bytes = !big ? head + length : head == DB_LEAF_HEAD ? DB_BIG_ITEM : head + DB_BIG_ITEM;
    if ((kind != DB_ITEM_DATA && !big) || from + bytes > page->size)
        return false;
    *item = (struct db_item){.here = str_make(p + head, length)};
    if (big)
        db_item_big(&t->f, p + bytes - DB_BIG_ITEM, item);
    return true;
}

/* level 0: any. */
static bool btree_page_get(struct db_btree *t, uint32_t no, unsigned level, struct db_page *page) {
    if (!db_page_get(&t->f, no, page) || page->no != no ||
        DB_PAGE_HEAD + 2U * page->entries > page->free_at || page->free_at > page->size ||
        page->level == 0 || page->level > DEPTH_MAX || (level != 0 && page->level != level))
        return false;
    if (page->type == DB_PAGE_LEAF)
        return page->level == 1 && page->entries % 2 == 0;
    return page->type == DB_PAGE_BRANCH && page->level > 1 && page->entries > 0;
}

/* The page below an entry of a branch. */
static uint32_t btree_below(const struct db_btree *t, const struct db_page *page, unsigned at) {
    uint16_t from = db_u16(&t->f, page->p + DB_PAGE_HEAD + (size_t)2 * at);
    return db_u32(&t->f, page->p + from + 4);
}

/* False when the row cannot be read; gone: it is one that was deleted. */
static bool btree_row(const struct db_btree *t, const struct db_page *page, unsigned at,
                      struct db_row *row, bool *gone) {
    unsigned key_type, value_type;
    if (!btree_item(t, page, at, DB_LEAF_HEAD, &row->key, &key_type) ||
        !btree_item(t, page, at + 1, DB_LEAF_HEAD, &row->value, &value_type))
        return false;
    *gone = ((key_type | value_type) & DB_ITEM_DELETED) != 0;
    return true;
}

static bool btree_order_ok(struct btree_walker *w, const struct db_item *key, bool branch) {
    if (!w->ordered)
        return true;
    w->now.n = 0;
    if (!db_item_text(&w->t->f, key, &w->now))
        return false;
    int order = w->any ? db_compare(sbuf_str(&w->last), sbuf_str(&w->now)) : -1;
    struct sbuf last = w->last;
    w->last = w->now;
    w->now = last;
    bool ok = order < 0 || (order == 0 && w->may_repeat);
    w->any = true;
    w->may_repeat = branch;
    return ok;
}

static enum btree_walk btree_leaf_walk(struct btree_walker *w, const struct db_page *page) {
    if (page->previous != w->leaf || (w->leaf != 0 && w->next != page->no))
        return BTREE_DAMAGED;
    w->leaf = page->no;
    w->next = page->next;
    for (unsigned i = 0; i < page->entries; i += 2) {
        struct db_row row;
        bool gone;
        if (!btree_row(w->t, page, i, &row, &gone) || !btree_order_ok(w, &row.key, false))
            return BTREE_DAMAGED;
        if (!gone && !w->fn(w->arg, &w->t->f, &row))
            return BTREE_STOPPED;
    }
    return BTREE_ON;
}

static enum btree_walk btree_page_walk(struct btree_walker *w, uint32_t no, unsigned level);

static enum btree_walk btree_branch_walk(struct btree_walker *w, const struct db_page *page) {
    enum btree_walk walk = BTREE_ON;
    for (unsigned i = 0; walk == BTREE_ON && i < page->entries; i++) {
        struct db_item key;
        unsigned type;
        if (!btree_item(w->t, page, i, DB_BRANCH_HEAD, &key, &type) ||
            (i > 0 && !btree_order_ok(w, &key, true)))
            return BTREE_DAMAGED;
        walk = btree_page_walk(w, btree_below(w->t, page, i), page->level - 1U);
    }
    return walk;
}

static enum btree_walk btree_page_walk(struct btree_walker *w, uint32_t no, unsigned level) {
    struct db_page page = {0};
    enum btree_walk walk = !btree_page_get(w->t, no, level, &page) ? BTREE_DAMAGED
                           : page.type == DB_PAGE_LEAF             ? btree_leaf_walk(w, &page)
                                                                   : btree_branch_walk(w, &page);
    db_page_free(&page);
    return walk;
}

static enum btree_walk btree_walk_all(struct btree_walker *w) {
    db_walk(&w->t->f);
    enum btree_walk walk = btree_page_walk(w, w->t->m.root, 0);
    sbuf_wipe(&w->last);
    sbuf_wipe(&w->now);
    return walk == BTREE_ON && w->next != 0 ? BTREE_DAMAGED : walk;
}

struct btree_check {
    bool bad;
    struct sbuf text;
};

/* The walk itself has read the key. */
static bool btree_row_check(void *arg, struct db_file *f, const struct db_row *row) {
    struct btree_check *c = arg;
    c->text.n = 0;
    c->bad = row->value.big && !db_item_text(f, &row->value, &c->text);
    return !c->bad;
}

const char *db_btree_open(struct db_btree *t, const char *path) {
    const char *why = db_file_open(&t->f, path, DB_MAGIC_BTREE, &t->m, sizeof t->m);
    if (why != NULL)
        return why;
    struct btree_check check = {0};
    struct btree_walker w = {.t = t, .fn = btree_row_check, .arg = &check, .ordered = true};
    if (btree_walk_all(&w) != BTREE_ON)
        why = "its tree is damaged";
    sbuf_wipe(&check.text);
    if (why != NULL)
        db_file_close(&t->f);
    else
        db_file_opened(&t->f);
    return why;
}

/* The page below the last entry that is not behind key; 0: the page is damaged. */
static uint32_t btree_down(struct db_btree *t, const struct db_page *page, struct str key) {
    unsigned low = 0, high = page->entries; /* the entry is in [low, high) */
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2, type;
        struct db_item item;
        int order;
        if (!btree_item(t, page, middle, DB_BRANCH_HEAD, &item, &type) ||
            !db_item_compare(&t->f, key, &item, &order))
            return 0;
        if (order < 0)
            high = middle;
        else
            low = middle;
    }
    unsigned type;
    struct db_item item;
    return btree_item(t, page, low, DB_BRANCH_HEAD, &item, &type) ? btree_below(t, page, low) : 0;
}

static enum map_rc btree_leaf_ask(struct db_btree *t, const struct db_page *page, struct str key,
                                  struct sbuf *value) {
    unsigned low = 0, high = page->entries / 2U;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        struct db_row row;
        bool gone;
        int order;
        if (!btree_row(t, page, 2 * middle, &row, &gone) ||
            !db_item_compare(&t->f, key, &row.key, &order))
            return MAP_ERROR;
        if (order == 0 && gone)
            return MAP_NOT_FOUND;
        if (order == 0)
            return db_item_text(&t->f, &row.value, value) ? MAP_FOUND : MAP_ERROR;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return MAP_NOT_FOUND;
}

enum map_rc db_btree_get(struct db_btree *t, struct str key, struct sbuf *value) {
    struct db_page page = {0};
    uint32_t no = t->m.root;
    unsigned level = 0;
    enum map_rc rc = MAP_ERROR;
    db_walk(&t->f);
    while (no != 0 && btree_page_get(t, no, level, &page)) {
        if (page.type == DB_PAGE_LEAF) {
            rc = btree_leaf_ask(t, &page, key, value);
            break;
        }
        level = page.level - 1U;
        no = btree_down(t, &page, key);
    }
    db_page_free(&page);
    return rc;
}

bool db_btree_each(struct db_btree *t, db_row_fn fn, void *arg) {
    struct btree_walker w = {.t = t, .fn = fn, .arg = arg};
    return btree_walk_all(&w) != BTREE_DAMAGED;
}
