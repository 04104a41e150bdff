/*
 * schedule/forward.c - messages that are made of aliases; see forward.h
 *
 * An expansion is the message's from forward_keep until its own message is begun.  Then there is an
 * operation, which frees itself when the spool has answered.  While an operation is with the
 * spool, or asks what its addresses stand for by virtual(5), the message has m->finishing and
 * stays.  Large content is copied to its file piece by piece, each piece when the one before is
 * written.
 */
#include "schedule/forward.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clean/virtual.h"
#include "mail/address.h"
#include "mail/header.h"
#include "report/logline.h"
#include "route/keys.h"
#include "schedule/rcpt.h"
#include "util/clock.h"
#include "util/htab.h"
#include "util/log.h"
#include "util/mem.h"

#define PIECE 65536U
/* How much of the content is looked at for its header section. */
#define HEAD_MAX 262144U
/* A line of the header section that is made here may be longer than RFC 5321 allows. */
#define LONG_ADDRESS 900U

struct expansion {
    struct expansion *next;
    uint32_t rcpt;
    struct alias_graph *graph; /* owned */
};

struct forward {
    struct spool_op op;
    struct task back;
    struct sched *s;
    uint64_t about;       /* the message that it is made of */
    struct envelope *env; /* of the new message */
    bool splits;          /* it takes recipients of the message over, those that are RCPT_FORWARD */
    bool is_list;         /* else: the recipient has an owner of its own */
    uint32_t rcpt;        /* likewise: the recipient that it is made for */
    struct body *from;
    uint64_t copied;   /* bytes of from */
    uint64_t file_at;  /* bytes that are in the file of the new message */
    uint32_t file_crc; /* of them */
    bool in_file;
    struct sbuf content; /* what is not in the file */
    void (*then)(struct msg *m);
};

static void expansion_free(struct expansion *x) {
    alias_graph_free(x->graph);
    free(x);
}

void forward_keep(struct msg *m, uint32_t rcpt, struct alias_result *r) {
    struct expansion *x = MEM_NEW(struct expansion), **last = &m->expansions;
    *x = (struct expansion){.rcpt = rcpt, .graph = r->graph};
    r->graph = NULL;
    while (*last != NULL)
        last = &(*last)->next;
    *last = x;
    msg_set_state(m, rcpt, RCPT_FORWARD);
}

static struct expansion *expansion_take(struct msg *m) {
    struct expansion *x = m->expansions;
    if (x != NULL)
        m->expansions = x->next;
    return x;
}

void forward_forget(struct msg *m) {
    for (struct expansion *x; (x = expansion_take(m)) != NULL;) {
        msg_set_state(m, x->rcpt, RCPT_WAITS);
        expansion_free(x);
    }
}

/* The recipient's line in the log, and its count. */
static void forward_log(struct msg *m, uint32_t rcpt, const struct mailerr *e) {
    const struct service *svc = config_transport(m->s->cfg, STR_LIT("local"));
    int64_t now = clock_wall_us();
    struct logline_times t = {m->env->arrival_us, m->active_us, now, 0, now, NULL};
    logline_delivery(svc == NULL ? NULL : svc->log_name, "local", m->env->qid, &m->env->rcpts[rcpt],
                     "local", 0, &t, e);
    tally_result(&m->s->tally, NULL, m->env->sender, e);
}

static void forward_fail(struct msg *m, uint32_t rcpt, enum mail_status status,
                         enum mail_cause cause, const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));

/* The recipient's attempt has ended so. */
static void forward_fail(struct msg *m, uint32_t rcpt, enum mail_status status,
                         enum mail_cause cause, const char *dsn, const char *fmt, ...) {
    struct mailerr e = {0};
    struct sbuf text = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    mailerr_set(&e, status, dsn, "%s", text.p);
    mailerr_blame(&e, PHASE_ROUTE, status == MAIL_BOUNCED ? BLAME_RECIPIENT : BLAME_OURSELVES);
    e.cause = cause;
    if (m->s->cfg->p.soft_bounce && status == MAIL_BOUNCED)
        mailerr_soften(&e);
    forward_log(m, rcpt, &e);
    msg_set_state(m, rcpt, RCPT_WAITS);
    msg_result(m, rcpt, &e, false);
    mailerr_free(&e);
    sbuf_free(&text);
}

void forward_defer(struct msg *m, uint32_t rcpt, enum mail_cause cause, const char *dsn,
                   const char *why) {
    forward_fail(m, rcpt, MAIL_DEFERRED, cause, dsn, "%s", why);
}

/* -- the new message -- */

/* What the header section says that the message was delivered to. */
struct delivered {
    struct htab by_addr; /* the texts, in lower case */
    char **v;            /* the same, owned */
    size_t n;
};

static void delivered_add(struct delivered *d, struct str addr) {
    d->v = mem_realloc(d->v, (d->n + 1) * sizeof *d->v);
    char *text = d->v[d->n++] = str_dup(addr);
    str_lower(text, addr.n);
    htab_put(&d->by_addr, str_of(text), text);
}

static void delivered_read(struct delivered *d, struct str content) {
    while (content.n > 0) {
        ptrdiff_t end = str_chr(content, '\n');
        struct str line = str_make(content.p, end < 0 ? content.n : (size_t)end);
        content = str_from(content, end < 0 ? content.n : (size_t)end + 1);
        if (str_trim(line).n == 0)
            return;
        if (str_ieq_c(header_field_name(line), "Delivered-To"))
            delivered_add(d, str_trim(str_from(line, (size_t)str_chr(line, ':') + 1)));
    }
}

static bool was_delivered_to(void *arg, struct str addr) {
    const struct delivered *d = arg;
    if (d->n == 0)
        return false;
    char *text = str_dup(addr);
    str_lower(text, addr.n);
    bool was = htab_get(&d->by_addr, str_of(text)) != NULL;
    free(text);
    return was;
}

static void delivered_free(struct delivered *d) {
    for (size_t i = 0; i < d->n; i++)
        free(d->v[i]);
    free(d->v);
    htab_free(&d->by_addr);
}

/* Would what is made of it be refused if it came in?  Delivered-To: does not end each loop: it may
 * not be asked for, and the extensions of an address may grow. */
static bool has_too_many_hops(const struct msg *m, struct str content) {
    struct header_scan h = {0};
    header_scan(&h, content, false);
    header_scan_free(&h);
    return h.received + 1 >= (unsigned)m->s->cfg->p.hopcount_limit;
}

/* ORCPT of what goes on: that of the recipient, but the addresses of a list have their own. */
static struct str forward_orcpt(const struct rcpt *r, struct sbuf *out) {
    struct str first = r->orig.n > 0 ? r->orig : r->addr;
    if (r->orcpt.n > 0)
        return r->orcpt;
    if (!str_is_ascii(first))
        return STR_NONE;
    sbuf_add_c(out, "rfc822;");
    addr_external(out, first);
    return sbuf_str(out);
}

/* The report of success is made here (RFC 3461 section 5.2.7). */
static uint32_t forward_notify(uint32_t notify) {
    uint32_t rest = notify & ~(uint32_t)NOTIFY_SUCCESS;
    return notify != 0 && rest == 0 ? NOTIFY_NEVER : rest;
}

/* A new message with what the old one says of all its recipients. */
static struct envelope forward_tmpl(const struct msg *m) {
    const struct envelope *old = m->env;
    struct envelope t = {.arrival_us = clock_wall_us(),
                         .flags = old->flags & ~(uint32_t)ENV_HOLD,
                         .sender = old->sender,
                         .envid = old->envid,
                         .client = old->client,
                         .sasl_user = old->sasl_user};
    qid_next(m->s->cfg->p.enable_long_queue_ids, &t.id, t.qid);
    return t;
}

static void forward_needs_utf8(const struct msg *m, struct str addr, struct envelope *t) {
    if (m->s->cfg->p.smtputf8_enable && !str_is_ascii(addr))
        t->flags |= ENV_SMTPUTF8;
}

static void add_group(const struct msg *m, const struct alias_group *group, struct rcpt like,
                      struct envelope *t) {
    for (uint32_t i = 0; i < group->n; i++) {
        like.addr = str_of(group->addrs[i]);
        forward_needs_utf8(m, like.addr, t);
        t->rcpts[t->n_rcpts++] = like;
    }
}

/* All addresses that the recipient stands for.  The first group's sender is that of the message;
 * the others are split off when it is durable. */
static struct envelope *forward_envelope(const struct msg *m, uint32_t rcpt,
                                         const struct alias_groups *groups) {
    const struct rcpt *r = &m->env->rcpts[rcpt];
    struct sbuf orcpt = {0};
    struct envelope t = forward_tmpl(m);
    struct str given = forward_orcpt(r, &orcpt);
    t.rcpts = mem_alloc(groups->addrs * sizeof *t.rcpts);
    if (groups->v[0].owner != NULL)
        t.sender = str_of(groups->v[0].owner);
    for (uint32_t i = 0; i < groups->n; i++) {
        const char *owner = groups->v[i].owner;
        struct rcpt like = {.orcpt = owner == NULL ? given : STR_NONE,
                            .orig = owner != NULL   ? STR_NONE
                                    : r->orig.n > 0 ? r->orig
                                                    : r->addr,
                            .notify = forward_notify(r->notify),
                            .owner = i == 0 ? STR_NONE : str_of(owner)};
        add_group(m, &groups->v[i], like, &t);
    }
    if (r->addr.n > LONG_ADDRESS)
        t.flags |= ENV_LONG_LINES;
    struct envelope *e = envelope_make(&t);
    free(t.rcpts);
    sbuf_free(&orcpt);
    return e;
}

/* What is put before the content. */
static void forward_head(const struct msg *m, const struct forward *f, struct sbuf *out) {
    const struct params *p = &m->s->cfg->p;
    sbuf_printf(out, "Received: by %s (%s)\r\n\tid %s; ", p->myhostname, p->mail_name, f->env->qid);
    clock_add_rfc5322(out, f->env->arrival_us);
    sbuf_add_c(out, "\r\n");
    if (f->splits || !keys_has_word(p->prepend_delivered_header, "forward"))
        return;
    sbuf_add_c(out, "Delivered-To: ");
    size_t at = out->n;
    sbuf_add_safe(out, m->env->rcpts[f->rcpt].addr);
    str_lower(out->p + at, out->n - at);
    sbuf_add_c(out, "\r\n");
}

/* Where the content goes on behind its first field, the Received: field that a message of aliases
 * begins with: what is split off has its own. */
static size_t head_first_field(struct str head) {
    size_t at = 0;
    if (!str_istarts(head, "Received:"))
        return 0;
    do {
        ptrdiff_t end = str_chr(str_from(head, at), '\n');
        if (end < 0)
            return 0;
        at += (size_t)end + 1;
    } while (at < head.n && (head.p[at] == ' ' || head.p[at] == '\t'));
    return at;
}

static void forward_log_id(const struct forward *f, struct str head) {
    struct header_scan h = {0};
    header_scan(&h, head, false);
    log_info("cleanup", "%s: message-id=%s", f->env->qid,
             h.message_id.n == 0 ? "<>" : h.message_id.p);
    header_scan_free(&h);
}

static void forward_submit(struct forward *f, enum spool_kind kind);

static void forward_free(struct forward *f) {
    envelope_unref(f->env);
    body_unref(f->from);
    sbuf_free(&f->content);
    sbuf_free(&f->op.chunk);
    sbuf_free(&f->op.meta);
    sbuf_free(&f->op.settled);
    free(f);
}

/* What was to be split off waits for the next round, and so do all that are to be. */
static void split_fail(struct msg *m, enum mail_cause cause, const char *why) {
    m->no_split = true;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++)
        if (m->rcpts[i].state == RCPT_FORWARD)
            forward_fail(m, i, MAIL_DEFERRED, cause, "4.3.0", "%s", why);
}

/* It is given up: rc says why; -ENOENT that what it stands for by virtual(5) could not be found
 * out.
 */
static void forward_give_up(struct forward *f, struct msg *m, int rc) {
    void (*then)(struct msg * m) = f->then;
    if (m != NULL)
        m->finishing = false;
    if (m != NULL && !m->deleted) {
        struct sbuf why = {0};
        sbuf_printf(&why, "cannot queue what the alias stands for: %s",
                    rc == -ENOENT ? "its virtual aliases are not known" : strerror(-rc));
        if (f->splits)
            split_fail(m, CAUSE_QUEUE, why.p);
        else
            forward_defer(m, f->rcpt, CAUSE_QUEUE, "4.3.0", why.p);
        forward_forget(m);
        sbuf_free(&why);
    }
    if (f->in_file) {
        forward_submit(f, SPOOL_BODY_DROP); /* frees f */
    } else {
        forward_free(f);
    }
    if (m != NULL)
        then(m);
}

static void forward_took(struct msg *m, const struct forward *f) {
    struct mailerr e = {0};
    mailerr_set(&e, MAIL_SENT, "2.0.0", "forwarded as %s", f->env->qid);
    forward_log(m, f->rcpt, &e);
    msg_set_state(m, f->rcpt, m->forwarded_as);
    mailerr_free(&e);
}

static void split_took(struct msg *m, const struct forward *f) {
    log_info("local", "%s: for a list that is named: %s", m->env->qid, f->env->qid);
    for (uint32_t i = 0; i < m->env->n_rcpts; i++)
        if (m->rcpts[i].state == RCPT_FORWARD)
            msg_set_state(m, i, RCPT_DONE);
}

/* The new message is durable, and with it that the recipients that it was made for are done. */
static void forward_made(struct forward *f, struct msg *m) {
    void (*then)(struct msg * m) = f->then;
    f->s->add(f->s, envelope_ref(f->env), f->op.body);
    if (m != NULL) {
        m->finishing = false;
        if (f->splits)
            split_took(m, f);
        else
            forward_took(m, f);
        m->ended = f->op.settled.n == 0 && !m->deleted;
    }
    forward_free(f);
    if (m != NULL)
        then(m);
}

/* Takes the next piece of the content; false: it cannot be read. */
static bool forward_copy(struct forward *f, size_t max) {
    struct sbuf tmp = {0};
    struct str piece = body_view(f->from, f->copied, max, &tmp);
    bool ok = piece.p != NULL;
    if (ok)
        sbuf_add_str(&f->content, piece);
    f->copied += piece.n;
    sbuf_free(&tmp);
    return ok;
}

/* The state that the recipient has when the record is durable: a list has taken its mail, any other
 * alias has passed it on. */
static uint8_t state_when_made(const struct msg *m, const struct forward *f) {
    if (m->env->sender.n == 0 || (m->env->rcpts[f->rcpt].notify & NOTIFY_SUCCESS) == 0)
        return RCPT_DONE;
    return f->is_list ? RCPT_LISTED : RCPT_EXPANDED;
}

/* What the record of the new message says of the old one. */
static void forward_settles(struct forward *f, struct msg *m) {
    struct mailerr e = {0};
    if (f->splits) {
        if (m->left + m->reporting > f->env->n_rcpts)
            msg_encode(m, SETTLE_SPLIT, &f->op.settled);
        return;
    }
    m->forwarding = f->rcpt;
    m->forwarded_as = state_when_made(m, f);
    mailerr_set(&e, MAIL_SENT, "2.0.0", "delivery via local: alias expanded");
    msg_set_reason(m, f->rcpt, &e);
    mailerr_free(&e);
    if (m->left + m->reporting > 1 || m->forwarded_as != RCPT_DONE)
        msg_encode(m, SETTLE_FORWARDED, &f->op.settled);
}

static void forward_commit(struct forward *f, struct msg *m) {
    f->env->size = f->in_file ? f->file_at : f->content.n;
    struct body *body =
        f->in_file ? body_from_file(f->file_at, f->file_crc) : body_from_buf(&f->content);
    f->in_file = false; /* the file is the message's now */
    f->op = (struct spool_op){.id = f->env->id, .body = body, .settles = m->env->id};
    envelope_encode(f->env, &f->op.meta);
    forward_settles(f, m);
    forward_submit(f, SPOOL_NEW);
}

/* The next piece for the file, or the whole message. */
static void forward_go_on(struct forward *f, struct msg *m) {
    size_t max = f->in_file ? PIECE : (size_t)(f->from->size - f->copied);
    if (f->copied < f->from->size && !forward_copy(f, max)) {
        forward_give_up(f, m, -EIO);
        return;
    }
    if (f->in_file && f->content.n > 0) {
        f->op = (struct spool_op){
            .id = f->env->id, .off = f->file_at, .crc = f->file_crc, .chunk = f->content};
        f->content = (struct sbuf){0};
        f->file_at += f->op.chunk.n;
        forward_submit(f, SPOOL_BODY_WRITE);
        return;
    }
    forward_commit(f, m);
}

static void forward_back(struct task *t) {
    struct forward *f = DL_OWNER(t, struct forward, back);
    struct msg *m = itab_get(&f->s->msgs, f->about);
    int rc = f->op.rc;
    if (f->op.kind == SPOOL_BODY_DROP) {
        forward_free(f);
    } else if (f->op.kind == SPOOL_NEW && rc == 0) {
        forward_made(f, m);
    } else if (f->op.kind == SPOOL_NEW) {
        body_unref(f->op.body);
        forward_give_up(f, m, rc);
    } else if (rc < 0 || m == NULL || m->deleted) {
        forward_give_up(f, m, rc < 0 ? rc : -ECANCELED);
    } else {
        f->file_crc = f->op.crc;
        sbuf_free(&f->op.chunk);
        forward_go_on(f, m);
    }
}

static void forward_done(struct spool_op *op) {
    struct forward *f = DL_OWNER(op, struct forward, op);
    f->back.run = forward_back;
    loop_post(f->s->loop, &f->back);
}

static void forward_submit(struct forward *f, enum spool_kind kind) {
    f->op.kind = kind;
    f->op.id = f->env->id;
    f->op.done = forward_done;
    spool_submit(f->s->spool, &f->op);
}

/* env is the new message's, and is taken over. */
static struct forward *forward_new(struct msg *m, struct envelope *env,
                                   void (*then)(struct msg *m)) {
    struct forward *f = MEM_NEW(struct forward);
    f->s = m->s;
    f->about = m->env->id;
    f->env = env;
    f->from = body_ref(m->body);
    f->then = then;
    return f;
}

static void forward_begin(struct msg *m, struct forward *f, struct str head) {
    forward_head(m, f, &f->content);
    f->in_file = f->from->size + f->content.n >= (uint64_t)m->s->cfg->p.spool_body_file_size;
    forward_log_id(f, head);
    m->finishing = true;
}

/* As in Postfix, whose local(8) gives what it forwards to cleanup(8): the addresses of an alias may
 * stand for others by virtual(5). */
static void forward_to_aliases(void *arg, const struct virtual_result *aliases) {
    struct forward *f = arg;
    struct msg *m = itab_get(&f->s->msgs, f->about);
    bool goes = m != NULL && !m->deleted && aliases->rc == VIRTUAL_OK;
    f->in_file = f->in_file && goes; /* there is no file yet */
    if (!goes) {
        forward_give_up(f, m, m == NULL || m->deleted ? -ECANCELED : -ENOENT);
        return;
    }
    struct envelope t = *f->env, *old = f->env;
    t.rcpts = aliases->rcpts;
    t.n_rcpts = aliases->n;
    for (uint32_t i = 0; i < t.n_rcpts; i++)
        forward_needs_utf8(m, t.rcpts[i].addr, &t);
    f->env = envelope_make(&t);
    envelope_unref(old);
    forward_go_on(f, m);
}

/* The message of an alias. */
static void forward_expansion(struct msg *m, const struct expansion *x, struct delivered *d,
                              struct str head, void (*then)(struct msg *m)) {
    struct alias_groups groups;
    alias_walk(x->graph, was_delivered_to, d, &groups);
    struct forward *f = forward_new(m, forward_envelope(m, x->rcpt, &groups), then);
    f->rcpt = x->rcpt;
    f->is_list = x->graph->v[0]->owner != NULL;
    alias_groups_free(&groups);
    forward_begin(m, f, head);
    if (virtual_is_idle(m->s->cfg, NULL))
        forward_go_on(f, m);
    else
        virtual_expand(m->s->cfg, m->s->lookup, f->env->qid, f->env->rcpts, f->env->n_rcpts, NULL,
                       forward_to_aliases, f);
}

/* True: a message is on its way.  False: the recipient has its result. */
static bool forward_one(struct msg *m, const struct expansion *x, struct str head,
                        void (*then)(struct msg *m)) {
    struct str addr = m->env->rcpts[x->rcpt].addr;
    struct delivered d = {0};
    delivered_read(&d, head);
    bool loops = was_delivered_to(&d, addr), hops = has_too_many_hops(m, head);
    bool goes = head.p != NULL && !loops && !hops;
    if (goes)
        forward_expansion(m, x, &d, head, then);
    else if (loops)
        forward_fail(m, x->rcpt, MAIL_BOUNCED, CAUSE_FORWARD_LOOP, "5.4.6",
                     "mail forwarding loop for %.*s", STR_FMT(addr));
    else if (hops)
        forward_fail(m, x->rcpt, MAIL_BOUNCED, CAUSE_FORWARD_LOOP, "5.4.0", "too many hops");
    else
        forward_fail(m, x->rcpt, MAIL_DEFERRED, CAUSE_CONTENT, "4.3.0",
                     "cannot read the message content");
    delivered_free(&d);
    return goes;
}

bool forward_next(struct msg *m, void (*then)(struct msg *m)) {
    struct sbuf tmp = {0};
    struct str head = m->body == NULL ? STR_NONE : body_view(m->body, 0, HEAD_MAX, &tmp);
    struct expansion *x = NULL;
    bool goes = false;
    while (!m->finishing && !goes && (x = expansion_take(m)) != NULL) {
        goes = forward_one(m, x, head, then);
        expansion_free(x);
    }
    sbuf_free(&tmp);
    return goes;
}

/* -- what is split off -- */

bool forward_is_split_off(const struct msg *m, uint32_t rcpt) {
    return m->env->rcpts[rcpt].owner.n > 0;
}

/* Does the recipient wait for being split off? */
static bool waits_for_split(const struct msg *m, uint32_t rcpt) {
    return forward_is_split_off(m, rcpt) && m->rcpts[rcpt].state == RCPT_WAITS;
}

bool forward_has_split(const struct msg *m) {
    uint32_t i = 0;
    while (i < m->env->n_rcpts && !waits_for_split(m, i))
        i++;
    return i < m->env->n_rcpts && !m->no_split;
}

/* The first of those recipients, and all that are to have the same sender: RCPT_FORWARD. */
static struct envelope *split_envelope(struct msg *m) {
    struct envelope t = forward_tmpl(m);
    t.rcpts = mem_alloc(m->env->n_rcpts * sizeof *t.rcpts);
    t.sender = STR_NONE;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        struct rcpt r = m->env->rcpts[i];
        if (!waits_for_split(m, i) || (t.n_rcpts > 0 && !str_eq(r.owner, t.sender)))
            continue;
        t.sender = r.owner;
        r.owner = STR_NONE;
        t.rcpts[t.n_rcpts++] = r;
        msg_set_state(m, i, RCPT_FORWARD);
    }
    struct envelope *e = envelope_make(&t);
    free(t.rcpts);
    return e;
}

bool forward_split(struct msg *m, void (*then)(struct msg *m)) {
    struct sbuf tmp = {0};
    struct envelope *env = split_envelope(m);
    struct str head = m->body == NULL ? STR_NONE : body_view(m->body, 0, HEAD_MAX, &tmp);
    if (head.p == NULL) {
        envelope_unref(env);
        split_fail(m, CAUSE_CONTENT, "cannot read the message content");
    } else {
        struct forward *f = forward_new(m, env, then);
        f->splits = true;
        f->copied = head_first_field(head);
        forward_begin(m, f, head);
        forward_go_on(f, m);
    }
    sbuf_free(&tmp);
    return head.p != NULL;
}
