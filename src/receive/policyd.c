/*
 * receive/policyd.c - policy services; see policyd.h
 *
 * A call has a connection while it is being answered; between two tries it has none, and its timer
 * runs.  A connection without a call is kept until it is idle or old for too long, or the service
 * hangs up.  policyd_over alone ends a call.
 */
#include "receive/policyd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "route/nexthop.h"
#include "util/conn.h"
#include "util/list.h"
#include "util/log.h"
#include "util/mem.h"

/* Bytes of an answer; postconf(5) line_length_limit is 2048 for a line of it. */
#define ANSWER_MAX 8192U

struct policies {
    struct loop *loop;
    struct dl idle; /* struct policy_conn without a call */
};

struct policy_conn {
    struct dl link; /* policies->idle, while it has no call */
    struct policies *all;
    char *where;
    struct conn *conn;
    struct policy_call *call; /* NULL: it is idle */
    int64_t made_ms;          /* on the loop's clock */
    int64_t uses;
};

struct policy_call {
    struct policies *all;
    struct policy_how how; /* where is conn_where */
    char *where;
    struct netaddr to;
    struct sbuf request;
    policy_fn fn; /* NULL: cancelled */
    void *arg;
    struct policy_conn *on; /* NULL: between two tries */
    int64_t tries;
    bool misplaced;   /* to is no address */
    uv_timer_t timer; /* until the next try */
};

static size_t policyd_input(void *arg, const char *p, size_t n);
static void policyd_event(void *arg, enum conn_event ev);
static const struct conn_ops policyd_conn_ops = {.input = policyd_input, .event = policyd_event};

struct policies *policyd_new(struct loop *l) {
    struct policies *all = MEM_NEW(struct policies);
    all->loop = l;
    dl_init(&all->idle);
    return all;
}

/* -- where a service is -- */

static const char *where_parse(struct str where, const char *below, struct netaddr *to) {
    struct nexthop n;
    bool local = str_istarts(where, "unix:");
    struct str host = local ? STR_NONE : where;
    const char *why = nexthop_parse_lmtp(&n, local ? where : host, 0);
    if (why != NULL)
        return why;
    if (n.local) {
        struct sbuf path = {0};
        if (n.host.p[0] != '/' && below != NULL)
            sbuf_printf(&path, "%s/", below);
        sbuf_add_str(&path, n.host);
        bool fits = netaddr_unix(to, path.p);
        sbuf_free(&path);
        return fits ? NULL : "its path is too long";
    }
    if (n.port == 0)
        return "it has no port";
    if (str_ieq_c(n.host, "localhost"))
        n.host = STR_LIT("127.0.0.1");
    return netaddr_parse(to, n.host, n.port) ? NULL : "its host is no address";
}

const char *policyd_where_bad(struct str where) {
    struct netaddr to;
    return where_parse(where, NULL, &to);
}

/* -- connections -- */

static void policyd_conn_free(struct policy_conn *c) {
    if (c->call == NULL)
        dl_remove(&c->link);
    conn_close(c->conn);
    free(c->where);
    free(c);
}

static void policyd_conn_keep(struct policy_conn *c, const struct policy_how *how) {
    int64_t age = c->all->loop->now_ms - c->made_ms;
    bool old = age >= how->max_ttl_s * 1000 ||
               (how->request_limit > 0 && c->uses >= how->request_limit) || how->max_idle_s == 0;
    c->call = NULL;
    dl_push(&c->all->idle, &c->link);
    if (old)
        policyd_conn_free(c);
    else
        conn_deadline(c->conn, how->max_idle_s * 1000);
}

static struct policy_conn *policyd_conn_idle(const struct policies *all, const char *where) {
    DL_EACH (it, &all->idle) {
        struct policy_conn *c = DL_OWNER(it, struct policy_conn, link);
        if (strcmp(c->where, where) == 0)
            return c;
    }
    return NULL;
}

/* -- calls -- */

static void policyd_timer_closed(uv_handle_t *h) {
    struct policy_call *call = h->data;
    sbuf_free(&call->request);
    free(call->where);
    free(call);
}

/* The call has no connection any more. */
static void policyd_over(struct policy_call *call, struct str action) {
    uv_close((uv_handle_t *)&call->timer, policyd_timer_closed);
    if (call->fn != NULL)
        call->fn(call->arg, action);
}

static void policyd_try(struct policy_call *call);

static void policyd_timer_rings(uv_timer_t *t) {
    struct policy_call *call = t->data;
    if (call->misplaced)
        policyd_over(call, STR_NONE);
    else
        policyd_try(call);
}

static void policyd_wait(struct policy_call *call, int64_t ms) {
    uv_timer_start(&call->timer, policyd_timer_rings, (uint64_t)ms, 0);
}

/* The try has failed. */
static void policyd_fail(struct policy_call *call, const char *why) {
    call->tries++;
    log_warn("smtpd", "problem talking to server %s: %s", call->where, why);
    if (call->tries < call->how.try_limit)
        policyd_wait(call, call->how.retry_delay_s * 1000);
    else
        policyd_over(call, STR_NONE);
}

/* The connection is of no use any more.  One that was kept may have been given up by the service
 * at the same moment: that is no failure, and the call begins anew at once. */
static void policyd_conn_lose(struct policy_conn *c, const char *why, bool answered) {
    struct policy_call *call = c->call;
    bool kept = c->uses > 1 && !answered;
    policyd_conn_free(c);
    if (call == NULL)
        return;
    call->on = NULL;
    if (kept)
        policyd_wait(call, 0);
    else
        policyd_fail(call, why);
}

static void policyd_say(struct policy_call *call) {
    conn_write(call->on->conn, call->request.p, call->request.n);
    conn_deadline(call->on->conn, call->how.timeout_s * 1000);
}

static void policyd_take_idle(struct policy_call *call, struct policy_conn *c) {
    dl_remove(&c->link);
    c->call = call;
    c->uses++;
    call->on = c;
    policyd_say(call);
}

static void policyd_try(struct policy_call *call) {
    struct policy_conn *c = policyd_conn_idle(call->all, call->where);
    int err = 0;
    if (c != NULL) {
        policyd_take_idle(call, c);
        return;
    }
    c = MEM_NEW(struct policy_conn);
    c->all = call->all;
    c->where = mem_strdup(call->where);
    c->made_ms = call->all->loop->now_ms;
    c->uses = 1;
    c->call = call;
    c->conn = conn_connect(call->all->loop, &call->to, NULL, &policyd_conn_ops, c, &err);
    if (c->conn == NULL) {
        free(c->where);
        free(c);
        policyd_fail(call, strerror(-err));
        return;
    }
    call->on = c;
    conn_deadline(c->conn, call->how.timeout_s * 1000);
}

/* -- what is heard -- */

/* "action=text" among the lines of an answer. */
static bool answer_action(struct str answer, struct str *action) {
    while (answer.n > 0) {
        ptrdiff_t end = str_chr(answer, '\n');
        struct str line = str_make(answer.p, end < 0 ? answer.n : (size_t)end);
        answer = str_from(answer, line.n + 1 > answer.n ? answer.n : line.n + 1);
        if (str_istarts(line, "action=")) {
            *action = str_from(line, 7);
            return true;
        }
    }
    return false;
}

/* The answer is the n bytes at p. */
static void policyd_answered(struct policy_conn *c, const char *p, size_t n) {
    struct policy_call *call = c->call;
    struct str action;
    if (call == NULL || !answer_action(str_make(p, n), &action)) {
        policyd_conn_lose(c, "its answer has no action", true);
        return;
    }
    char *text = str_dup(action);
    call->on = NULL;
    policyd_conn_keep(c, &call->how);
    policyd_over(call, str_of(text));
    free(text);
}

static size_t policyd_input(void *arg, const char *p, size_t n) {
    struct policy_conn *c = arg;
    for (size_t i = 0; i + 1 < n; i++)
        if (p[i] == '\n' && p[i + 1] == '\n') {
            policyd_answered(c, p, i + 1);
            return i + 2;
        }
    if (n <= ANSWER_MAX)
        return 0;
    policyd_conn_lose(c, "its answer is too long", true);
    return n;
}

static void policyd_event(void *arg, enum conn_event ev) {
    struct policy_conn *c = arg;
    if (ev == CONN_CONNECTED && c->call != NULL)
        policyd_say(c->call);
    else if (ev == CONN_TIMEOUT)
        policyd_conn_lose(c, "it does not answer in time", true);
    else if (ev == CONN_CLOSED)
        policyd_conn_lose(
            c, conn_error(c->conn) < 0 ? strerror(-conn_error(c->conn)) : "it has hung up", false);
}

struct policy_call *policyd_ask(struct policies *all, const struct config *cfg,
                                const struct policy_how *how, struct str request, policy_fn fn,
                                void *arg) {
    struct policy_call *call = MEM_NEW(struct policy_call);
    call->all = all;
    call->how = *how;
    call->where = str_dup(how->where);
    call->how.where = str_of(call->where);
    call->fn = fn;
    call->arg = arg;
    sbuf_add_str(&call->request, request);
    uv_timer_init(&all->loop->uv, &call->timer);
    call->timer.data = call;
    const char *bad = where_parse(how->where, cfg->socket_folder, &call->to);
    if (bad != NULL) {
        log_warn("smtpd", "policy service %s: %s", call->where, bad);
        call->misplaced = true;
    }
    policyd_wait(call, 0); /* the first try is made by the loop, too: it may fail at once */
    return call;
}

void policyd_cancel(struct policy_call *call) {
    if (call == NULL)
        return;
    call->fn = NULL;
    if (call->on != NULL)
        policyd_conn_free(call->on);
    policyd_over(call, STR_NONE);
}
