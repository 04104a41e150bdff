/*
 * maps/db_btree_write.c - a new btree file; see db_btree.h
 *
 * Leaves are filled one after the other with the rows in their keys' order; then the branches above
 * them, level by level, until one page has all.  That one is page 1, as libdb has it.
 */
#include <stdlib.h>
#include <string.h>

#include "maps/db_btree.h"
#include "maps/db_write.h"
#include "util/mem.h"

#define ROOT_PAGE 1U
#define ITEM_MAX  1000U /* two rows fit into a page at least */
#define KEYS_MIN  2U
#define PAD       ' ' /* libdb's, of records that have no length here */

/* A page of the level that was written last, and the key that the one above has for it. */
struct btree_kid {
    uint32_t no;
    struct db_text key;
};

struct btree_level {
    struct btree_kid *v;
    size_t n, room;
};

struct btree_new {
    struct db_writer w;
    struct db_new_page page;
    bool numbered; /* does page have its number?  The only page of a level is the root */
    struct btree_level done;
};

static size_t btree_item_bytes(size_t text, size_t head) {
    size_t big = head == DB_LEAF_HEAD ? DB_BIG_ITEM : head + DB_BIG_ITEM;
    return text > ITEM_MAX ? big : (head + text + 3) & ~(size_t)3;
}

static void btree_item_put(struct btree_new *t, const struct db_text *text, size_t head,
                           uint32_t below) {
    size_t n = db_text_size(text);
    bool big = n > ITEM_MAX, leaf = head == DB_LEAF_HEAD;
    char *to = db_new_item(&t->page, btree_item_bytes(n, head));
    uint16_t length = (uint16_t)(big ? DB_BIG_ITEM : n);
    if (big && leaf) {
        db_big_put(&t->w, text, 2, to);
        return;
    }
    memcpy(to, &length, sizeof length);
    to[2] = big ? DB_ITEM_BIG : DB_ITEM_DATA;
    if (!leaf)
        memcpy(to + 4, &below, sizeof below);
    if (big)
        db_big_put(&t->w, text, 2, to + head);
    else
        db_text_put(text, to + head);
}

static void btree_kid_add(struct btree_new *t, struct db_text key) {
    struct btree_level *l = &t->done;
    if (l->n == l->room) {
        l->room = l->room == 0 ? 64 : 2 * l->room;
        l->v = mem_realloc(l->v, l->room * sizeof *l->v);
    }
    l->v[l->n++] = (struct btree_kid){.key = key};
}

/* Begins a level. */
static void btree_level_start(struct btree_new *t, uint8_t level) {
    t->done = (struct btree_level){0};
    t->numbered = false;
    db_new_page(&t->page, 0, 0, level == 1 ? DB_PAGE_LEAF : DB_PAGE_BRANCH, level);
    btree_kid_add(t, (struct db_text){STR_NONE, false});
}

/* Writes the page, which is full, and begins the next one; key separates its first key. */
static void btree_page_turn(struct btree_new *t, struct db_text key) {
    bool leaf = t->page.type == DB_PAGE_LEAF;
    if (!t->numbered)
        t->page.no = t->w.next++;
    uint32_t no = t->page.no, next = t->w.next++;
    uint8_t level = t->page.level;
    t->done.v[t->done.n - 1].no = no;
    db_new_page_put(&t->w, &t->page, leaf ? next : 0);
    db_new_page(&t->page, next, leaf ? no : 0, leaf ? DB_PAGE_LEAF : DB_PAGE_BRANCH, level);
    t->numbered = true;
    btree_kid_add(t, key);
}

/* Writes the level's last page. */
static void btree_level_end(struct btree_new *t) {
    if (!t->numbered)
        t->page.no = ROOT_PAGE;
    t->done.v[t->done.n - 1].no = t->page.no;
    db_new_page_put(&t->w, &t->page, 0);
}

static char db_text_byte(const struct db_text *t, size_t i) {
    return i < t->s.n ? t->s.p[i] : '\0';
}

/* The shortest text that is behind before and not behind key: key's beginning. */
static struct db_text btree_separator(const struct db_text *before, const struct db_text *key) {
    size_t same = 0;
    while (same < db_text_size(before) && same < db_text_size(key) &&
           db_text_byte(before, same) == db_text_byte(key, same))
        same++;
    return same < key->s.n ? (struct db_text){str_make(key->s.p, same + 1), false} : *key;
}

static void btree_leaves_put(struct btree_new *t, const struct map_pair *const *v, size_t n) {
    struct db_text before = {STR_NONE, t->w.with_nul};
    btree_level_start(t, 1);
    for (size_t i = 0; i < n; i++) {
        struct db_text key = {v[i]->key, t->w.with_nul}, value = {v[i]->value, t->w.with_nul};
        size_t bytes = btree_item_bytes(db_text_size(&key), DB_LEAF_HEAD) +
                       btree_item_bytes(db_text_size(&value), DB_LEAF_HEAD);
        if (!db_new_page_fits(&t->page, 2, bytes))
            btree_page_turn(t, btree_separator(&before, &key));
        btree_item_put(t, &key, DB_LEAF_HEAD, 0);
        btree_item_put(t, &value, DB_LEAF_HEAD, 0);
        before = key;
    }
    btree_level_end(t);
}

static void btree_branches_put(struct btree_new *t, uint8_t level) {
    struct btree_level below = t->done;
    btree_level_start(t, level);
    for (size_t i = 0; i < below.n; i++) {
        const struct db_text *key = &below.v[i].key;
        if (!db_new_page_fits(&t->page, 1, btree_item_bytes(db_text_size(key), DB_BRANCH_HEAD)))
            btree_page_turn(t, *key);
        btree_item_put(t, key, DB_BRANCH_HEAD, below.v[i].no);
    }
    btree_level_end(t);
    free(below.v);
}

static int btree_row_order(const void *a, const void *b) {
    const struct map_pair *const *x = a, *const *y = b;
    return db_compare((*x)->key, (*y)->key);
}

int db_btree_write(int fd, const struct map_pair *v, size_t n, bool with_nul) {
    struct btree_new t = {.w = {.fd = fd, .with_nul = with_nul, .next = ROOT_PAGE + 1}};
    const struct map_pair **rows = mem_zalloc((n + 1) * sizeof *rows);
    for (size_t i = 0; i < n; i++)
        rows[i] = &v[i];
    qsort(rows, n, sizeof *rows, btree_row_order);
    btree_leaves_put(&t, rows, n);
    for (uint8_t level = 2; t.done.n > 1 && t.w.rc == 0; level++)
        btree_branches_put(&t, level);
    free(t.done.v);
    free(rows);
    struct db_btree_meta m = {.min_keys = KEYS_MIN, .record_pad = PAD, .root = ROOT_PAGE};
    db_meta_put(&t.w, DB_MAGIC_BTREE, &m, sizeof m);
    return t.w.rc;
}
