/*
 * maps/db_write.c - see db_write.h
 */
#include "maps/db_write.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "util/mem.h"
#include "util/os.h"

#define LSN_NOT_LOGGED 1U

void db_text_put(const struct db_text *t, char *to) {
    if (t->s.n > 0)
        memcpy(to, t->s.p, t->s.n);
    if (t->nul)
        to[t->s.n] = '\0';
}

void db_new_page(struct db_new_page *page, uint32_t no, uint32_t previous, enum db_page_type type,
                 uint8_t level) {
    memset(page->p, 0, sizeof page->p);
    page->no = no;
    page->previous = previous;
    page->entries = 0;
    page->free_at = DB_PAGE_SIZE;
    page->level = level;
    page->type = type;
}

bool db_new_page_fits(const struct db_new_page *page, size_t items, size_t bytes) {
    return DB_PAGE_HEAD + 2 * (page->entries + items) + bytes <= page->free_at;
}

char *db_new_item(struct db_new_page *page, size_t bytes) {
    page->free_at = (uint16_t)(page->free_at - bytes);
    memcpy(page->p + DB_PAGE_HEAD + (size_t)2 * page->entries, &page->free_at,
           sizeof page->free_at);
    page->entries++;
    return page->p + page->free_at;
}

static void db_page_write(struct db_writer *w, const char *p, uint32_t no) {
    size_t done = 0;
    while (w->rc == 0 && done < DB_PAGE_SIZE) {
        ssize_t n = pwrite(w->fd, p + done, DB_PAGE_SIZE - done,
                           (off_t)((uint64_t)no * DB_PAGE_SIZE + done));
        if (n < 0 && errno != EINTR)
            w->rc = -errno;
        done += n < 0 ? 0 : (size_t)n;
    }
}

void db_new_page_put(struct db_writer *w, struct db_new_page *page, uint32_t next) {
    uint32_t words[5] = {0, LSN_NOT_LOGGED, page->no, page->previous, next};
    memcpy(page->p, words, sizeof words);
    memcpy(page->p + 20, &page->entries, 2);
    memcpy(page->p + 22, &page->free_at, 2);
    page->p[24] = (char)page->level;
    page->p[25] = (char)page->type;
    db_page_write(w, page->p, page->no);
    mem_wipe(page->p, sizeof page->p);
}

/* A page of a large item: its entries are how many items use it, and free_at is its length. */
static void db_big_page_put(struct db_writer *w, const struct db_text *t, size_t from,
                            uint32_t previous, uint32_t no) {
    struct db_new_page page;
    size_t most = DB_PAGE_SIZE - DB_PAGE_HEAD, left = db_text_size(t) - from;
    size_t n = left < most ? left : most;
    size_t bytes = from + n > t->s.n ? t->s.n - from : n; /* without the NUL */
    db_new_page(&page, no, previous, DB_PAGE_BIG, 0);
    memcpy(page.p + DB_PAGE_HEAD, t->s.p + from, bytes);
    page.entries = 1;
    page.free_at = (uint16_t)n;
    db_new_page_put(w, &page, left > most ? no + 1 : 0);
}

void db_big_put(struct db_writer *w, const struct db_text *t, size_t type_at, char *to) {
    uint32_t first = w->next, bytes = (uint32_t)db_text_size(t);
    size_t most = DB_PAGE_SIZE - DB_PAGE_HEAD;
    if (db_text_size(t) > UINT32_MAX)
        w->rc = -EFBIG;
    for (size_t from = 0; w->rc == 0 && from < db_text_size(t); from += most, w->next++)
        db_big_page_put(w, t, from, w->next == first ? 0 : w->next - 1, w->next);
    memset(to, 0, DB_BIG_ITEM);
    to[type_at] = DB_ITEM_BIG;
    memcpy(to + 4, &first, sizeof first);
    memcpy(to + 8, &bytes, sizeof bytes);
}

void db_meta_put(struct db_writer *w, enum db_magic magic, void *meta, size_t bytes) {
    char page[DB_PAGE_SIZE] = {0};
    bool hash = magic == DB_MAGIC_HASH;
    struct db_head h = {
        .lsn = {0, LSN_NOT_LOGGED},
        .magic = (uint32_t)magic,
        .version = hash ? DB_VERSION_HASH : DB_VERSION_BTREE,
        .page_size = DB_PAGE_SIZE,
        .type = hash ? DB_PAGE_HASH_META : DB_PAGE_BTREE_META,
        .last = w->next - 1,
    };
    /* an identity, by which libdb tells files apart that it has open */
    if (!os_random(h.uid, sizeof h.uid, true) && w->rc == 0)
        w->rc = -EIO;
    memcpy(page, meta, bytes);
    memcpy(page, &h, sizeof h);
    db_page_write(w, page, 0);
}
