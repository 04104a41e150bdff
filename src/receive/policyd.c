/*
 * receive/policyd.c - policy services; see policyd.h
 *
 * A call has a connection while it is being answered; between two tries it has none, and its timer
 * runs.  A connection without a call is kept until it is idle or old for too long, or the service
 * hangs up.  A service has so many connections and no more, whatever strangers do: calls beyond
 * them wait in a line for one, each client's next to those of the others.  policyd_over alone ends
 * a call.
 */
#include "receive/policyd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "route/nexthop.h"
#include "util/conn.h"
#include "util/fs.h"
#include "util/list.h"
#include "util/log.h"
#include "util/mem.h"

/* Bytes of an answer; postconf(5) line_length_limit is 2048 for a line of it. */
#define ANSWER_MAX 8192U

/* A service has no more than one in so many of the process's descriptors. */
#define DESCRIPTORS_SHARE 8U

struct policies {
    struct loop *loop;
    size_t loops;
    struct dl services; /* struct policy_service: those with calls or connections */
};

struct policy_service {
    struct dl link;
    struct policies *all;
    char *where;
    struct dl idle; /* struct policy_conn without a call */
    struct dl line; /* struct policy_call that wait for a connection, by their turns */
    size_t n_calls, n_conns;
    uint64_t turn; /* of the call that has left the line last */
};

struct policy_conn {
    struct dl link; /* policy_service->idle, while it has no call */
    struct policy_service *service;
    struct conn *conn;
    struct policy_call *call; /* NULL: it is idle */
    int64_t made_ms;          /* on the loop's clock */
    int64_t uses;
};

struct policy_call {
    struct dl link; /* policy_service->line, while it is in it */
    struct policy_service *service;
    struct policy_how how; /* without its texts */
    char *client;
    uint64_t turn;    /* while it is in the line */
    size_t conns_max; /* that the service may have */
    struct netaddr to;
    struct sbuf request;
    policy_fn fn; /* NULL: cancelled */
    void *arg;
    struct policy_conn *on; /* NULL: between two tries */
    int64_t tries;
    bool failed;      /* it is over when the timer rings */
    uv_timer_t timer; /* until the next try, or the end of the wait in the line */
};

static size_t policyd_input(void *arg, const char *p, size_t n);
static void policyd_event(void *arg, enum conn_event ev);
static const struct conn_ops policyd_conn_ops = {.input = policyd_input, .event = policyd_event};

struct policies *policyd_new(struct loop *l, size_t loops) {
    struct policies *all = MEM_NEW(struct policies);
    all->loop = l;
    all->loops = loops == 0 ? 1 : loops;
    dl_init(&all->services);
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

/* -- services -- */

static struct policy_service *service_of(struct policies *all, struct str where) {
    DL_EACH (it, &all->services) {
        struct policy_service *s = DL_OWNER(it, struct policy_service, link);
        if (str_eq_c(where, s->where))
            return s;
    }
    struct policy_service *s = MEM_NEW(struct policy_service);
    s->all = all;
    s->where = str_dup(where);
    dl_init(&s->idle);
    dl_init(&s->line);
    dl_push(&all->services, &s->link);
    return s;
}

/* Frees it if no call and no connection needs it any more. */
static void service_drop(struct policy_service *s) {
    if (s->n_calls > 0 || s->n_conns > 0)
        return;
    dl_remove(&s->link);
    free(s->where);
    free(s);
}

/* Connections of this loop to one service.  All loops together have as many as Postfix, which has
 * one for each process, but each has one; and clients and deliveries need descriptors, too. */
static size_t service_conns_max(const struct policies *all, const struct config *cfg) {
    size_t max = (size_t)cfg->p.default_process_limit;
    size_t most = (size_t)fs_descriptors_max() / DESCRIPTORS_SHARE;
    max = max < most ? max : most;
    return max < all->loops ? 1 : (max + all->loops - 1) / all->loops;
}

/* -- calls -- */

static void policyd_timer_closed(uv_handle_t *h) {
    struct policy_call *call = h->data;
    sbuf_free(&call->request);
    free(call->client);
    free(call);
}

/* The call has no connection any more, and is in no line. */
static void policyd_over(struct policy_call *call, struct str action) {
    struct policy_service *s = call->service;
    uv_close((uv_handle_t *)&call->timer, policyd_timer_closed);
    s->n_calls--;
    service_drop(s);
    if (call->fn != NULL)
        call->fn(call->arg, action);
}

static void policyd_try(struct policy_call *call);

static void policyd_timer_rings(uv_timer_t *t) {
    struct policy_call *call = t->data;
    if (call->failed) {
        policyd_over(call, STR_NONE);
    } else if (dl_linked(&call->link)) {
        dl_remove(&call->link);
        log_warn("smtpd", "problem talking to server %s: all of its %zu connections are in use",
                 call->service->where, call->conns_max);
        policyd_over(call, STR_NONE);
    } else {
        policyd_try(call);
    }
}

static void policyd_wait(struct policy_call *call, int64_t ms) {
    uv_timer_start(&call->timer, policyd_timer_rings, (uint64_t)ms, 0);
}

/* The try has failed.  No answer is given from here: that of another call may be under way. */
static void policyd_fail(struct policy_call *call, const char *why) {
    call->tries++;
    log_warn("smtpd", "problem talking to server %s: %s", call->service->where, why);
    call->failed = call->tries >= call->how.try_limit;
    policyd_wait(call, call->failed ? 0 : call->how.retry_delay_s * 1000);
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

static void policyd_connect(struct policy_call *call) {
    struct policy_service *s = call->service;
    struct policy_conn *c = MEM_NEW(struct policy_conn);
    int err = 0;
    c->service = s;
    c->made_ms = s->all->loop->now_ms;
    c->uses = 1;
    c->call = call;
    c->conn = conn_connect(s->all->loop, &call->to, NULL, &policyd_conn_ops, c, &err);
    if (c->conn == NULL) {
        free(c);
        policyd_fail(call, strerror(-err));
        return;
    }
    s->n_conns++;
    call->on = c;
    conn_deadline(c->conn, call->how.timeout_s * 1000);
}

/* -- the line -- */

/* The client's turn comes after those that it has in the line, and next to the first ones of
 * others: one that asks for much waits for itself. */
static void line_enter(struct policy_call *call) {
    struct policy_service *s = call->service;
    struct dl *before = &s->line;
    uint64_t last = s->turn;
    DL_EACH (it, &s->line) {
        const struct policy_call *other = DL_OWNER(it, struct policy_call, link);
        if (strcmp(other->client, call->client) == 0)
            last = other->turn;
    }
    call->turn = last + 1;
    while (before->prev != &s->line &&
           DL_OWNER(before->prev, struct policy_call, link)->turn > call->turn)
        before = before->prev;
    dl_push(before, &call->link);
    policyd_wait(call, call->how.timeout_s * 1000);
}

static bool policyd_may_begin(const struct policy_call *call) {
    const struct policy_service *s = call->service;
    return !dl_empty(&s->idle) || s->n_conns < call->conns_max;
}

static void policyd_begin(struct policy_call *call) {
    struct policy_service *s = call->service;
    if (dl_empty(&s->idle))
        policyd_connect(call);
    else
        policyd_take_idle(call, DL_OWNER(s->idle.next, struct policy_conn, link));
}

static void policyd_try(struct policy_call *call) {
    if (policyd_may_begin(call))
        policyd_begin(call);
    else
        line_enter(call);
}

/* A connection is idle or gone: the line moves on. */
static void line_moves(struct policy_service *s) {
    while (!dl_empty(&s->line)) {
        struct policy_call *call = DL_OWNER(s->line.next, struct policy_call, link);
        if (!policyd_may_begin(call))
            return;
        uv_timer_stop(&call->timer);
        dl_remove(&call->link);
        s->turn = call->turn;
        policyd_begin(call);
    }
}

/* -- connections -- */

static void policyd_conn_free(struct policy_conn *c) {
    struct policy_service *s = c->service;
    if (c->call == NULL)
        dl_remove(&c->link);
    conn_close(c->conn);
    free(c);
    s->n_conns--;
    line_moves(s);
}

/* The answer has come.  all: nothing has come behind it, which would be the answer to the next
 * request. */
static void policyd_conn_keep(struct policy_conn *c, const struct policy_how *how, bool all) {
    struct policy_service *s = c->service;
    int64_t age = s->all->loop->now_ms - c->made_ms;
    bool old = !all || age >= how->max_ttl_s * 1000 ||
               (how->request_limit > 0 && c->uses >= how->request_limit) || how->max_idle_s == 0;
    c->call = NULL;
    dl_push(&s->idle, &c->link);
    if (old) {
        policyd_conn_free(c);
        return;
    }
    conn_deadline(c->conn, how->max_idle_s * 1000);
    line_moves(s);
}

/* The connection is of no use any more.  One that was kept may have been given up by the service
 * at the same moment: that is no failure, and the call begins anew at once. */
static void policyd_conn_lose(struct policy_conn *c, const char *why, bool answered) {
    struct policy_service *s = c->service;
    struct policy_call *call = c->call;
    bool kept = c->uses > 1 && !answered;
    policyd_conn_free(c);
    if (call == NULL) {
        service_drop(s);
        return;
    }
    call->on = NULL;
    if (kept)
        policyd_wait(call, 0);
    else
        policyd_fail(call, why);
}

/* -- what is heard -- */

/* "action=text" among the lines of an answer. */
static bool answer_action(struct str answer, struct str *action) {
    while (answer.n > 0) {
        ptrdiff_t end = str_chr(answer, '\n');
        struct str line = str_make(answer.p, end < 0 ? answer.n : (size_t)end);
        answer = str_from(answer, line.n + 1 > answer.n ? answer.n : line.n + 1);
        if (line.n >= 7 && memcmp(line.p, "action=", 7) == 0) { /* in its case, as with Postfix */
            *action = str_from(line, 7);
            return true;
        }
    }
    return false;
}

/* The answer is the n bytes at p; all: nothing else has come. */
static void policyd_answered(struct policy_conn *c, const char *p, size_t n, bool all) {
    struct policy_call *call = c->call;
    struct str action;
    if (!answer_action(str_make(p, n), &action)) {
        policyd_conn_lose(c, "its answer has no action", true);
        return;
    }
    char *text = str_dup(action);
    call->on = NULL;
    policyd_conn_keep(c, &call->how, all);
    policyd_over(call, str_of(text));
    free(text);
}

static size_t policyd_input(void *arg, const char *p, size_t n) {
    struct policy_conn *c = arg;
    if (c->call == NULL) { /* it would count for the next request */
        policyd_conn_lose(c, "", true);
        return n;
    }
    for (size_t i = 0; i + 1 < n; i++)
        if (p[i] == '\n' && p[i + 1] == '\n') {
            policyd_answered(c, p, i + 1, i + 2 == n);
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
                                const struct policy_how *how, struct str request,
                                const char *client, policy_fn fn, void *arg) {
    struct policy_call *call = MEM_NEW(struct policy_call);
    call->service = service_of(all, how->where);
    call->service->n_calls++;
    call->how = *how;
    call->how.where = STR_NONE;
    call->client = mem_strdup(client);
    call->conns_max = service_conns_max(all, cfg);
    call->fn = fn;
    call->arg = arg;
    sbuf_add_str(&call->request, request);
    uv_timer_init(&all->loop->uv, &call->timer);
    call->timer.data = call;
    const char *bad = where_parse(how->where, cfg->socket_folder, &call->to);
    if (bad != NULL) {
        log_warn("smtpd", "policy service %s: %s", call->service->where, bad);
        call->failed = true;
    }
    policyd_wait(call, 0); /* the first try is made by the loop, too: it may fail at once */
    return call;
}

void policyd_cancel(struct policy_call *call) {
    if (call == NULL)
        return;
    call->fn = NULL;
    dl_remove(&call->link);
    if (call->on != NULL)
        policyd_conn_free(call->on);
    policyd_over(call, STR_NONE);
}
