/*
 * maps/recent.c - answers that are still fresh; see recent.h
 */
#include "maps/recent.h"

#include <stdlib.h>

#include "util/clock.h"
#include "util/htab.h"
#include "util/mem.h"

/* When there are more, those that are too old go. */
#define SWEEP_FROM 1024U
/* When there is no room, no sooner than so long after the last time. */
#define SWEEP_MS 100

struct item {
    char *question;
    size_t question_n;
    struct sbuf answer;
    int64_t asked_ms;
    bool open; /* being asked */
    struct task *joined;
};

struct recent {
    pthread_mutex_t lock;
    struct htab items;
    size_t sweep_at;
    size_t held;        /* bytes of answers */
    int64_t swept_ms;   /* when those that were too old went last */
    int64_t cleared_ms; /* what was asked before does not count */
};

struct recent *recent_new(void) {
    struct recent *r = MEM_NEW(struct recent);
    pthread_mutex_init(&r->lock, NULL);
    r->sweep_at = SWEEP_FROM;
    return r;
}

static void item_drop(struct recent *r, struct item *i) {
    htab_del(&r->items, str_make(i->question, i->question_n));
    r->held -= i->answer.cap;
    sbuf_wipe(&i->answer);
    free(i->question);
    free(i);
}

static bool is_stale(const struct recent *r, const struct item *i, int64_t now) {
    return !i->open && (now - i->asked_ms > RECENT_MS || i->asked_ms <= r->cleared_ms);
}

/* Answers may be passwords: what is too old does not stay. */
static void sweep(struct recent *r, int64_t now) {
    size_t pos = 0, n = 0;
    struct item **old = mem_alloc(r->items.n * sizeof(struct item *));
    for (struct item *i; (i = htab_next(&r->items, &pos)) != NULL;)
        if (is_stale(r, i, now))
            old[n++] = i;
    for (size_t k = 0; k < n; k++)
        item_drop(r, old[k]);
    free(old);
    r->swept_ms = now;
    r->sweep_at = r->items.n * 2 < SWEEP_FROM ? SWEEP_FROM : r->items.n * 2;
}

static bool recent_has_room(struct recent *r, size_t n, int64_t now) {
    if (r->held + n > RECENT_BYTES && now - r->swept_ms >= SWEEP_MS)
        sweep(r, now);
    return r->held + n <= RECENT_BYTES;
}

static void item_answer(struct recent *r, struct item *i, struct str answer) {
    r->held -= i->answer.cap;
    sbuf_wipe(&i->answer);
    sbuf_add_str(&i->answer, answer);
    r->held += i->answer.cap;
}

static struct item *item_new(struct recent *r, struct str question) {
    struct item *i = MEM_NEW(struct item);
    i->question = str_dup(question);
    i->question_n = question.n;
    htab_put(&r->items, str_make(i->question, i->question_n), i);
    return i;
}

enum recent_rc recent_find(struct recent *r, struct str question, struct task *t,
                           struct sbuf *answer) {
    enum recent_rc rc = RECENT_ASK;
    int64_t now = clock_mono_ms();
    pthread_mutex_lock(&r->lock);
    if (r->items.n >= r->sweep_at)
        sweep(r, now);
    struct item *i = htab_get(&r->items, question);
    if (i == NULL)
        i = item_new(r, question);
    if (i->open && i->asked_ms <= r->cleared_ms) {
        rc = RECENT_ALONE;
    } else if (i->open) {
        t->next = i->joined;
        i->joined = t;
        rc = RECENT_JOINED;
    } else if (i->asked_ms != 0 && !is_stale(r, i, now)) {
        sbuf_add_str(answer, sbuf_str(&i->answer));
        rc = RECENT_KNOWN;
    } else {
        i->open = true;
        i->asked_ms = now;
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

bool recent_get(struct recent *r, struct str question, struct sbuf *answer) {
    int64_t now = clock_mono_ms();
    pthread_mutex_lock(&r->lock);
    struct item *i = htab_get(&r->items, question);
    bool known = i != NULL && !i->open && !is_stale(r, i, now);
    if (known)
        sbuf_add_str(answer, sbuf_str(&i->answer));
    pthread_mutex_unlock(&r->lock);
    return known;
}

void recent_put(struct recent *r, struct str question, struct str answer, int64_t asked_ms) {
    int64_t now = clock_mono_ms();
    pthread_mutex_lock(&r->lock);
    if (r->items.n >= r->sweep_at)
        sweep(r, now);
    if (recent_has_room(r, answer.n, now)) {
        struct item *i = htab_get(&r->items, question);
        if (i == NULL)
            i = item_new(r, question);
        i->asked_ms = asked_ms;
        item_answer(r, i, answer);
    }
    pthread_mutex_unlock(&r->lock);
}

void recent_clear(struct recent *r) {
    pthread_mutex_lock(&r->lock);
    r->cleared_ms = clock_mono_ms();
    sweep(r, r->cleared_ms);
    pthread_mutex_unlock(&r->lock);
}

struct task *recent_done(struct recent *r, struct str question, struct str answer, bool good) {
    pthread_mutex_lock(&r->lock);
    struct item *i = htab_get(&r->items, question);
    struct task *joined = i->joined;
    bool keep = good && recent_has_room(r, answer.n, clock_mono_ms());
    i->joined = NULL;
    i->open = false;
    if (keep)
        item_answer(r, i, answer);
    else
        item_drop(r, i);
    pthread_mutex_unlock(&r->lock);
    return joined;
}
