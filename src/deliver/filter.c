/*
 * deliver/filter.c - tables that change what hosts and name servers say, and what becomes of mail
 *
 * smtp_reply_filter gets each line of a reply before it is parsed, smtp_dns_reply_filter each
 * record of an answer, smtp_delivery_status_filter each recipient's result before it is logged
 * (postconf(5)).  All three ask the lookup process, one line after the other: the session's loop
 * goes on meanwhile.  A table that cannot be asked never lets something pass as it is that would
 * end the mail: it waits.  One thing passes: that a host has taken the content.  That is told
 * before smtp_delivery_status_filter is asked, which can change its words only.
 *
 * The session's loop only.  The line and the names that are being asked for belong to the session
 * until filter_cancel; a result that is asked for belongs to struct result_filter, which frees
 * itself with the last answer: the attempt has not gone back until then, so session and struct
 * deliver are there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/session.h"
#include "report/logline.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

static struct maps_key filter_key(struct str line) {
    return (struct maps_key){line, false};
}

/* -- lines of replies -- */

bool filter_has_replies(const struct dsess *s) {
    return s->p->smtp_reply_filter[0] != '\0';
}

/* The line that goes to the parser, with its end. */
static void filter_take_line(struct dsess *s, struct str given) {
    if (s->watch == NULL)
        log_as(s->svc->log_name, session_program(s),
               "%s: replacing server reply \"%.*s\" with \"%.*s\"", s->relay,
               STR_FMT(sbuf_str(&s->filter_line)), STR_FMT(given));
    sbuf_reset(&s->filter_line);
    sbuf_add_str(&s->filter_line, given);
}

/* What has come by now came before anything that the line leads to is said. */
static void filter_note_input(struct dsess *s) {
    if (s->input_more || !conn_fetch(s->conn))
        return;
    s->input_more = true;
    s->input_gone = s->out_total - conn_pending(s->conn);
}

static void filter_on_line(void *arg, const struct maps_answer *a) {
    struct dsess *s = arg;
    s->filter_tag = 0;
    filter_note_input(s);
    conn_resume(s->conn);
    if (a->rc == MAP_FOUND)
        filter_take_line(s, sbuf_str(&a->value));
    sbuf_add_ch(&s->filter_line, '\n');
    s->filtered(s, a->rc != MAP_ERROR);
}

/* A line that repeats what was sent at login is in no question, for a question may be logged. */
static uint32_t filter_ask_line(struct dsess *s) {
    struct str line = sbuf_str(&s->filter_line);
    struct maps_key key = filter_key(withhold_matches(&s->sent, line) ? STR_LIT("") : line);
    return lookup_maps(s->d->lookup, "smtp", s->p->smtp_reply_filter, VALUES_JOINED, &key, 1,
                       filter_on_line, s);
}

size_t filter_reply(struct dsess *s, struct str data) {
    ptrdiff_t nl = str_chr(data, '\n');
    if (nl < 0 && data.n <= REPLY_LINE_MAX)
        return 0;
    struct str line = str_make(data.p, nl < 0 ? data.n : (size_t)nl);
    sbuf_reset(&s->filter_line);
    sbuf_add_str(&s->filter_line, smtp_reply_chop(line));
    conn_pause(s->conn);
    s->filter_tag = filter_ask_line(s);
    return nl < 0 ? data.n : (size_t)nl + 1;
}

/* -- records of the DNS -- */

/* An answer of the DNS; the table is asked for its records one after the other, addresses first,
 * then exchangers. */
struct name_filter {
    struct dsess *s;
    enum resolve_type type;
    char *name;    /* that was asked for; owned */
    resolve_fn fn; /* gets what is left, with s */
    struct resolve_answer a;
    size_t at;     /* the record that is asked for */
    size_t before; /* records that were there */
};

static void name_filter_free(struct name_filter *f) {
    if (f == NULL)
        return;
    for (size_t i = 0; i < f->a.n_mx; i++)
        free(f->a.mx[i].name);
    free(f->a.mx);
    free(f->a.addrs);
    free(f->a.from[0].owner);
    free(f->a.from[1].owner);
    free(f->name);
    free(f);
}

static void name_filter_give(struct name_filter *f) {
    struct dsess *s = f->s;
    s->names_asked = NULL;
    f->fn(s, &f->a);
    name_filter_free(f);
}

static size_t name_filter_left(const struct name_filter *f) {
    return f->type == RESOLVE_MX ? f->a.n_mx : f->a.n_addrs;
}

static void name_filter_text(const struct name_filter *f, struct sbuf *out) {
    if (f->type == RESOLVE_MX) {
        sbuf_printf(out, "%s. %d IN MX %u %s.", f->a.from[0].owner, f->a.from[0].ttl,
                    f->a.mx[f->at].pref, f->a.mx[f->at].name);
        return;
    }
    const struct netaddr *addr = &f->a.addrs[f->at];
    bool v4 = addr->u.sa.sa_family == AF_INET;
    const struct resolve_from *from = &f->a.from[v4 ? 0 : 1];
    char ip[INET6_ADDRSTRLEN];
    sbuf_printf(out, "%s. %d IN %s %s", from->owner == NULL ? f->name : from->owner, from->ttl,
                v4 ? "A" : "AAAA", netaddr_text(addr, ip));
}

static void name_filter_drop(struct name_filter *f) {
    if (f->type == RESOLVE_MX) {
        free(f->a.mx[f->at].name);
        memmove(f->a.mx + f->at, f->a.mx + f->at + 1, (--f->a.n_mx - f->at) * sizeof *f->a.mx);
    } else {
        memmove(f->a.addrs + f->at, f->a.addrs + f->at + 1,
                (--f->a.n_addrs - f->at) * sizeof *f->a.addrs);
    }
}

static void name_filter_next(struct name_filter *f);

static void name_filter_on_record(void *arg, const struct maps_answer *a) {
    struct name_filter *f = arg;
    struct str action = str_trim(sbuf_str(&a->value));
    f->s->filter_tag = 0;
    if (a->rc == MAP_FOUND && str_ieq_c(action, "IGNORE")) {
        name_filter_drop(f);
    } else if (a->rc == MAP_NOT_FOUND) {
        f->at++;
    } else {
        if (a->rc == MAP_FOUND)
            log_warn("smtp", "smtp_dns_reply_filter: unknown DNS filter action: \"%.*s\"",
                     STR_FMT(action));
        f->a.rc = RESOLVE_UNFILTERED;
        f->at = name_filter_left(f);
    }
    name_filter_next(f);
}

/* Asks for the next record, or gives what is left. */
static void name_filter_next(struct name_filter *f) {
    struct dsess *s = f->s;
    struct sbuf text = {0};
    if (f->at >= name_filter_left(f)) {
        if (f->a.rc == RESOLVE_OK && f->before > 0 && name_filter_left(f) == 0)
            f->a.rc = RESOLVE_ALL_DROPPED;
        name_filter_give(f);
        return;
    }
    name_filter_text(f, &text);
    struct maps_key key = filter_key(sbuf_str(&text));
    s->filter_tag = lookup_maps(s->d->lookup, "smtp", s->p->smtp_dns_reply_filter, VALUES_JOINED,
                                &key, 1, name_filter_on_record, f);
    sbuf_free(&text);
}

static void name_filter_copy(struct name_filter *f, const struct resolve_answer *a) {
    f->a = *a;
    f->a.name = NULL;
    f->a.addrs = NULL;
    f->a.mx = NULL;
    for (int i = 0; i < 2; i++)
        f->a.from[i].owner = a->from[i].owner == NULL ? NULL : mem_strdup(a->from[i].owner);
    if (a->n_addrs > 0) {
        f->a.addrs = mem_alloc(a->n_addrs * sizeof *a->addrs);
        memcpy(f->a.addrs, a->addrs, a->n_addrs * sizeof *a->addrs);
    }
    if (a->n_mx > 0)
        f->a.mx = mem_alloc(a->n_mx * sizeof *a->mx);
    for (size_t i = 0; i < a->n_mx; i++)
        f->a.mx[i] = (struct resolve_mx){mem_strdup(a->mx[i].name), a->mx[i].pref};
    f->before = name_filter_left(f);
}

static void name_filter_on_answer(void *arg, const struct resolve_answer *a) {
    struct name_filter *f = arg;
    f->s->query = NULL;
    name_filter_copy(f, a);
    if (a->rc != RESOLVE_OK || a->from_file)
        name_filter_give(f);
    else
        name_filter_next(f);
}

void filter_ask_names(struct dsess *s, enum resolve_type type, const char *name, resolve_fn fn) {
    struct resolver *r = s->configured ? s->d->chosen : s->d->resolver;
    if (type == RESOLVE_ADDR)
        type = resolver_address_type(s->p);
    if (s->p->smtp_dns_reply_filter[0] == '\0') {
        s->query = resolver_ask(r, type, name, fn, s);
        return;
    }
    struct name_filter *f = MEM_NEW(struct name_filter);
    *f = (struct name_filter){.s = s, .type = type, .name = mem_strdup(name), .fn = fn};
    s->names_asked = f;
    s->query = resolver_ask(r, type, name, name_filter_on_answer, f);
}

void filter_cancel(struct dsess *s) {
    lookup_cancel(s->d->lookup, s->filter_tag);
    s->filter_tag = 0;
    name_filter_free(s->names_asked);
    s->names_asked = NULL;
}

/* -- results -- */

struct result_filter {
    struct dl link; /* in deliver.results */
    struct deliver *d;
    void *slot;
    struct attempt *a;
    unsigned uses;    /* of the connection, for the log */
    uint32_t at;      /* index of the recipient; the table is asked for its result */
    uint32_t tag;     /* of the question */
    bool failed;      /* the table could not be asked: it is not asked for the others */
    struct sbuf line; /* its status and text */
};

/* A line for each recipient that has a result; then the attempt is the scheduler's. */
static void results_end(struct deliver *d, void *slot, struct attempt *a, unsigned uses) {
    bool tells_tls = a->transport->p.smtp_log_tls_feature_status;
    struct logline_times times = {a->env->arrival_us, a->active_us,    a->begin_us,
                                  a->conn_us,         clock_wall_us(), NULL};
    const char *service = a->transport->kind == SERVICE_LMTP ? "lmtp" : "smtp";
    for (uint32_t i = 0; i < a->n; i++) {
        if (!a->tried[i])
            continue;
        if (a->cfg->p.soft_bounce)
            mailerr_soften(&a->res[i]);
        if (a->res[i].status == MAIL_DEFERRED)
            a->res[i].dsn[0] = '4'; /* soft_bounce showed the filter what the host said */
        times.tls = tells_tls ? attempt_tls(a, i) : NULL;
        logline_delivery(a->transport->log_name, service, a->env->qid, &a->env->rcpts[a->idx[i]],
                         attempt_host(a, i), uses, &times, &a->res[i]);
    }
    d->ops->result(slot, a);
}

/* What a table makes of a result: "status text" of the same kind, success or not.  Without a text
 * that of the result stays. */
static void result_apply(struct mailerr *e, struct str value) {
    size_t n = dsn_length(value);
    struct str text = str_trim(str_from(value, n));
    bool of_kind = n > 0 && strchr("245", value.p[0]) != NULL &&
                   (value.p[0] == '2') == (e->status == MAIL_SENT);
    if (of_kind)
        mailerr_restate(e, str_make(value.p, n), text.n == 0 ? str_of(e->text) : text);
    else
        log_warn("smtp", "smtp_delivery_status_filter: bad status code: %.*s", STR_FMT(value));
}

static void result_filter_next(struct result_filter *f);

static void result_filter_on_answer(void *arg, const struct maps_answer *a) {
    struct result_filter *f = arg;
    struct mailerr *e = &f->a->res[f->at++];
    if (a->rc == MAP_FOUND)
        result_apply(e, str_trim(sbuf_str(&a->value)));
    if (a->rc == MAP_ERROR)
        mailerr_soften(e);
    f->failed = a->rc == MAP_ERROR;
    result_filter_next(f);
}

static void result_filter_ask(struct result_filter *f) {
    const struct mailerr *e = &f->a->res[f->at];
    sbuf_reset(&f->line);
    sbuf_printf(&f->line, "%s %s", e->dsn, e->text);
    struct maps_key key = filter_key(sbuf_str(&f->line));
    f->tag = lookup_maps(f->d->lookup, "smtp", f->a->transport->p.smtp_delivery_status_filter,
                         VALUES_JOINED, &key, 1, result_filter_on_answer, f);
}

/* Once the daemon is being stopped, no table is waited for; nor is one that has just failed. */
static void result_filter_next(struct result_filter *f) {
    for (; f->at < f->a->n; f->at++) {
        if (!f->a->tried[f->at])
            continue;
        if (!f->d->stopping && !f->failed) {
            result_filter_ask(f);
            return;
        }
        mailerr_soften(&f->a->res[f->at]);
    }
    results_end(f->d, f->slot, f->a, f->uses);
    dl_remove(&f->link);
    sbuf_free(&f->line);
    free(f);
}

void deliver_stop(struct deliver *d) {
    d->stopping = true;
    DL_EACH_SAFE (it, &d->results) {
        struct result_filter *f = DL_OWNER(it, struct result_filter, link);
        lookup_cancel(d->lookup, f->tag);
        result_filter_next(f);
    }
}

void filter_results(struct dsess *s, struct attempt *a, unsigned uses) {
    if (a->transport->p.smtp_delivery_status_filter[0] == '\0') {
        results_end(s->d, s->slot, a, uses);
        return;
    }
    struct attempt_taken *taken = attempt_taken_new(a);
    if (taken != NULL)
        s->d->ops->taken(taken);
    struct result_filter *f = MEM_NEW(struct result_filter);
    *f = (struct result_filter){.d = s->d, .slot = s->slot, .a = a, .uses = uses};
    dl_push(&s->d->results, &f->link);
    result_filter_next(f);
}
