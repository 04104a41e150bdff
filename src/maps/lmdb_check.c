/*
 * maps/lmdb_check.c - see lmdb_check.h
 *
 * Layout as liblmdb 0.9 writes it: two meta pages, of which the one with the greater transaction
 * counts; branch and leaf pages with an array of node offsets; overflow pages for large values.
 */
#include "maps/lmdb_check.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "util/fs.h"

#define MAGIC     0xBEEFC0DEU
#define PAGE_HEAD 16U
#define NODE_HEAD 8U
#define DEPTH_MAX 32U
#define NO_PAGE   UINT64_MAX

enum { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_META = 8 };
enum { NODE_BIG = 1 };

struct page_head {
    uint64_t no;
    uint16_t pad, flags;
    uint16_t lower, upper; /* overflow pages: a number of pages in their place */
};

struct tree {
    uint32_t pad; /* of the free list's: the page size */
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
};

struct meta {
    uint32_t magic, version;
    uint64_t address, mapsize;
    struct tree trees[2]; /* free list, data */
    uint64_t last_page, txn;
};

struct file {
    const char *p;
    uint64_t size;
    uint64_t page;  /* bytes of one */
    uint64_t pages; /* whole ones in the file */
    uint64_t seen;  /* pages visited: no more than there are */
};

static bool lmdb_page_get(struct file *f, uint64_t no, struct page_head *h) {
    if (no >= f->pages || f->seen++ > f->pages)
        return false;
    memcpy(h, f->p + no * f->page, sizeof *h);
    return h->no == no;
}

static bool big_value_ok(struct file *f, uint64_t no, uint64_t size) {
    struct page_head h;
    uint32_t n;
    if (!lmdb_page_get(f, no, &h) || (h.flags & PAGE_OVERFLOW) == 0)
        return false;
    memcpy(&n, &h.lower, sizeof n);
    return n > 0 && n <= f->pages - no && size <= n * f->page - PAGE_HEAD;
}

static bool page_ok(struct file *f, uint64_t no, unsigned depth);

/* The node at off of a page. */
static bool node_ok(struct file *f, const char *page, uint16_t off, bool leaf, unsigned depth) {
    uint16_t w[4]; /* low and high half of size or page, flags, key size */
    uint64_t big;
    if (off < PAGE_HEAD || (off & 1) != 0 || off + NODE_HEAD > f->page)
        return false;
    memcpy(w, page + off, sizeof w);
    uint64_t room = f->page - off - NODE_HEAD, low = w[0] | (uint64_t)w[1] << 16;
    if (w[3] > room)
        return false;
    if (!leaf)
        return page_ok(f, low | (uint64_t)w[2] << 32, depth + 1);
    room -= w[3];
    if ((w[2] & ~NODE_BIG) != 0) /* sub-databases and duplicates: no table has them */
        return false;
    if ((w[2] & NODE_BIG) == 0)
        return low <= room;
    if (room < sizeof big)
        return false;
    memcpy(&big, page + off + NODE_HEAD + w[3], sizeof big);
    return big_value_ok(f, big, low);
}

static bool page_ok(struct file *f, uint64_t no, unsigned depth) {
    struct page_head h;
    if (depth > DEPTH_MAX || !lmdb_page_get(f, no, &h))
        return false;
    bool leaf = h.flags == PAGE_LEAF;
    if (!leaf && h.flags != PAGE_BRANCH)
        return false;
    if (h.lower < PAGE_HEAD || h.lower > h.upper || h.upper > f->page || (h.lower & 1) != 0)
        return false;
    const char *page = f->p + no * f->page;
    unsigned n = (h.lower - PAGE_HEAD) / 2U;
    bool ok = leaf || n >= 2;
    for (unsigned i = 0; i < n && ok; i++) {
        uint16_t off;
        memcpy(&off, page + PAGE_HEAD + 2 * i, sizeof off);
        ok = off >= h.upper && node_ok(f, page, off, leaf, depth);
    }
    return ok;
}

static bool meta_get(const struct file *f, uint64_t at, struct meta *m) {
    struct page_head h;
    if (at + PAGE_HEAD + sizeof *m > f->size)
        return false;
    memcpy(&h, f->p + at, sizeof h);
    memcpy(m, f->p + at + PAGE_HEAD, sizeof *m);
    return (h.flags & PAGE_META) != 0 && m->magic == MAGIC && m->version == 1;
}

static const char *lmdb_file_check(const void *p, uint64_t n) {
    struct file file = {.p = p, .size = n}, *f = &file;
    struct meta a, b;
    if (!meta_get(f, 0, &a))
        return "it is no LMDB file";
    f->page = a.trees[0].pad;
    if (f->page < 512 || f->page > 65536 || (f->page & (f->page - 1)) != 0)
        return "its page size is impossible";
    f->pages = f->size / f->page;
    if (!meta_get(f, f->page, &b) || b.trees[0].pad != f->page)
        return "its second meta page is damaged";
    const struct meta *m = a.txn >= b.txn ? &a : &b;
    if (m->last_page >= f->pages || f->size > m->mapsize + f->page)
        return "it is shorter than it says";
    if (m->trees[1].flags != 0)
        return "it is no table of Postfix's kind";
    if (m->trees[1].depth > DEPTH_MAX)
        return "its tree is damaged";
    if (m->trees[1].root != NO_PAGE && !page_ok(f, m->trees[1].root, 0))
        return "its tree is damaged";
    return NULL;
}

const char *lmdb_check(const char *path) {
    return fs_mapped(path, lmdb_file_check);
}
