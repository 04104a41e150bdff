/*
 * maps/db_pages.c - see db_pages.h
 */
#include "maps/db_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "util/fs.h"
#include "util/mem.h"

/* How often a page may be asked for in a walk: branches of a btree may have a large key in common
 * with the leaf. */
#define PAGE_VISITS 8
/* A lock on a file that was not written for so long is no sign that it is being written: all
 * that may read a table can lock it. */
#define WRITES_S 600
/* Versions of the layout that libdb 5.3 reads too. */
#define OLDEST_HASH  7U
#define OLDEST_BTREE 8U

uint16_t db_u16(const struct db_file *f, const char *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return f->swapped ? __builtin_bswap16(v) : v;
}

uint32_t db_u32(const struct db_file *f, const char *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return f->swapped ? __builtin_bswap32(v) : v;
}

static const char *db_other_magic(uint32_t found, enum db_magic wanted) {
    if (found == DB_MAGIC_BTREE && wanted == DB_MAGIC_HASH)
        return "it is a btree file, no hash file";
    if (found == DB_MAGIC_HASH && wanted == DB_MAGIC_BTREE)
        return "it is a hash file, no btree file";
    return wanted == DB_MAGIC_HASH ? "it is no hash file" : "it is no btree file";
}

/* Brings the words of a first page into this machine's order; four of its bytes are no word. */
static void db_meta_swap(char *p, size_t n) {
    for (size_t at = 0; at + 4 <= n; at += 4) {
        uint32_t word;
        if (at == offsetof(struct db_head, encryption) ||
            (at >= offsetof(struct db_head, uid) && at < sizeof(struct db_head)))
            continue;
        memcpy(&word, p + at, sizeof word);
        word = __builtin_bswap32(word);
        memcpy(p + at, &word, sizeof word);
    }
}

static bool db_head_ok(const struct db_head *h, enum db_magic magic) {
    bool hash = magic == DB_MAGIC_HASH;
    uint32_t size = h->page_size, version = hash ? DB_VERSION_HASH : DB_VERSION_BTREE;
    return h->no == 0 && h->type == (hash ? DB_PAGE_HASH_META : DB_PAGE_BTREE_META) &&
           h->version <= version && h->version >= (hash ? OLDEST_HASH : OLDEST_BTREE) &&
           size >= 512 && size <= 65536 && (size & (size - 1)) == 0 && h->encryption == 0 &&
           h->meta_flags == 0 && h->parts == 0 && h->flags == 0 && h->free <= h->last;
}

/* Reads all of n bytes, or what there is of them; negative: it cannot be read. */
static ssize_t db_read_at(int fd, void *p, size_t n, uint64_t at) {
    size_t got = 0;
    while (got < n) {
        ssize_t r = pread(fd, (char *)p + got, n - got, (off_t)(at + got));
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -1;
        if (r == 0)
            break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

static const char *db_meta_read(struct db_file *f, enum db_magic magic, char *meta, size_t bytes) {
    uint64_t size = (uint64_t)f->st.st_size;
    ssize_t got = db_read_at(f->fd, meta, bytes, 0);
    if (got < 0)
        return strerror(f->err = errno);
    if (size == 0)
        return "it is empty";
    struct db_head *h = &f->head;
    if ((size_t)got >= sizeof *h) {
        memcpy(h, meta, sizeof *h);
        f->swapped = h->magic == __builtin_bswap32((uint32_t)magic);
        if (f->swapped)
            db_meta_swap(meta, bytes);
        memcpy(h, meta, sizeof *h);
    }
    if ((size_t)got < sizeof *h || h->magic != (uint32_t)magic)
        return db_other_magic((size_t)got < sizeof *h ? 0 : h->magic, magic);
    if (!db_head_ok(h, magic))
        return "its first page is damaged";
    if (size < bytes || size % h->page_size != 0 || (h->last + 1ULL) * h->page_size > size)
        return "it is cut off";
    return NULL;
}

/* Postfix's postmap holds the file locked from before it empties it until it is whole; for a time
 * it is a whole file without rows.  Keeps postmap from beginning. */
static const char *db_file_lock(struct db_file *f) {
    f->written = flock(f->fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    if (fstat(f->fd, &f->st) < 0)
        return strerror(f->err = errno);
    if (!f->written || llabs((long long)time(NULL) - (long long)f->st.st_mtim.tv_sec) > WRITES_S)
        return NULL;
    f->err = EWOULDBLOCK;
    return DB_WRITTEN;
}

void db_file_opened(struct db_file *f) {
    flock(f->fd, LOCK_UN);
}

const char *db_file_open(struct db_file *f, const char *path, enum db_magic magic, void *meta,
                         size_t meta_bytes) {
    *f = (struct db_file){.fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
    if (f->fd < 0)
        return strerror(f->err = errno);
    const char *why = db_file_lock(f);
    if (why == NULL)
        why = S_ISFIFO(f->st.st_mode) ? "it is a pipe" : db_meta_read(f, magic, meta, meta_bytes);
    if (why != NULL)
        db_file_close(f);
    return why;
}

void db_file_close(struct db_file *f) {
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

bool db_unchanged(const struct db_file *f) {
    struct stat st;
    return fstat(f->fd, &st) == 0 && fs_is_unwritten(&st, &f->st);
}

bool db_page_get(struct db_file *f, uint32_t no, struct db_page *page) {
    uint32_t size = f->head.page_size;
    if (no == 0 || no > f->head.last || f->seen++ / PAGE_VISITS > f->head.last)
        return false;
    if (page->p == NULL)
        page->p = mem_alloc(size);
    page->size = size;
    if (db_read_at(f->fd, page->p, size, (uint64_t)no * size) != (ssize_t)size)
        return false;
    page->no = db_u32(f, page->p + 8);
    page->previous = db_u32(f, page->p + 12);
    page->next = db_u32(f, page->p + 16);
    page->entries = db_u16(f, page->p + 20);
    page->free_at = db_u16(f, page->p + 22);
    page->level = (uint8_t)page->p[24];
    page->type = (uint8_t)page->p[25];
    if (page->free_at == 0 && page->entries == 0 && size > UINT16_MAX && page->type != DB_PAGE_BIG)
        page->free_at = size; /* the number has 16 bits */
    return true;
}

/* Tables hold passwords. */
void db_page_free(struct db_page *page) {
    if (page->p != NULL)
        mem_wipe(page->p, page->size);
    free(page->p);
    page->p = NULL;
}

void db_item_big(const struct db_file *f, const char *p, struct db_item *item) {
    item->big = true;
    item->here = STR_NONE;
    item->big_at = db_u32(f, p + 4);
    item->big_bytes = db_u32(f, p + 8);
}

bool db_item_text(struct db_file *f, const struct db_item *item, struct sbuf *out) {
    if (!item->big) {
        sbuf_add_str(out, item->here);
        return true;
    }
    struct db_page page = {0};
    uint32_t no = item->big_at, left = item->big_bytes;
    while (no != 0 && db_page_get(f, no, &page) && page.no == no && page.type == DB_PAGE_BIG &&
           page.free_at <= page.size - DB_PAGE_HEAD && page.free_at <= left) {
        sbuf_add(out, page.p + DB_PAGE_HEAD, page.free_at);
        left -= page.free_at;
        no = page.next;
    }
    db_page_free(&page);
    return no == 0 && left == 0;
}

int db_compare(struct str a, struct str b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n == 0 ? 0 : memcmp(a.p, b.p, n);
    return order != 0 ? order : a.n < b.n ? -1 : a.n > b.n ? 1 : 0;
}

bool db_item_compare(struct db_file *f, struct str key, const struct db_item *item, int *order) {
    struct sbuf text = {0};
    bool ok = true;
    if (item->big)
        ok = db_item_text(f, item, &text);
    *order = db_compare(key, item->big ? sbuf_str(&text) : item->here);
    sbuf_free(&text);
    return ok;
}
