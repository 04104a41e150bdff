/*
 * web/runs.c - explanations and tests; see runs.h
 *
 * A thread for each run asks the daemon and adds the steps; any number of requests look on.  When
 * it is over it goes to web.db; the last one that looks on frees it.
 */
#include "web/runs.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "util/list.h"
#include "util/log.h"
#include "util/mem.h"
#include "web/accounts.h"
#include "web/daemon.h"
#include "web/session.h"
#include "web/steps.h"

#define RUNS_MAX  32U     /* at a time */
#define RUNS_OWN  4U      /* … of one administrator of some domains */
#define RUNS_KEPT 500     /* results of one administrator */
#define KEPT_MAX  262144U /* bytes of the steps of one result */
#define LOOKS     8U      /* streams of one */
#define PING_S    10

struct run {
    struct dl link;
    struct web *w;
    char id[SECRET_TEXT];
    char *kind, *sender, *rcpt, *relay, *admin;
    int64_t started;
    json_t *steps; /* grows, under the lock */
    bool over, passed;
    char *error;
    unsigned users; /* the thread, and the requests that look on */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct dl running;
static size_t n_running;

static void run_dispose(struct run *x) {
    json_decref(x->steps);
    free(x->kind);
    free(x->sender);
    free(x->rcpt);
    free(x->relay);
    free(x->admin);
    free(x->error);
    free(x);
}

/* Under the lock. */
static void run_drop(struct run *x) {
    if (--x->users > 0)
        return;
    dl_remove(&x->link);
    n_running--;
    run_dispose(x);
}

static void run_on_step(void *arg, struct str line) {
    struct run *x = arg;
    json_t *o = json_loadb(line.p, line.n, 0, NULL);
    pthread_mutex_lock(&lock);
    if (o != NULL)
        json_array_append_new(x->steps, o);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* The first ones, as text for the caller. */
static char *run_steps_kept(json_t *steps) {
    json_t *list = json_array(), *step;
    size_t n = 0, i;
    json_array_foreach(steps, i, step) {
        n += json_dumpb(step, NULL, 0, JSON_COMPACT);
        if (n > KEPT_MAX) {
            json_array_append_new(list, json_pack("{s:s, s:s}", "step", "explanation", "result",
                                                  "it is longer than what is kept: the rest is "
                                                  "left out"));
            break;
        }
        json_array_append(list, step);
    }
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

/* The last ones of each administrator: a program may ask for a thousand a second. */
static void run_keep(struct run *x) {
    char *steps = run_steps_kept(x->steps);
    state_run(x->w->state, NULL, NULL,
              "INSERT INTO run (id, kind, sender, recipient, admin, started, passed, steps) VALUES "
              "(?, ?, ?, ?, ?, ?, ?, ?)",
              "sssssiis", x->id, x->kind, x->sender, x->rcpt, x->admin, x->started,
              (int64_t)x->passed, steps == NULL ? "[]" : steps);
    state_run(x->w->state, NULL, NULL,
              "DELETE FROM run WHERE admin = ? AND rowid <= (SELECT rowid FROM run WHERE admin = ? "
              "ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
              "ssi", x->admin, x->admin, (int64_t)RUNS_KEPT);
    free(steps);
}

static void *run_main(void *arg) {
    struct run *x = arg;
    struct ask_end end = {0};
    char *why = NULL;
    json_t *o = json_pack("{s:s, s:o, s:o}", "cmd", x->kind, "sender", json_text(x->sender),
                          "recipient", json_text(x->rcpt));
    if (x->relay[0] != '\0')
        json_object_set_new(o, "relay", json_text(x->relay));
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    int rc = ask_daemon_within(DAEMON_PATIENCE_MS, x->w->cfg->p.queue_directory, text, run_on_step,
                               x, &end, &why);
    if (rc < 0)
        log_warn("web", "%s", why);
    free(text);
    free(why);
    pthread_mutex_lock(&lock);
    if (rc < 0)
        json_array_append_new(x->steps, json_pack("{s:s, s:b, s:s}", "step", "daemon", "pass", 0,
                                                  "result", DAEMON_SILENT));
    x->passed = rc == 0 && end.passed;
    pthread_mutex_unlock(&lock);
    run_keep(x); /* before it is over: a request that comes then finds it there */
    pthread_mutex_lock(&lock);
    x->over = true;
    pthread_cond_broadcast(&changed);
    run_drop(x);
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Under the lock. */
static size_t runs_of(const char *admin) {
    size_t n = 0;
    DL_EACH (it, &running)
        n += strcmp(DL_OWNER(it, struct run, link)->admin, admin) == 0;
    return n;
}

/* Room for one more?  An administrator of some domains cannot fill it for all others.  Under the
 * lock. */
static bool enter(struct run *x, bool global) {
    pthread_attr_t attr;
    pthread_t thread;
    if (running.next == NULL)
        dl_init(&running);
    if (n_running >= RUNS_MAX || (!global && runs_of(x->admin) >= RUNS_OWN))
        return false;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    dl_push(&running, &x->link);
    n_running++;
    x->users = 1;
    bool ok = pthread_create(&thread, &attr, run_main, x) == 0;
    pthread_attr_destroy(&attr);
    if (!ok) {
        dl_remove(&x->link);
        n_running--;
    }
    return ok;
}

static char *run_lowered(const char *s) {
    char *c = mem_strdup(s == NULL ? "" : s);
    str_lower(c, strlen(c));
    return c;
}

/* An address, or nothing where it may be empty. */
static bool address_ok(const char *s, bool may_be_empty) {
    struct str a = str_of(s);
    return a.n == 0 ? may_be_empty
                    : a.n <= 320 && !str_has_control(a) && (a.p[0] == '<' || str_chr(a, '@') > 0);
}

void run_start(struct req *r) {
    const char *kind = req_text(r, "kind"), *relay = req_text(r, "relay");
    char *sender = run_lowered(req_text(r, "sender"));
    const char *rcpt = req_text(r, "recipient");
    rcpt = rcpt == NULL ? "" : rcpt;
    relay = relay == NULL ? "" : relay;
    bool known = kind != NULL && (strcmp(kind, "explain") == 0 || strcmp(kind, "test") == 0);
    if (!known || !address_ok(sender, false) || !address_ok(rcpt, true) || strlen(relay) > 255) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST,
                   "kind is explain or test; sender and recipient are mail addresses.");
        free(sender);
        return;
    }
    if (!r->who.global && (relay[0] != '\0' || sender[0] == '<')) {
        reply_fail(r, MHD_HTTP_FORBIDDEN, "Permission denied.");
        free(sender);
        return;
    }
    if (!accounts_may(r, sender)) {
        free(sender);
        return;
    }
    struct run *x = MEM_NEW(struct run);
    *x = (struct run){.w = r->w,
                      .kind = mem_strdup(kind),
                      .sender = sender,
                      .rcpt = mem_strdup(rcpt),
                      .relay = mem_strdup(relay),
                      .admin = mem_strdup(r->who.admin),
                      .started = now_s(),
                      .steps = json_array()};
    secret_new(x->id);
    x->id[16] = '\0'; /* not a secret: who may see it is asked again */
    reply_data(r, json_pack("{s:s}", "id", x->id));
    pthread_mutex_lock(&lock);
    bool ok = enter(x, r->who.global);
    pthread_mutex_unlock(&lock);
    if (ok)
        return;
    reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "Too many tests are running: try again.");
    run_dispose(x);
}

/* -- looking on -- */

struct look {
    struct run *x; /* NULL: it was over before, and these are its steps */
    json_t *kept;
    size_t next;
    struct who who; /* of a running one: its key only */
    bool global, ended, passed;
};

static void add_event(struct sbuf *out, const char *name, json_t *o) {
    char *text = json_dumps(o, JSON_COMPACT);
    sbuf_printf(out, "event: %s\ndata: %s\n\n", name, text == NULL ? "{}" : text);
    free(text);
    json_decref(o);
}

static void add_step(struct look *k, json_t *steps, struct sbuf *out) {
    json_t *step = steps_shown(steps, k->next++, k->global);
    if (step != NULL)
        add_event(out, "step", step);
}

static void add_end(struct look *k, bool passed, struct sbuf *out) {
    add_event(out, "end", json_pack("{s:b}", "passed", passed));
    k->ended = true;
}

static bool next_kept(void *arg, struct sbuf *out) {
    struct look *k = arg;
    if (k->ended)
        return false;
    if (k->next < json_array_size(k->kept))
        add_step(k, k->kept, out);
    else
        add_end(k, k->passed, out);
    return true;
}

static bool next_event(void *arg, struct sbuf *out) {
    struct look *k = arg;
    struct run *x = k->x;
    struct timespec until;
    int rc = 0;
    if (k->ended || !session_lasts(x->w, &k->who))
        return false;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PING_S;
    pthread_mutex_lock(&lock);
    while (k->next == json_array_size(x->steps) && !x->over && rc == 0)
        rc = pthread_cond_timedwait(&changed, &lock, &until);
    if (k->next < json_array_size(x->steps)) {
        add_step(k, x->steps, out);
    } else if (x->over) {
        add_end(k, x->passed, out);
    } else {
        sbuf_add_c(out, ": still running\n\n");
    }
    pthread_mutex_unlock(&lock);
    return true;
}

static void look_done(void *arg) {
    struct look *k = arg;
    pthread_mutex_lock(&lock);
    if (k->x != NULL)
        run_drop(k->x);
    pthread_mutex_unlock(&lock);
    json_decref(k->kept);
    free(k);
}

static json_t *describe(const char *id, const char *kind, const char *sender, const char *rcpt,
                        int64_t started, bool over, bool passed, json_t *steps, bool global) {
    json_t *list = steps_all_shown(steps, global);
    return json_pack("{s:s, s:s, s:o, s:o, s:I, s:b, s:b, s:o}", "id", id, "kind", kind, "sender",
                     json_text(sender), "recipient", json_text(rcpt), "started",
                     (json_int_t)started, "over", over, "passed", passed, "steps", list);
}

static struct run *find_running(const char *id) {
    if (running.next == NULL)
        return NULL;
    DL_EACH (it, &running) {
        struct run *x = DL_OWNER(it, struct run, link);
        if (strcmp(x->id, id) == 0)
            return x;
    }
    return NULL;
}

/* Under the lock, which is given up. */
static void show_running(struct req *r, struct run *x) {
    char *sender = mem_strdup(x->sender);
    bool stream = req_wants_stream(r), crowded = ++x->users > LOOKS + 1; /* the thread, too */
    pthread_mutex_unlock(&lock);
    bool may = r->who.global || accounts_may(r, sender);
    free(sender);
    if (may && stream && crowded) {
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "Too many look on.");
        may = false;
    }
    if (may && stream) {
        struct look *k = MEM_NEW(struct look);
        *k = (struct look){.x = x,
                           .global = r->who.global,
                           .who = {.token = r->who.token, .global = r->who.global}};
        memcpy(k->who.key, r->who.key, sizeof k->who.key);
        reply_stream(r, next_event, look_done, k);
        return;
    }
    pthread_mutex_lock(&lock);
    if (may)
        reply_data(r, describe(x->id, x->kind, x->sender, x->rcpt, x->started, x->over, x->passed,
                               x->steps, r->who.global));
    run_drop(x);
    pthread_mutex_unlock(&lock);
}

struct kept {
    char *kind, *sender, *rcpt;
    int64_t started;
    bool passed;
    json_t *steps;
};

static void take_kept(void *arg, sqlite3_stmt *row) {
    struct kept *k = arg;
    k->kind = mem_strdup(state_text(row, 0));
    k->sender = mem_strdup(state_text(row, 1));
    k->rcpt = mem_strdup(state_text(row, 2));
    k->started = sqlite3_column_int64(row, 3);
    k->passed = sqlite3_column_int(row, 4) != 0;
    k->steps = json_loads(state_text(row, 5), 0, NULL);
}

static void show_kept(struct req *r) {
    struct kept k = {0};
    state_run(r->w->state, take_kept, &k,
              "SELECT kind, sender, recipient, started, passed, steps FROM run WHERE id = ?", "s",
              r->arg);
    if (k.kind == NULL) {
        reply_fail(
            r, MHD_HTTP_NOT_FOUND,
            "There is no such result: the last %d of each administrator are kept, for a month.",
            RUNS_KEPT);
    } else if (r->who.global || accounts_may(r, k.sender)) {
        if (req_wants_stream(r)) {
            struct look *look = MEM_NEW(struct look);
            *look = (struct look){
                .kept = json_incref(k.steps), .global = r->who.global, .passed = k.passed};
            reply_stream(r, next_kept, look_done, look);
        } else {
            reply_data(r, describe(r->arg, k.kind, k.sender, k.rcpt, k.started, true, k.passed,
                                   k.steps, r->who.global));
        }
    }
    json_decref(k.steps);
    free(k.kind);
    free(k.sender);
    free(k.rcpt);
}

void run_show(struct req *r) {
    pthread_mutex_lock(&lock);
    struct run *x = find_running(r->arg);
    if (x != NULL) {
        show_running(r, x);
        return;
    }
    pthread_mutex_unlock(&lock);
    show_kept(r);
}
