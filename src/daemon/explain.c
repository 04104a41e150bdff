/*
 * daemon/explain.c - explanations and tests of a road; see explain.h
 *
 * One struct travels between two loops: fn and arg belong to home, the rest to the worker.  It is
 * freed on home's thread with the last line.
 */
#include "daemon/explain.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "clean/virtual.h"
#include "daemon/unread_say.h"
#include "deliver/probe.h"
#include "mail/address.h"
#include "route/alias.h"
#include "route/keys.h"
#include "route/route.h"
#include "util/mem.h"

/* Stands for any recipient that no rule names. */
#define ANYBODY "anybody@elsewhere.invalid"
/* Roads of one alias's addresses. */
#define ALIAS_SHOWN_MAX 20U
/* Bytes of steps: who asks gets no more, however many names an alias leads to.  One address may
 * take 30 KB where tables are in a database. */
#define TOLD_MAX 1048576U

/* What an address stands for by virtual(5). */
struct explain_names {
    char **v; /* owned */
    uint32_t n;
    uint32_t at; /* the next one that is shown */
};

struct explain {
    struct loop *home;
    struct explain_at at;
    explain_fn fn; /* NULL: forgotten */
    void *arg;
    char *sender, *rcpt;
    char *via; /* a relay host to test; NULL: what the rules say */
    bool connect, any_rcpt;
    struct rcpt asked;            /* rcpt, while it is asked what it stands for by virtual(5) */
    struct explain_names names;   /* what the recipient stands for … */
    struct explain_names members; /* … and an address of an alias that it is */
    struct alias_result alias;    /* what the recipient stands for, when it is an alias */
    struct alias_groups groups;   /* likewise: its addresses, with their senders */
    uint32_t group;               /* of the address that is shown */
    uint32_t next;                /* the one behind it, in its group */
    uint32_t shown;               /* addresses of all groups */
    bool failed;                  /* one of them would not be delivered */
    size_t told;                  /* bytes of steps */
    atomic_bool forgotten;        /* who asked has gone */
    struct config *cfg;           /* reference */
    struct trace trace;
    struct task begin;
};

struct line_task {
    struct task task;
    struct explain *x;
    char *line;
    bool over;
};

static void explain_forget_names(struct explain_names *names) {
    for (uint32_t i = 0; i < names->n; i++)
        free(names->v[i]);
    free(names->v);
    *names = (struct explain_names){0};
}

static void explain_run_line(struct task *t) {
    struct line_task *l = DL_OWNER(t, struct line_task, task);
    struct explain *x = l->x;
    if (x->fn != NULL)
        x->fn(x->arg, str_of(l->line), l->over);
    if (l->over) {
        free(x->sender);
        free(x->rcpt);
        free(x->via);
        explain_forget_names(&x->names);
        explain_forget_names(&x->members);
        free(x);
    }
    free(l->line);
    free(l);
}

/* Returns its length. */
static size_t explain_send_line(struct explain *x, json_t *o, bool over) {
    struct line_task *l = MEM_NEW(struct line_task);
    struct sbuf text = {0};
    char *dump = json_dumps(o, JSON_COMPACT);
    sbuf_printf(&text, "%s\n", dump == NULL ? "{}" : dump);
    free(dump);
    json_decref(o);
    size_t n = text.n;
    l->task.run = explain_run_line;
    l->x = x;
    l->line = sbuf_take(&text);
    l->over = over;
    loop_post(x->home, &l->task);
    return n;
}

static bool has_told_enough(const struct explain *x) {
    return x->told > TOLD_MAX;
}

static void explain_emit(void *arg, json_t *step) {
    struct explain *x = arg;
    if (has_told_enough(x)) {
        json_decref(step);
        return;
    }
    x->told += explain_send_line(x, step, false);
    if (has_told_enough(x))
        explain_send_line(x,
                          json_pack("{s:s, s:s}", "step", "explanation", "result",
                                    "it is longer than what is shown: the rest is left out"),
                          false);
}

static void explain_on_route(void *arg, const struct route *r);
static void explain_on_virtual(void *arg, const struct virtual_result *r);

/* The sender of what goes on. */
static const char *sender_now(const struct explain *x) {
    const char *owner = x->groups.n > 0 ? x->groups.v[x->group].owner : NULL;
    return owner != NULL ? owner : x->sender;
}

static void explain_route(struct explain *x) {
    route_resolve(x->cfg, x->at.lookup, str_of(sender_now(x)), str_of(x->rcpt), &x->trace,
                  explain_on_route, x);
}

/* The roads of x->rcpt, or of what it stands for by virtual(5).  main.cf may leave aliases out for
 * mail that comes in, and does not for what goes on by an alias. */
static void explain_roads(struct explain *x) {
    x->asked = (struct rcpt){.addr = str_of(x->rcpt)};
    if (virtual_is_idle(x->cfg, x->groups.n > 0 ? NULL : &x->cfg->p))
        explain_route(x);
    else
        virtual_expand(x->cfg, x->at.lookup, "explain", &x->asked, 1, &x->trace, explain_on_virtual,
                       x);
}

/* The roads of the next address that the recipient stands for; there is one. */
static void explain_next(struct explain *x) {
    if (x->next == x->groups.v[x->group].n) {
        x->group++;
        x->next = 0;
    }
    free(x->rcpt);
    x->rcpt = mem_strdup(x->groups.v[x->group].addrs[x->next++]);
    x->shown++;
    trace_note(&x->trace, "forwarded to", "%s", x->rcpt);
    explain_roads(x);
}

/* The road of the next address by virtual(5); false: there is none. */
static bool explain_recipient(struct explain *x, struct explain_names *names) {
    bool more = names->at < names->n;
    if (!more || names->at == ALIAS_SHOWN_MAX) {
        if (more)
            trace_note(&x->trace, "recipient", "%u more are not shown", names->n - names->at);
        explain_forget_names(names);
        return false;
    }
    free(x->rcpt);
    x->rcpt = mem_strdup(names->v[names->at++]);
    trace_note(&x->trace, "recipient", "%s", x->rcpt);
    explain_route(x);
    return true;
}

/* What the recipient stands for by aliases(5) was shown. */
static void explain_alias_ends(struct explain *x) {
    if (x->shown < x->groups.addrs)
        trace_note(&x->trace, "alias", "%u more addresses are not shown",
                   x->groups.addrs - x->shown);
    alias_groups_free(&x->groups);
    alias_result_free(&x->alias);
    x->group = x->next = x->shown = 0;
}

static void over(void *arg, bool ok) {
    struct explain *x = arg;
    x->failed = x->failed || !ok;
    bool more = !has_told_enough(x) && !atomic_load(&x->forgotten);
    if (more && explain_recipient(x, &x->members))
        return;
    if (more && x->shown < x->groups.addrs && x->shown < ALIAS_SHOWN_MAX) {
        explain_next(x);
        return;
    }
    explain_alias_ends(x);
    if (more && explain_recipient(x, &x->names))
        return;
    ok = !x->failed;
    config_unref(x->cfg);
    x->cfg = NULL;
    explain_send_line(x, json_pack("{s:b, s:b}", "ok", 1, "passed", ok), true);
}

/* No relay host is asked: what becomes of the mail. */
static void outcome(struct explain *x, const char *dsn, const char *what, struct str text) {
    json_t *o = trace_step(&x->trace, "outcome");
    json_object_set_new(o, "pass", json_false());
    trace_set(o, "dsn", str_of(dsn));
    trace_setf(o, "result", "%s: %.*s", what, STR_FMT(text));
    trace_end(&x->trace, o);
}

/* The route itself says what becomes of the mail. */
static void here(struct explain *x, const struct route *r) {
    static const char *const what[] = {[MAIL_SENT] = "mail would be dropped and counted as sent",
                                       [MAIL_DEFERRED] = "mail would be deferred",
                                       [MAIL_BOUNCED] = "mail would be bounced"};
    struct mailerr e = {0};
    mailerr_copy(&e, &r->here);
    if (x->cfg->p.soft_bounce)
        mailerr_soften(&e);
    outcome(x, e.dsn, what[e.status], str_of(e.text));
    mailerr_free(&e);
}

static void note_route(struct explain *x, const struct route *r) {
    json_t *o = trace_step(&x->trace, "route");
    trace_set(o, "transport", str_of(r->transport->name));
    trace_set(o, "next_hop", sbuf_str(&r->nexthop));
    trace_set(o, "rule", r->why.n > 0 ? sbuf_str(&r->why) : STR_LIT("the recipient's domain"));
    trace_setf(o, "result", "transport %s, next hop %s", r->transport->name,
               r->nexthop.n > 0 ? r->nexthop.p : "(none)");
    trace_end(&x->trace, o);
}

static void note_group(struct explain *x, const struct alias_group *group) {
    struct sbuf all = {0};
    for (uint32_t i = 0; i < group->n && i < ALIAS_SHOWN_MAX; i++)
        sbuf_printf(&all, "%s%s", i > 0 ? ", " : "", group->addrs[i]);
    trace_note(&x->trace, "alias", "goes on from <%s> to %s",
               group->owner != NULL ? group->owner : x->sender, all.p);
    sbuf_free(&all);
}

static void explain_on_alias(void *arg, struct alias_result *r) {
    struct explain *x = arg;
    if (r->rc != ALIAS_OK) {
        outcome(x, r->rc == ALIAS_FAILED ? "4.3.0" : "4.3.5", "mail would be deferred",
                r->rc == ALIAS_FAILED ? STR_LIT("alias database unavailable") : sbuf_str(&r->why));
        over(x, false);
        return;
    }
    x->alias = *r;
    *r = (struct alias_result){0};
    alias_walk(x->alias.graph, NULL, NULL, &x->groups);
    for (uint32_t i = 0; i < x->groups.n && i < ALIAS_SHOWN_MAX; i++)
        note_group(x, &x->groups.v[i]);
    explain_next(x);
}

/* What the recipient stands for.  An address of an alias is local for some senders only. */
static void explain_local(struct explain *x) {
    if (x->groups.n > 0) {
        trace_note(&x->trace, "alias", "looked up when it goes on");
        over(x, true);
        return;
    }
    alias_expand(x->cfg, x->at.lookup, str_of(x->rcpt), &x->trace, explain_on_alias, x);
}

static void explain_on_route(void *arg, const struct route *r) {
    struct explain *x = arg;
    if (r->rc != ROUTE_OK) {
        outcome(x, r->rc == ROUTE_FAILED ? "4.3.0" : "4.3.5", "mail would be deferred",
                r->rc == ROUTE_FAILED ? str_of(route_failure(r)) : sbuf_str(&r->why));
        over(x, false);
        return;
    }
    note_route(x, r);
    if (r->here.status != MAIL_UNSET) {
        here(x, r);
        over(x, false);
        return;
    }
    if (keys_has_word(x->cfg->p.defer_transports, r->transport->name)) {
        outcome(x, "4.3.2", "mail would be deferred",
                STR_LIT("deferred transport (defer_transports)"));
        over(x, false);
        return;
    }
    if (r->transport->kind == SERVICE_LOCAL) {
        explain_local(x);
        return;
    }
    if (x->any_rcpt && !r->configured) {
        trace_note(&x->trace, "direct",
                   "no relay host: each mail goes to its recipient's own mail exchanger; give a "
                   "recipient to see which");
        over(x, true);
        return;
    }
    struct probe_ask ask = {.cfg = x->cfg,
                            .route = r,
                            .sender = str_of(sender_now(x)),
                            .rcpt = str_of(x->any_rcpt ? "" : x->rcpt),
                            .connect = x->connect,
                            .trace = &x->trace,
                            .done = over,
                            .arg = x};
    probe_start(x->at.deliver, &ask);
}

/* What the recipient stands for is not known. */
static void explain_no_names(struct explain *x, enum virtual_rc rc, bool goes_on) {
    bool fails = rc == VIRTUAL_FAILED, full = rc == VIRTUAL_FULL;
    outcome(x,
            fails  ? "4.3.0"
            : full ? "4.3.1"
                   : "4.6.0",
            goes_on ? "mail would be deferred" : "mail would not be taken",
            fails  ? STR_LIT("451 Temporary lookup failure")
            : full ? STR_LIT("452 Insufficient system storage")
                   : STR_LIT("451 Alias expansion error"));
    over(x, false);
}

static void explain_on_virtual(void *arg, const struct virtual_result *r) {
    struct explain *x = arg;
    bool goes_on = x->groups.n > 0; /* by an alias of aliases(5) */
    struct explain_names *names = goes_on ? &x->members : &x->names;
    if (r->rc == VIRTUAL_UNSHOWN) {
        over(x, false);
        return;
    }
    if (r->rc != VIRTUAL_OK) {
        explain_no_names(x, r->rc, goes_on);
        return;
    }
    names->v = mem_alloc(r->n * sizeof *names->v);
    for (; names->n < r->n; names->n++)
        names->v[names->n] = str_dup(r->rcpts[names->n].addr);
    explain_recipient(x, names);
}

/* What no mail is taken for. */
static void explain_refused(void *arg, const struct refusal *r, const char *services) {
    struct explain *x = arg;
    json_t *o = trace_step(&x->trace, "refused");
    json_object_set_new(o, "pass", json_false());
    trace_setf(o, "result",
               "%s%s%s is not implemented: %s; no mail is taken (451 4.3.5) by %s; "
               "accept_unimplemented = %s lets it pass",
               r->list == NULL ? "" : r->list, r->list == NULL ? "" : ": ", r->name, r->text,
               services, r->name);
    if (r->file != NULL)
        trace_setf(o, "set_at", "%s, line %d", r->file, r->line);
    trace_end(&x->trace, o);
    x->failed = true;
}

/* The address becomes what smtpd makes of it: its quotes go, and without a domain it gets one, as
 * in mail of this system.  One that smtpd would not take is asked for as it is. */
static void explain_complete(const struct params *p, char **address) {
    static const struct addr_opts any = {.utf8 = true};
    struct sbuf whole = {0};
    size_t len = 0;
    if ((*address)[0] == '\0')
        return;
    if (addr_parse(str_of(*address), &any, &whole, &len) != ADDR_OK || len != strlen(*address)) {
        sbuf_reset(&whole);
        sbuf_add_c(&whole, *address);
    }
    addr_complete(&whole, 0, p->append_at_myorigin ? p->myorigin : NULL,
                  p->append_dot_mydomain ? p->mydomain : NULL);
    free(*address);
    *address = sbuf_take(&whole);
}

/* The first step: the two addresses, with the quotes that they need. */
static void note_question(struct explain *x) {
    struct sbuf sender = {0}, rcpt = {0};
    addr_external(&sender, str_of(x->sender));
    addr_external(&rcpt, str_of(x->rcpt));
    json_t *o = trace_step(&x->trace, "question");
    trace_set(o, "sender", sbuf_str(&sender));
    trace_set(o, "recipient", sbuf_str(&rcpt));
    trace_setf(
        o, "result", "from <%.*s> to %.*s", STR_FMT(sbuf_str(&sender)),
        STR_FMT(x->any_rcpt ? STR_LIT("any recipient that no rule names") : sbuf_str(&rcpt)));
    trace_end(&x->trace, o);
    sbuf_free(&sender);
    sbuf_free(&rcpt);
}

/* The services whose mail goes to that filter first; n 0: it was named before. */
static void add_filtered(const struct config *cfg, const char *filter, size_t from,
                         struct sbuf *names) {
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        if (svc->kind != SERVICE_SMTPD || strcmp(svc->p.content_filter, filter) != 0)
            continue;
        if (i < from) {
            sbuf_reset(names);
            return;
        }
        sbuf_printf(names, "%s%s", names->n > 0 ? ", " : "", svc->name);
    }
}

/* What is explained is the road behind the filter: of what it gives back. */
static void note_filters(struct explain *x) {
    struct sbuf names = {0};
    const char *local = x->cfg->sendmail.p.content_filter;
    for (size_t i = 0; i < x->cfg->n_services; i++) {
        const char *filter = x->cfg->services[i]->p.content_filter;
        sbuf_reset(&names);
        if (filter[0] != '\0')
            add_filtered(x->cfg, filter, i, &names);
        if (names.n > 0)
            trace_note(
                &x->trace, "content_filter",
                "mail that comes in by %s goes to %s first; what follows is the road of what "
                "that gives back",
                names.p, filter);
    }
    if (local[0] != '\0')
        trace_note(&x->trace, "content_filter", "mail of sendmail(1) goes to %s first", local);
    sbuf_free(&names);
}

static void run_begin(struct task *t) {
    struct explain *x = DL_OWNER(t, struct explain, begin);
    x->cfg = config_ref(deliver_config(x->at.deliver));
    explain_complete(&x->cfg->p, &x->sender);
    explain_complete(&x->cfg->p, &x->rcpt);
    note_question(x);
    note_filters(x);
    unread_each_refused(x->cfg, explain_refused, x);
    if (x->via != NULL)
        route_resolve_via(x->cfg, x->at.lookup, str_of(x->via), str_of(x->sender), str_of(x->rcpt),
                          &x->trace, explain_on_route, x);
    else if (x->any_rcpt)
        explain_route(x);
    else
        explain_roads(x);
}

struct explain *explain_start(struct loop *home, const struct explain_at *at,
                              const struct explain_ask *ask, explain_fn fn, void *arg) {
    const char *sender = ask->sender, *rcpt = ask->rcpt;
    struct explain *x = MEM_NEW(struct explain);
    x->home = home;
    x->at = *at;
    x->fn = fn;
    x->arg = arg;
    x->sender = mem_strdup(strcmp(sender, "<>") == 0 ? "" : sender);
    x->any_rcpt = rcpt[0] == '\0';
    x->rcpt = mem_strdup(x->any_rcpt ? ANYBODY : rcpt);
    x->connect = ask->connect;
    x->via = ask->via == NULL ? NULL : mem_strdup(ask->via);
    x->trace = (struct trace){explain_emit, x};
    x->begin.run = run_begin;
    loop_post(at->loop, &x->begin);
    return x;
}

void explain_forget(struct explain *x) {
    x->fn = NULL;
    atomic_store(&x->forgotten, true);
}
