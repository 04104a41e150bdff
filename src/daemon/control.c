/*
 * daemon/control.c - the control socket; see control.h
 */
#include "daemon/control.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/content.h"
#include "daemon/overview.h"
#include "util/accept.h"
#include "util/clock.h"
#include "util/conn.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/os.h"
#include "util/sock.h"

#define LINE_MAX_BYTES 65536U
#define SHOWN_MAX      50U      /* senders, reasons */
#define FOUND_MAX      500U     /* messages in one answer */
#define FOUND_BYTES    8388608U /* after which it has no further one */
#define LISTING_AHEAD  65536U   /* written before the client has taken it */
#define LISTING_STEP   256U     /* messages looked at before others have their turn */

/* Mail that waits is routed anew for what is saved, and then for so long not once more. */
#define ANEW_US_EACH 250U  /* for each recipient of what waits */
#define ANEW_MOST_MS 5000U /* the program that has saved waits meanwhile, */
#define ANEW_LAST_MS 15000 /* … and so long at most until all of it has had its turn */
#define ANEW_LOOK_MS 50

#define USERS_MAX    64U   /* connections to the socket for all users */
#define PER_USER_MAX 8U    /* … of one of them */
#define USERS_MS     60000 /* one that neither asks nor takes its answer for so long is closed */

struct control {
    struct loop *loop;
    struct acceptor *doors[2]; /* for those who may do everything, for all users; NULL: closed */
    struct dl users;           /* struct client: those that came by the socket for all users */
    struct sched *sched;
    struct spool *spool;
    struct lookup *lookup;
    const struct unreadable_list *kept; /* the owner's */
    struct explain_at at;
    const atomic_ulong *reloads; /* that the whole process has taken up */
    struct dl saved;             /* struct client: a change is to be taken up for them */
    struct dl taking_up;         /* struct client: the lookup process forgets for them */
    bool forgetting;             /* it was asked to, and has not answered */
    int64_t anew_ms;             /* nothing is taken up before */
    uv_timer_t anew;             /* runs until then while saved has some */
};

struct client {
    struct control *c;
    struct dl link;          /* control->users; in no list: one who may do everything */
    uid_t uid;               /* of such a user */
    uint32_t allowed;        /* the question whether the user may do it; 0: none is open */
    json_t *asked;           /* what is done then; NULL: nothing */
    struct explain *explain; /* NULL: none is running */
    struct dl forget;        /* in control->saved or control->taking_up; in no list: neither */
    struct ordered *ordered; /* waits until it is durable; NULL: none does */
    struct conn *conn;
    struct later turn; /* what is left of a listing, or the next request */
    uint64_t *listing; /* ids still to be shown, while it lists the queue */
    size_t n_listing, shown;
    struct overview_line line;  /* the message that is being shown */
    struct sched_filter filter; /* of the listing; its texts are list_req's */
    struct htab filter_ids;
    json_t *list_req;               /* NULL: no listing */
    struct content_reader *content; /* NULL: no message is being read */
};

/* Shows a piece of the message that has begun, or looks whether the next one is to be shown. */
static void list_step(struct client *k) {
    struct sched_view v;
    struct sbuf b = {0};
    uint64_t id = k->listing[k->line.open ? k->shown - 1 : k->shown++];
    bool there = sched_view(k->c->sched, id, &v);
    if (!k->line.open && there && sched_fits(&v, &k->filter))
        overview_begin(&b, &v, &k->line);
    if (k->line.open)
        overview_go_on(&b, there ? &v : NULL, &k->line);
    if (b.n > 0)
        conn_write(k->conn, b.p, b.n);
    sbuf_free(&b);
}

static void list_end(struct client *k) {
    sbuf_free(&k->line.tail);
    k->line = (struct overview_line){.open = false};
    free(k->listing);
    k->listing = NULL;
    htab_free(&k->filter_ids);
    json_decref(k->list_req);
    k->list_req = NULL;
}

static bool list_is_left(const struct client *k) {
    return k->line.open || k->shown < k->n_listing;
}

/* As much as the client takes; the rest when it has, for a queue may be longer than memory allows
 * to list at once, and so may one message.  Of a long queue some messages in each turn: mail goes
 * on meanwhile, however many listings are asked for. */
static void list_more(struct client *k) {
    for (size_t n = 0; list_is_left(k) && conn_pending(k->conn) < LISTING_AHEAD; n++) {
        if (n == LISTING_STEP) {
            loop_later(k->c->loop, &k->turn);
            return;
        }
        list_step(k);
    }
    if (list_is_left(k))
        return;
    struct sbuf b = {0};
    struct sched_stats st;
    sched_stats(k->c->sched, &st);
    unreadable_show(&b, k->c->kept, &k->filter);
    list_end(k);
    sbuf_printf(&b, "{\"ok\": true, \"halted\": %s, \"crowded\": %s}\n",
                st.halted ? "true" : "false", st.crowded ? "true" : "false");
    conn_write(k->conn, b.p, b.n);
    sbuf_free(&b);
    conn_resume(k->conn);
}

static void control_turn(struct later *later) {
    struct client *k = DL_OWNER(later, struct client, turn);
    if (k->list_req != NULL)
        list_more(k);
    else
        conn_resume(k->conn);
}

/* The client gives way to others: its listing, or else its next request, goes on in the loop's next
 * turn. */
static void control_give_way(struct client *k) {
    conn_pause(k->conn);
    loop_later(k->c->loop, &k->turn);
}

/* The messages that req asks for; without any condition, all. */
static void list_begin(struct client *k, json_t *req) {
    k->list_req = json_incref(req);
    overview_filter(req, &k->filter, &k->filter_ids);
    k->listing = sched_ids(k->c->sched, &k->n_listing);
    k->shown = 0;
    control_give_way(k);
}

/* What fits in one answer: lines and the last one. */
static bool run_overview(struct client *k, const char *cmd) {
    const struct sched *s = k->c->sched;
    struct sbuf b = {0};
    if (strcmp(cmd, "stats") == 0)
        overview_stats(&b, s, k->c->spool);
    else if (strcmp(cmd, "relays") == 0)
        overview_relays(&b, s, loop_now_ms(k->c->loop));
    else if (strcmp(cmd, "senders") == 0)
        overview_senders(&b, s, SHOWN_MAX);
    else if (strcmp(cmd, "counts") == 0)
        overview_counts(&b, s, SHOWN_MAX);
    else
        return false;
    sbuf_add_c(&b, "{\"ok\": true}\n");
    conn_write(k->conn, b.p, b.n);
    sbuf_free(&b);
    return true;
}

/* A condition that is not understood must not be taken for none: an order would be for more mail.
 */
static bool control_refuses(struct client *k, json_t *req) {
    const char *wrong = overview_filter_wrong(req);
    if (wrong != NULL)
        conn_printf(k->conn, "{\"ok\": false, \"error\": \"%s is not valid\"}\n", wrong);
    return wrong != NULL;
}

/* A page of the queue: "after" a cursor, at most "limit" messages. */
static void control_find(struct client *k, json_t *req) {
    struct sched_filter f;
    struct htab wanted = {0};
    struct sbuf b = {0};
    struct sched_view v;
    uint64_t ids[FOUND_MAX + 1], after = 0;
    if (control_refuses(k, req))
        return;
    const char *cursor = json_string_value(json_object_get(req, "after"));
    json_int_t limit = json_integer_value(json_object_get(req, "limit"));
    size_t max = limit < 1 || limit > (json_int_t)FOUND_MAX ? FOUND_MAX : (size_t)limit;
    if (cursor != NULL)
        str_u64(str_of(cursor), &after);
    overview_filter(req, &f, &wanted);
    size_t n = sched_find(k->c->sched, &f, after, ids, max + 1);
    size_t shown = 0;
    for (; shown < n && shown < max && b.n < FOUND_BYTES; shown++)
        if (sched_view(k->c->sched, ids[shown], &v))
            overview_message(&b, &v);
    sbuf_printf(&b, "{\"ok\": true, \"more\": %s}\n", n > shown ? "true" : "false");
    conn_write(k->conn, b.p, b.n);
    sbuf_free(&b);
    htab_free(&wanted);
}

static const struct order {
    const char *cmd;
    enum sched_act act;
    const char *one, *all; /* what the log says of one message, and of their number */
} orders[] = {{"queue-retry", ACT_RETRY, NULL, NULL},
              {"queue-delete", ACT_DELETE, NULL, "Deleted"},
              {"queue-hold", ACT_HOLD, "placed on hold", "Placed on hold"},
              {"queue-release", ACT_RELEASE, "released from hold", "Released from hold"},
              {"queue-expire", ACT_EXPIRE, "expired", "Force-expired"},
              {"queue-requeue", ACT_REQUEUE, "requeued", "Requeued"}};

/* An order that was given.  It is called done, to the client and in the log, when no power cut can
 * undo it any more, and in the log also when the client has gone. */
struct ordered {
    struct client *k; /* NULL: it has gone */
    const struct order *order;
    size_t n_hit, n_changed;
    bool by_id;       /* it names messages: each is told by itself */
    struct sbuf qids; /* of those that it changed, with a blank behind each */
};

/* On disk, or (why is not NULL) not yet. */
static void ordered_log(const struct ordered *o, const char *why) {
    struct str rest = sbuf_str(&o->qids), qid;
    while (o->order->one != NULL && str_split(&rest, " ", &qid))
        if (why == NULL)
            log_info("postsuper", "%.*s: %s", STR_FMT(qid), o->order->one);
        else
            log_warn("postsuper", "%.*s: %s, but that is not noted on disk yet: %s", STR_FMT(qid),
                     o->order->one, why);
    if (o->order->all != NULL)
        log_info("postsuper", "%s: %zu message%s%s", o->order->all, o->n_changed,
                 o->n_changed == 1 ? "" : "s", why == NULL ? "" : ", not noted on disk yet");
}

static void ordered_answer(const struct ordered *o, const char *why) {
    struct str rest = sbuf_str(&o->qids), qid;
    struct conn *to = o->k->conn;
    while (str_split(&rest, " ", &qid))
        conn_printf(to, "{\"changed\": \"%.*s\"}\n", STR_FMT(qid));
    if (why != NULL)
        conn_printf(to,
                    "{\"ok\": false, \"error\": \"messages: %zu; done, but not noted on disk yet "
                    "(%s): it is tried again\"}\n",
                    o->n_changed, why);
    else
        conn_printf(to, "{\"ok\": true, \"count\": %zu, \"matched\": %zu}\n", o->n_changed,
                    o->n_hit);
    o->k->ordered = NULL;
    conn_resume(to);
}

static void control_order_durable(void *arg, int rc) {
    struct ordered *o = arg;
    const char *why = rc < 0 ? strerror(-rc) : NULL;
    ordered_log(o, why);
    if (o->k != NULL)
        ordered_answer(o, why);
    sbuf_free(&o->qids);
    free(o);
}

static void control_order_changed(void *arg, const char *qid) {
    struct ordered *o = arg;
    if (o->by_id)
        sbuf_printf(&o->qids, "%s ", qid);
}

static void control_order(struct client *k, const struct order *order, json_t *req) {
    struct sched_filter f;
    struct htab ids = {0};
    struct ordered *o = k->ordered = MEM_NEW(struct ordered);
    struct sched_changes changes = {0, control_order_changed, o};
    o->k = k;
    o->order = order;
    o->by_id = json_object_get(req, "ids") != NULL;
    o->n_hit =
        overview_filter(req, &f, &ids) ? sched_act(k->c->sched, order->act, &f, &changes) : 0;
    o->n_changed = changes.n;
    htab_free(&ids);
    conn_pause(k->conn);
    sched_when_durable(k->c->sched, control_order_durable, o);
}

static bool run_order(struct client *k, const char *cmd, json_t *req) {
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        if (strcmp(cmd, orders[i].cmd) != 0)
            continue;
        if (!control_refuses(k, req))
            control_order(k, &orders[i], req);
        return true;
    }
    return false;
}

static void control_content_read(void *arg) {
    struct client *k = arg;
    k->content = NULL;
    conn_resume(k->conn);
}

/* A message with its envelope and its content. */
static void control_read(struct client *k, const char *qid) {
    struct sched_filter f = SCHED_ALL;
    struct htab ids = {0};
    struct sched_view v;
    uint64_t id;
    htab_put(&ids, str_of(qid), k);
    f.ids = &ids;
    if (sched_find(k->c->sched, &f, 0, &id, 1) == 1 && sched_view(k->c->sched, id, &v)) {
        conn_pause(k->conn);
        k->content =
            content_reader_new(k->c->loop, k->c->spool, &v, k->conn, control_content_read, k);
    } else {
        conn_write_c(k->conn, "{\"ok\": false, \"error\": \"No such file or directory\"}\n");
    }
    htab_free(&ids);
}

/* What was remembered of tables is forgotten, here and in the lookup process, and mail that waits
 * behind other mail goes by what they say now.  The answer also says which accounts store the
 * configuration in use has, and whether it has relay records: a program that has written to
 * another one, or has just made one of them, has to have it reloaded. */
static void client_forgotten(struct client *k, bool failed) {
    const struct config *cfg = sched_config(k->c->sched);
    struct sbuf b = {0};
    dl_remove(&k->forget);
    if (failed) {
        sbuf_add_c(&b, "{\"ok\": false, \"error\": \"the lookup process does not answer\"}\n");
    } else {
        sbuf_printf(&b, "{\"ok\": true, \"store\": %s, \"relays\": %s, \"accounts_store\": ",
                    cfg->p.accounts_store[0] != '\0' ? "true" : "false",
                    cfg->relays_spec[0] != '\0' ? "true" : "false");
        sbuf_add_json(&b, str_of(cfg->p.accounts_store));
        sbuf_add_c(&b, "}\n");
    }
    conn_write(k->conn, b.p, b.n);
    sbuf_free(&b);
    conn_resume(k->conn);
}

static void control_take_up(struct control *c);

/* All mail that waits is routed anew, also for one user's relay host: a program that saves all the
 * time would hold up the mail of all. */
static void control_forgotten(void *arg, const struct maps_answer *a) {
    struct control *c = arg;
    struct sched_stats st;
    sched_stats(c->sched, &st);
    uint64_t rest = st.busy * ANEW_US_EACH / 1000;
    sched_route_anew(c->sched);
    c->anew_ms = clock_mono_ms() + (int64_t)(rest < ANEW_MOST_MS ? rest : ANEW_MOST_MS);
    while (!dl_empty(&c->taking_up))
        client_forgotten(DL_OWNER(c->taking_up.next, struct client, forget), a->rc == MAP_ERROR);
    c->forgetting = false;
    control_take_up(c);
}

static void control_anew(uv_timer_t *t) {
    control_take_up(t->data);
}

/* How long until it may be done once more: while mail still waits for being routed anew it would
 * begin with the same mail again. */
static int64_t control_anew_left(const struct control *c) {
    int64_t left = c->anew_ms - clock_mono_ms();
    bool all = !sched_asks_again(c->sched) || left < (int64_t)ANEW_MOST_MS - ANEW_LAST_MS;
    return left > 0 || all ? left : ANEW_LOOK_MS;
}

/* For all that wait for it together, when it is time. */
static void control_take_up(struct control *c) {
    int64_t left = control_anew_left(c);
    if (dl_empty(&c->saved) || c->forgetting)
        return;
    if (left > 0) {
        uv_timer_start(&c->anew, control_anew, (uint64_t)left, 0);
        return;
    }
    for (struct dl *first; (first = dl_pop(&c->saved)) != NULL;)
        dl_push(&c->taking_up, first);
    c->forgetting = true;
    lookup_forget(c->lookup, control_forgotten, c);
}

/* A step of an explanation; the last one lets the client go on. */
static void control_on_step(void *arg, struct str line, bool last) {
    struct client *k = arg;
    conn_write(k->conn, line.p, line.n);
    if (!last)
        return;
    k->explain = NULL;
    conn_resume(k->conn);
}

static bool run_explain(struct client *k, const char *cmd, json_t *req) {
    bool connect = strcmp(cmd, "test") == 0;
    struct explain_ask ask = {
        .sender = json_string_value(json_object_get(req, "sender")),
        .rcpt = json_string_value(json_object_get(req, "recipient")),
        .via = json_string_value(json_object_get(req, "relay")),
        .connect = connect,
    };
    if (!connect && strcmp(cmd, "explain") != 0)
        return false;
    if (ask.rcpt == NULL)
        ask.rcpt = "";
    if (ask.sender == NULL) {
        conn_write_c(k->conn, "{\"ok\": false, \"error\": \"sender is missing\"}\n");
        return true;
    }
    conn_pause(k->conn);
    k->explain = explain_start(k->c->loop, &k->c->at, &ask, control_on_step, k);
    return true;
}

static void run_request(struct client *k, const char *cmd, json_t *req) {
    const char *id = json_string_value(json_object_get(req, "id"));
    bool show = strcmp(cmd, "queue-show") == 0 && id != NULL && *id != '\0';
    if (show || strcmp(cmd, "queue-list") == 0) {
        if (!control_refuses(k, req))
            list_begin(k, req);
    } else if (strcmp(cmd, "queue-read") == 0 && id != NULL) {
        control_read(k, id);
    } else if (strcmp(cmd, "queue-find") == 0) {
        control_find(k, req);
    } else if (strcmp(cmd, "queue-flush") == 0) {
        conn_printf(k->conn, "{\"ok\": true, \"count\": %zu}\n", sched_flush(k->c->sched));
        control_give_way(k);
    } else if (strcmp(cmd, "reloads") == 0) {
        conn_printf(k->conn, "{\"ok\": true, \"count\": %lu, \"process\": %d}\n",
                    atomic_load(k->c->reloads), (int)getpid());
    } else if (strcmp(cmd, "forget") == 0) {
        conn_pause(k->conn);
        dl_push(&k->c->saved, &k->forget);
        control_take_up(k->c);
    } else if (!run_overview(k, cmd) && !run_order(k, cmd, req)) {
        conn_write_c(k->conn, "{\"ok\": false, \"error\": \"unknown command\"}\n");
    }
}

/* -- users who may not do everything -- */

/* What everybody may do: the parameter that says who, and how a refusal reads.  An order may name
 * messages or a site, and nothing more. */
static const struct right {
    const char *cmd;
    const char *conditions[2];
    bool flush;
} rights[] = {{"queue-list", {NULL, NULL}, false},
              {"queue-flush", {NULL, NULL}, true},
              {"queue-retry", {"id", "site"}, true}};

static const struct right *right_for(const char *cmd, json_t *req) {
    for (size_t i = 0; i < sizeof rights / sizeof rights[0]; i++) {
        const struct right *r = &rights[i];
        bool named = r->conditions[0] == NULL || json_object_size(req) == 2;
        for (size_t c = 0; r->conditions[0] != NULL && json_object_size(req) == 2 && c < 2; c++)
            named = c == 0 ? json_object_get(req, r->conditions[0]) != NULL
                           : named || json_object_get(req, r->conditions[1]) != NULL;
        if (strcmp(cmd, r->cmd) == 0)
            return named ? r : NULL;
    }
    return NULL;
}

static void control_deny(struct client *k, bool flush) {
    conn_printf(k->conn, "{\"ok\": false, \"denied\": true, \"error\": \"%s the mail queue\"}\n",
                flush ? "flush" : "view");
}

static void control_on_allowed(void *arg, enum match_rc rc) {
    struct client *k = arg;
    json_t *req = k->asked;
    const char *cmd = json_string_value(json_object_get(req, "cmd"));
    k->allowed = 0;
    k->asked = NULL;
    if (rc == MATCH_YES) {
        run_request(k, cmd, req);
    } else if (rc == MATCH_NO) {
        log_warn("showq", "user %lu may not use %s", (unsigned long)k->uid, cmd);
        control_deny(k, strcmp(cmd, "queue-list") != 0);
    } else {
        conn_write_c(k->conn, "{\"ok\": false, \"error\": \"whether you may do this cannot be "
                              "looked up now\"}\n");
    }
    if (!dl_linked(&k->turn.link) && k->ordered == NULL)
        conn_resume(k->conn);
    json_decref(req);
}

/* A request of a user who may do what the lists of users say. */
static void control_run_limited(struct client *k, const char *cmd, json_t *req) {
    const struct params *p = &sched_config(k->c->sched)->p;
    const struct right *r = right_for(cmd, req);
    if (r == NULL) {
        conn_write_c(k->conn, "{\"ok\": false, \"error\": \"only root and the group of mail_owner "
                              "may do this\"}\n");
        return;
    }
    const char *list = r->flush ? p->authorized_flush_users : p->authorized_mailq_users;
    if (k->uid == 0 || k->uid == geteuid() || lookup_users_all(list)) {
        run_request(k, cmd, req);
        return;
    }
    enum match_rc now;
    conn_pause(k->conn);
    k->asked = json_incref(req);
    k->allowed = lookup_user_now(k->c->lookup, "showq", list, k->uid, &now, control_on_allowed, k);
    if (k->allowed == 0)
        control_on_allowed(k, now);
}

static bool is_limited(const struct client *k) {
    return dl_linked(&k->link);
}

static void control_run_line(struct client *k, struct str line) {
    json_error_t err;
    json_t *req = json_loadb(line.p, line.n, 0, &err);
    const char *cmd = req == NULL ? NULL : json_string_value(json_object_get(req, "cmd"));
    if (cmd == NULL)
        conn_write_c(k->conn, "{\"ok\": false, \"error\": \"not a JSON object with cmd\"}\n");
    else if (is_limited(k))
        control_run_limited(k, cmd, req);
    else if (!run_explain(k, cmd, req))
        run_request(k, cmd, req);
    json_decref(req);
}

static void client_free(struct client *k) {
    if (k->explain != NULL)
        explain_forget(k->explain);
    dl_remove(&k->forget);
    lookup_cancel(k->c->lookup, k->allowed);
    json_decref(k->asked);
    if (is_limited(k))
        dl_remove(&k->link);
    loop_never(&k->turn);
    if (k->ordered != NULL)
        k->ordered->k = NULL;
    content_forget(k->content);
    conn_close(k->conn);
    list_end(k);
    free(k);
}

static size_t control_on_input(void *arg, const char *p, size_t n) {
    struct client *k = arg;
    const char *nl = memchr(p, '\n', n);
    if (nl == NULL) {
        if (n > LINE_MAX_BYTES)
            client_free(k);
        return 0;
    }
    control_run_line(k, str_make(p, (size_t)(nl - p)));
    return (size_t)(nl - p) + 1;
}

static void control_on_event(void *arg, enum conn_event ev) {
    struct client *k = arg;
    if (is_limited(k))
        conn_deadline(k->conn, USERS_MS);
    if (ev == CONN_CLOSED || ev == CONN_TIMEOUT)
        client_free(k);
    else if (ev == CONN_DRAINED && k->list_req != NULL)
        list_more(k);
    else if (ev == CONN_DRAINED && k->content != NULL)
        content_more(k->content);
}

static const struct conn_ops client_ops = {
    .input = control_on_input, .event = control_on_event, .answers = true};

static void control_client(void *arg, int fd, const struct netaddr *peer) {
    struct control *c = arg;
    struct client *k = MEM_NEW(struct client);
    (void)peer;
    k->c = c;
    k->turn.run = control_turn;
    k->conn = conn_new(c->loop, fd, &client_ops, k);
    if (k->conn == NULL)
        free(k);
}

static void control_full(void *arg, int fd) {
    static const char busy[] = "{\"ok\": false, \"error\": \"too many open files\"}\n";
    (void)arg;
    if (fd < 0)
        return;
    sock_send(fd, busy, sizeof busy - 1);
    sock_close(fd);
}

static const struct accept_ops control_ops = {control_client, control_full};

/* No user takes all places, and all users together no more memory than is known beforehand. */
static bool users_have_room(const struct control *c, uid_t uid) {
    size_t n = 0, own = 0;
    DL_EACH (it, &c->users) {
        n++;
        own += DL_OWNER(it, struct client, link)->uid == uid;
    }
    return n < USERS_MAX && own < PER_USER_MAX;
}

static void control_user(void *arg, int fd, const struct netaddr *peer) {
    struct control *c = arg;
    uid_t uid;
    (void)peer;
    if (os_peer_uid(fd, &uid) < 0 || !users_have_room(c, uid)) {
        static const char busy[] = "{\"ok\": false, \"error\": \"too many connections\"}\n";
        sock_send(fd, busy, sizeof busy - 1);
        sock_close(fd);
        return;
    }
    struct client *k = MEM_NEW(struct client);
    k->c = c;
    k->turn.run = control_turn;
    k->uid = uid;
    k->conn = conn_new(c->loop, fd, &client_ops, k);
    if (k->conn == NULL) {
        free(k);
        return;
    }
    dl_push(&c->users, &k->link);
    conn_deadline(k->conn, USERS_MS);
}

static const struct accept_ops user_ops = {control_user, control_full};

struct control *control_new(struct loop *l, struct sched *s, struct spool *sp,
                            struct lookup *lookup, const struct unreadable_list *kept,
                            const struct explain_at *at, const atomic_ulong *reloads) {
    struct control *c = MEM_NEW(struct control);
    c->loop = l;
    c->sched = s;
    c->spool = sp;
    c->lookup = lookup;
    c->kept = kept;
    c->at = *at;
    c->reloads = reloads;
    dl_init(&c->users);
    dl_init(&c->saved);
    dl_init(&c->taking_up);
    uv_timer_init(&l->uv, &c->anew);
    c->anew.data = c;
    return c;
}

void control_listen(struct control *c, int fd, bool all) {
    struct acceptor **at = &c->doors[all];
    acceptor_close(*at);
    *at = acceptor_new(c->loop, fd, all ? &user_ops : &control_ops, c);
}

void control_deaf(struct control *c) {
    for (size_t i = 0; i < 2; i++) {
        acceptor_close(c->doors[i]);
        c->doors[i] = NULL;
    }
}
