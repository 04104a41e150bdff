/*
 * mail/envelope.c - envelopes and their encoding; see envelope.h
 *
 * The encoding is versioned: the spool outlives the program.
 */
#include "mail/envelope.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mail/held.h"
#include "util/clock.h"
#include "util/ipc.h"
#include "util/mem.h"

#define ENVELOPE_VERSION    1U
#define ENVELOPE_OWNERS     2U /* each recipient has an owner, too: written only where one has */
#define ENVELOPE_ALIASED    3U /* … and an original address: written only where one has */
#define ENVELOPE_FILTERED   4U /* … and the message a filter and an origin: likewise */
#define PROGRESS_VERSION    2U
#define PROGRESS_CAUSES     3U /* each error has a cause, too: written only where one has */
#define PROGRESS_ONE_REASON 1U /* what Posthouse 0.1 wrote */
#define PROGRESS_STEP       4U /* behind one of those, or, where that is lost, another one */

static const char alphabet[] = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";

/* v in the given base, left-padded with '0' to width; returns where the text ends. */
static char *base_add(char *at, uint64_t v, unsigned base, unsigned width) {
    char tmp[16];
    unsigned n = 0;
    do {
        tmp[n++] = alphabet[v % base];
        v /= base;
    } while (v > 0);
    while (n < width)
        tmp[n++] = '0';
    while (n > 0)
        *at++ = tmp[--n];
    return at;
}

/* Unique because no microsecond is given twice, not even to two threads or after the clock was set
 * back while running.  Long IDs have Postfix's shape: seconds, microseconds, 'z', a number (there
 * the inode, here the low bits of the id). */
static _Atomic uint64_t qid_last;

void qid_message_id(struct sbuf *out, const char *qid, int64_t arrival_us, const char *host) {
    sbuf_add_ch(out, '<');
    clock_add_stamp(out, arrival_us);
    sbuf_printf(out, ".%s@%s>", qid, host);
}

void qid_after(uint64_t id) {
    uint64_t prev = atomic_load(&qid_last);
    while (prev < id && !atomic_compare_exchange_weak(&qid_last, &prev, id)) {
    }
}

void qid_next(bool long_ids, uint64_t *id, char qid[QID_MAX]) {
    uint64_t now = (uint64_t)clock_wall_us(), prev = atomic_load(&qid_last);
    do {
        if (now <= prev)
            now = prev + 1;
    } while (!atomic_compare_exchange_weak(&qid_last, &prev, now));
    *id = now;
    uint64_t sec = now / 1000000, us = now % 1000000;
    if (long_ids) {
        char *at = base_add(qid, sec, 52, 6);
        at = base_add(at, us, 52, 4);
        *at++ = 'z';
        at = base_add(at, now * 0x9e3779b97f4a7c15ULL >> 44, 51, 1);
        *at = '\0';
    } else {
        snprintf(qid, QID_MAX, "%05X%X", (unsigned)us, (unsigned)(sec & 0xfffff));
    }
}

bool qid_ok(struct str id) {
    for (size_t i = 0; i < id.n; i++)
        if (!isalnum((unsigned char)id.p[i]) && id.p[i] != '_')
            return false;
    return id.n > 0;
}

/* They are the four digits of base 52 before the last 'z', behind six or more of the seconds. */
int qid_long_us(const char *qid) {
    const char *z = strrchr(qid, 'z');
    int us = 0;
    if (z == NULL || z - qid < 10)
        return -1;
    for (const char *at = z - 4; at < z; at++) {
        const char *digit = strchr(alphabet, *at);
        us = us * 52 + (digit == NULL ? 0 : (int)(digit - alphabet));
    }
    return us;
}

struct envelope *envelope_ref(struct envelope *e) {
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

void envelope_unref(struct envelope *e) {
    if (e == NULL || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
        return;
    held_remove(e->held);
    free(e);
}

static struct str store_add(char **at, struct str s) {
    char *p = *at;
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    *at += s.n;
    return str_make(p, s.n);
}

#define ENVELOPE_OLD_TEXTS 4U /* of those below, before ENVELOPE_FILTERED */
#define ENVELOPE_TEXTS     12U
/* The texts of an envelope, those of its recipients apart, in the order of its encoding. */
static void envelope_texts(const struct envelope *from, struct str *texts[ENVELOPE_TEXTS]) {
    struct envelope *e = (struct envelope *)(uintptr_t)from;
    struct origin *o = &e->origin;
    struct str *all[ENVELOPE_TEXTS] = {&e->sender, &e->envid, &e->client, &e->sasl_user,
                                       &e->filter, &o->name,  &o->addr,   &o->port,
                                       &o->proto,  &o->helo,  &o->ident,  &o->source};
    memcpy(texts, all, sizeof all);
}

struct envelope *envelope_make(const struct envelope *t) {
    size_t head = sizeof(struct envelope) + t->n_rcpts * sizeof *t->rcpts;
    struct str *texts[ENVELOPE_TEXTS];
    size_t n = 0;
    envelope_texts(t, texts);
    for (size_t i = 0; i < ENVELOPE_TEXTS; i++)
        n += texts[i]->n;
    for (uint32_t i = 0; i < t->n_rcpts; i++)
        n += t->rcpts[i].addr.n + t->rcpts[i].orcpt.n + t->rcpts[i].owner.n + t->rcpts[i].orig.n;
    struct envelope *e = mem_alloc(head + n);
    char *at = (char *)e + head;
    *e = *t;
    e->held = head + n;
    held_add(e->held);
    atomic_store(&e->refs, 1);
    e->rcpts = (struct rcpt *)(e + 1);
    envelope_texts(e, texts);
    for (size_t i = 0; i < ENVELOPE_TEXTS; i++)
        *texts[i] = store_add(&at, *texts[i]);
    for (uint32_t i = 0; i < t->n_rcpts; i++) {
        e->rcpts[i].addr = store_add(&at, t->rcpts[i].addr);
        e->rcpts[i].orcpt = store_add(&at, t->rcpts[i].orcpt);
        e->rcpts[i].owner = store_add(&at, t->rcpts[i].owner);
        e->rcpts[i].orig = store_add(&at, t->rcpts[i].orig);
        e->rcpts[i].notify = t->rcpts[i].notify;
        e->rcpts[i].expanded = t->rcpts[i].expanded;
    }
    return e;
}

/* The oldest version that can say all of it: an older Posthouse reads what it can. */
static uint32_t version_of(const struct envelope *e) {
    uint32_t version = ENVELOPE_VERSION;
    if (e->filter.n > 0 || e->origin.source.n > 0) /* an older one would send it unfiltered */
        return ENVELOPE_FILTERED;
    if ((e->flags & ENV_HOLD) != 0) /* an older one would send it */
        return ENVELOPE_ALIASED;
    for (uint32_t i = 0; i < e->n_rcpts; i++) {
        if (e->rcpts[i].orig.n > 0 || e->rcpts[i].expanded)
            return ENVELOPE_ALIASED;
        if (e->rcpts[i].owner.n > 0)
            version = ENVELOPE_OWNERS;
    }
    return version;
}

static uint32_t texts_of_version(uint32_t version) {
    return version >= ENVELOPE_FILTERED ? ENVELOPE_TEXTS : ENVELOPE_OLD_TEXTS;
}

void envelope_encode(const struct envelope *e, struct sbuf *out) {
    struct str *texts[ENVELOPE_TEXTS];
    uint32_t version = version_of(e);
    ipc_put_u32(out, version);
    ipc_put_u64(out, e->id);
    ipc_put_str(out, str_of(e->qid));
    ipc_put_u64(out, (uint64_t)e->arrival_us);
    ipc_put_u64(out, e->size);
    ipc_put_u32(out, e->flags);
    envelope_texts(e, texts);
    for (uint32_t i = 0; i < texts_of_version(version); i++)
        ipc_put_str(out, *texts[i]);
    ipc_put_u32(out, e->n_rcpts);
    for (uint32_t i = 0; i < e->n_rcpts; i++) {
        ipc_put_str(out, e->rcpts[i].addr);
        ipc_put_str(out, e->rcpts[i].orcpt);
        ipc_put_u32(out, e->rcpts[i].notify);
        if (version >= ENVELOPE_OWNERS)
            ipc_put_str(out, e->rcpts[i].owner);
        if (version < ENVELOPE_ALIASED)
            continue;
        ipc_put_str(out, e->rcpts[i].orig);
        ipc_put_u32(out, e->rcpts[i].expanded);
    }
}

static void get_rcpt(struct ipc_reader *r, uint32_t version, struct rcpt *out) {
    out->addr = ipc_get_str(r);
    out->orcpt = ipc_get_str(r);
    out->notify = ipc_get_u32(r);
    if (version >= ENVELOPE_OWNERS)
        out->owner = ipc_get_str(r);
    if (version < ENVELOPE_ALIASED)
        return;
    out->orig = ipc_get_str(r);
    out->expanded = ipc_get_u32(r) != 0;
}

struct envelope *envelope_decode(struct str in) {
    struct ipc_reader r = {.rest = in};
    struct envelope t = {0}, *e = NULL;
    struct str *texts[ENVELOPE_TEXTS];
    uint32_t version = ipc_get_u32(&r);
    if (version < ENVELOPE_VERSION || version > ENVELOPE_FILTERED)
        return NULL;
    t.id = ipc_get_u64(&r);
    struct str qid = ipc_get_str(&r);
    t.arrival_us = (int64_t)ipc_get_u64(&r);
    t.size = ipc_get_u64(&r);
    t.flags = ipc_get_u32(&r);
    envelope_texts(&t, texts);
    for (uint32_t i = 0; i < texts_of_version(version); i++)
        *texts[i] = ipc_get_str(&r);
    t.n_rcpts = ipc_get_u32(&r);
    if (r.bad || qid.n >= QID_MAX || memchr(qid.p, '\0', qid.n) != NULL ||
        t.n_rcpts > ENVELOPE_RCPTS_MAX || t.n_rcpts > r.rest.n / 12)
        return NULL;
    memcpy(t.qid, qid.p, qid.n);
    t.rcpts = mem_zalloc(t.n_rcpts * sizeof *t.rcpts);
    for (uint32_t i = 0; i < t.n_rcpts; i++)
        get_rcpt(&r, version, &t.rcpts[i]);
    if (ipc_done(&r))
        e = envelope_make(&t);
    free(t.rcpts);
    return e;
}

static bool has_causes(const struct progress *p) {
    uint32_t i = 0;
    while (i < p->n_errors && p->errors[i].cause == 0)
        i++;
    return i < p->n_errors;
}

void progress_encode(const struct progress *p, struct sbuf *out) {
    bool causes = has_causes(p);
    ipc_put_u32(out, causes ? PROGRESS_CAUSES : PROGRESS_VERSION);
    ipc_put_u32(out, p->attempts);
    ipc_put_u64(out, (uint64_t)p->next_us);
    ipc_put_u64(out, (uint64_t)p->last_us);
    ipc_put_u32(out, p->flags);
    ipc_put_str(out, str_make((const char *)p->done, p->n));
    ipc_put_u32(out, p->n_errors);
    for (uint32_t i = 0; i < p->n_errors; i++) {
        ipc_put_str(out, p->errors[i].dsn);
        ipc_put_str(out, p->errors[i].text);
        ipc_put_str(out, p->errors[i].mta);
        ipc_put_str(out, p->errors[i].reply);
        if (causes)
            ipc_put_u32(out, p->errors[i].cause);
    }
    for (uint32_t i = 0; p->n_errors > 0 && i < p->n; i++)
        ipc_put_u32(out, p->error_of[i]);
}

static void put_error(const struct rcpt_error *e, struct sbuf *out) {
    ipc_put_str(out, e->dsn);
    ipc_put_str(out, e->text);
    ipc_put_str(out, e->mta);
    ipc_put_str(out, e->reply);
    ipc_put_u32(out, e->cause);
}

void progress_encode_step(uint32_t n, const struct progress_step *v, size_t n_v, struct sbuf *out) {
    ipc_put_u32(out, PROGRESS_STEP);
    ipc_put_u32(out, n);
    ipc_put_u32(out, (uint32_t)n_v);
    for (size_t i = 0; i < n_v; i++) {
        ipc_put_u32(out, v[i].rcpt);
        ipc_put_u32(out, v[i].state);
        ipc_put_u32(out, v[i].error.dsn.n > 0);
        if (v[i].error.dsn.n > 0)
            put_error(&v[i].error, out);
    }
}

void progress_free(struct progress *p) {
    free(p->done);
    free(p->errors);
    free(p->error_of);
    *p = (struct progress){0};
}

/* The first version had one text for all recipients, and no status. */
static void get_reason(struct progress *p, struct ipc_reader *r) {
    struct str reason = ipc_get_str(r);
    if (reason.n == 0 || p->n == 0)
        return;
    p->n_errors = 1;
    p->errors = MEM_NEW(struct rcpt_error);
    p->errors[0] = (struct rcpt_error){.dsn = STR_LIT("4.0.0"), .text = reason};
    p->error_of = mem_zalloc(p->n * sizeof *p->error_of);
    for (uint32_t i = 0; i < p->n; i++)
        p->error_of[i] = 1;
}

static void get_errors(struct progress *p, struct ipc_reader *r, bool causes) {
    uint32_t n = ipc_get_u32(r);
    r->bad = r->bad || n > p->n || n > r->rest.n / 16; /* each has four lengths */
    if (r->bad || n == 0)
        return;
    p->n_errors = n;
    p->errors = mem_zalloc(n * sizeof *p->errors);
    p->error_of = mem_zalloc(p->n * sizeof *p->error_of);
    for (uint32_t i = 0; i < n; i++) {
        p->errors[i].dsn = ipc_get_str(r);
        p->errors[i].text = ipc_get_str(r);
        p->errors[i].mta = ipc_get_str(r);
        p->errors[i].reply = ipc_get_str(r);
        if (causes)
            p->errors[i].cause = ipc_get_u32(r);
    }
    for (uint32_t i = 0; i < p->n && !r->bad; i++) {
        p->error_of[i] = ipc_get_u32(r);
        r->bad = r->bad || p->error_of[i] > n;
    }
}

static bool is_state(uint32_t state) {
    return state <= RCPT_LISTED && state != 3;
}

static bool are_states(struct str done) {
    for (size_t i = 0; i < done.n; i++)
        if (!is_state((uint8_t)done.p[i]))
            return false;
    return true;
}

/* The error of a step becomes that of its recipient. */
static void get_step_error(struct progress *p, struct ipc_reader *r, uint32_t rcpt) {
    struct rcpt_error e = {.dsn = ipc_get_str(r)};
    e.text = ipc_get_str(r);
    e.mta = ipc_get_str(r);
    e.reply = ipc_get_str(r);
    e.cause = ipc_get_u32(r);
    if (r->bad)
        return;
    if (p->error_of == NULL)
        p->error_of = mem_zalloc(p->n * sizeof *p->error_of);
    if (p->n_errors >= p->cap_errors) {
        p->cap_errors = p->n_errors * 2 + 4;
        p->errors = mem_realloc(p->errors, p->cap_errors * sizeof *p->errors);
    }
    p->errors[p->n_errors++] = e;
    p->error_of[rcpt] = p->n_errors;
}

static void get_step(struct progress *p, struct ipc_reader *r) {
    uint32_t version = ipc_get_u32(r), n = ipc_get_u32(r), n_v = ipc_get_u32(r);
    r->bad = r->bad || version != PROGRESS_STEP || n != p->n;
    for (uint32_t i = 0; i < n_v && !r->bad; i++) {
        uint32_t rcpt = ipc_get_u32(r), state = ipc_get_u32(r), has_error = ipc_get_u32(r);
        r->bad = r->bad || rcpt >= n || !is_state(state) || has_error > 1;
        if (r->bad)
            return;
        p->done[rcpt] = (uint8_t)state;
        if (has_error != 0)
            get_step_error(p, r, rcpt);
    }
}

/* The record that the steps followed is lost: what they say is all that is known. */
static void get_no_base(struct progress *p, struct ipc_reader r) {
    ipc_get_u32(&r);
    p->n = ipc_get_u32(&r);
    if (r.bad || p->n > ENVELOPE_RCPTS_MAX)
        p->n = 0;
    p->done = mem_zalloc(p->n);
}

static void get_base(struct progress *p, struct ipc_reader *r) {
    uint32_t version = ipc_get_u32(r);
    r->bad = r->bad || version < PROGRESS_ONE_REASON || version > PROGRESS_CAUSES;
    p->attempts = ipc_get_u32(r);
    p->next_us = (int64_t)ipc_get_u64(r);
    p->last_us = (int64_t)ipc_get_u64(r);
    p->flags = ipc_get_u32(r);
    struct str done = ipc_get_str(r);
    r->bad = r->bad || done.n > ENVELOPE_RCPTS_MAX || !are_states(done);
    if (r->bad)
        return;
    p->n = (uint32_t)done.n;
    p->done = (uint8_t *)str_dup(done);
    if (version == PROGRESS_ONE_REASON)
        get_reason(p, r);
    else
        get_errors(p, r, version == PROGRESS_CAUSES);
}

bool progress_decode(struct progress *p, struct str in) {
    struct ipc_reader r = {.rest = in}, first = r;
    *p = (struct progress){0};
    if (ipc_get_u32(&first) == PROGRESS_STEP)
        get_no_base(p, r);
    else
        get_base(p, &r);
    while (!r.bad && r.rest.n > 0)
        get_step(p, &r);
    if (ipc_done(&r))
        return true;
    progress_free(p);
    return false;
}
