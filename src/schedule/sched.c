/*
 * schedule/sched.c - queued messages: arrival, recovery, rounds, and what takes recipients back
 */
#include "schedule/sched.h"

#include <stdlib.h>

#include "report/logline.h"
#include "route/keys.h"
#include "schedule/content.h"
#include "schedule/dest.h"
#include "schedule/dispatch.h"
#include "schedule/finish.h"
#include "schedule/forward.h"
#include "schedule/job.h"
#include "schedule/msg.h"
#include "schedule/rcpt.h"
#include "schedule/timers.h"
#include "util/clock.h"
#include "util/fs.h"
#include "util/mem.h"

/* Shorter records of progress are written whole: an older version reads them. */
#define STEPS_FROM 4096
#define TICK_MS    200
#define SLICE_MS   5
/* With so many questions for routes open, what is due waits, so that new mail need not wait behind
 * all of it; slow tables let some more of it go with each tick. */
#define ROUTING_MAX  250U
#define ROUTING_TICK 50

static void msg_defer_here(struct msg *m, uint32_t i, enum mail_cause cause, const char *dsn,
                           const char *text) {
    struct mailerr e = {0};
    mailerr_set(&e, MAIL_DEFERRED, dsn, "%s", text);
    mailerr_blame(&e, PHASE_ROUTE, BLAME_OURSELVES);
    e.cause = cause;
    msg_untried(m, i, NULL, &e);
    mailerr_free(&e);
}

static struct job *job_forming(const struct msg *m) {
    struct job *j = dl_empty(&m->jobs) ? NULL : DL_OWNER(m->jobs.next, struct job, of_msg);
    return j != NULL && j->at == JOB_FORMING ? j : NULL;
}

/* The questions for its routes are over, answered or not. */
static void msg_routes_end(struct msg *m) {
    free(m->routes);
    m->routes = NULL;
}

/* Every recipient has its route: the jobs may go. */
static void msg_jobs_go(struct msg *m) {
    struct sched *s = m->s;
    msg_routes_end(m);
    if (m->expansions == NULL || !dl_empty(&m->jobs)) /* else they go on at once */
        msg_set_again(m, false);
    m->open++; /* dispatching may give results at once: the message must outlive the loop */
    for (struct job *j; (j = job_forming(m)) != NULL;) {
        struct dest *d = j->d;
        if (m->settings != s->settings) {
            m->overtaken = true;
            job_route_anew(j);
            continue;
        }
        job_enqueue(j);
        dest_dispatch(s, d);
    }
    msg_recipients_back(m, 1);
}

/* True if the recipient goes to a destination; else it has its result. */
static bool msg_take_route(struct msg *m, uint32_t i, const struct route *r) {
    struct sched *s = m->s;
    if (r->rc == ROUTE_FAILED)
        msg_defer_here(m, i, r->is_told ? CAUSE_SETTING : CAUSE_LOOKUP, "4.3.0", route_failure(r));
    else if (r->rc == ROUTE_BAD)
        msg_defer_here(m, i, CAUSE_SETTING, "4.3.5", r->why.p);
    else if (r->here.status != MAIL_UNSET)
        msg_untried(m, i, r->transport, &r->here);
    else if (keys_has_word(s->cfg->p.defer_transports, r->transport->name))
        msg_defer_here(m, i, CAUSE_TRANSPORT_WAITS, "4.3.2", "deferred transport");
    else
        return true;
    return false;
}

static void on_more(uv_timer_t *t);

/* n questions for routes have been answered, or are asked no more. */
static void routing_less(struct sched *s, size_t n) {
    s->routing -= n;
    if (s->due_waits && s->routing <= ROUTING_MAX / 2)
        uv_timer_start(&s->more, on_more, 0, 0);
}

static void msg_routed(struct msg *m) {
    routing_less(m->s, 1);
    if (--m->routing == 0)
        msg_jobs_go(m);
}

static void msg_on_alias(void *arg, struct alias_result *r) {
    struct routing *g = arg;
    struct msg *m = g->m;
    g->alias = NULL;
    m->open--;
    if (r->rc == ALIAS_OK)
        forward_keep(m, g->rcpt, r);
    else if (r->rc == ALIAS_FAILED)
        forward_defer(m, g->rcpt, CAUSE_LOOKUP, "4.3.0", "alias database unavailable");
    else
        forward_defer(m, g->rcpt, CAUSE_SETTING, "4.3.5", r->why.p);
    msg_routed(m);
}

static void msg_on_route(void *arg, const struct route *r) {
    struct routing *g = arg;
    struct msg *m = g->m;
    struct sched *s = m->s;
    g->query = NULL;
    if (!msg_take_route(m, g->rcpt, r)) {
        m->open--;
    } else if (r->transport->kind == SERVICE_LOCAL) {
        g->alias =
            alias_expand(s->cfg, s->lookup, m->env->rcpts[g->rcpt].addr, NULL, msg_on_alias, g);
        return;
    } else {
        job_for(m, g->rcpt, dest_get(s, r, m->env));
    }
    msg_routed(m);
}

/* How many recipients are to be routed in this round. */
static uint32_t msg_count_routed(const struct msg *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++)
        n += m->rcpts[i].state == RCPT_WAITS && !forward_is_split_off(m, i);
    return n;
}

static void msg_route(struct msg *m) {
    struct sched *s = m->s;
    m->settings = s->settings;
    m->open = m->routing = msg_count_routed(m);
    s->routing += m->routing;
    if (m->open == 0) {
        msg_finish(m);
        return;
    }
    if (m->owed) /* the order came while the content was read: it does not wait for relay hosts */
        msg_save_progress(m);
    msg_spare_body(m);
    m->routes = mem_zalloc(m->env->n_rcpts * sizeof *m->routes);
    msg_set_again(m, m->overtaken);
    m->overtaken = false;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        if (m->rcpts[i].state != RCPT_WAITS || forward_is_split_off(m, i))
            continue;
        m->routes[i] = (struct routing){.m = m, .rcpt = i};
        m->routes[i].query = route_resolve_of(s->cfg, s->lookup, m->env, m->env->rcpts[i].addr,
                                              msg_on_route, &m->routes[i]);
    }
}

/* First what is to be split off, then the rest, unless an order came in between. */
static void msg_goes_on(struct msg *m) {
    bool ordered = m->deleted || (m->flags & (PROGRESS_HOLD | PROGRESS_EXPIRE)) != 0;
    if (ordered)
        msg_finish(m);
    else if (!forward_has_split(m))
        msg_route(m);
    else if (!msg_fetch(m, msg_goes_on) && !forward_split(m, msg_goes_on))
        msg_route(m);
}

void msg_activate(struct msg *m) {
    struct sched *s = m->s;
    heap_del(s, m);
    msg_count_reasons(m, false);
    msg_set_queue(m, QUEUE_ACTIVE);
    msg_set_busy(m, true);
    m->active_us = clock_wall_us();
    m->attempts++;
    m->no_report = m->no_split = m->no_body = m->at_once = false;
    logline_active(m->env, m->left);
    if ((m->flags & PROGRESS_EXPIRE) != 0 || m->left == 0) { /* no further attempt */
        msg_finish(m);
        return;
    }
    msg_goes_on(m);
}

static void msg_stop_routing(struct msg *m) {
    uint32_t before = m->routing;
    for (uint32_t i = 0; m->routes != NULL && i < m->env->n_rcpts; i++)
        if (m->routes[i].query != NULL || m->routes[i].alias != NULL) {
            route_cancel(m->routes[i].query);
            alias_cancel(m->routes[i].alias);
            m->routing--;
            m->open--;
        }
    routing_less(m->s, before - m->routing);
    msg_routes_end(m);
    msg_set_again(m, false);
}

/* One that no session has, or NULL. */
static struct job *job_not_given(const struct msg *m) {
    DL_EACH (it, &m->jobs) {
        struct job *j = DL_OWNER(it, struct job, of_msg);
        if (j->at != JOB_GIVEN)
            return j;
    }
    return NULL;
}

void msg_recall(struct msg *m) {
    m->open++; /* the message must outlive the loops */
    msg_stop_routing(m);
    for (struct job *j; (j = job_not_given(m)) != NULL;)
        m->open -= job_withdraw(j);
    DL_EACH (it, &m->jobs)
        job_recall(DL_OWNER(it, struct job, of_msg));
    msg_recipients_back(m, 1);
}

struct add_task {
    struct task task;
    struct sched *s;
    struct envelope *env;
    struct body *body;
};

/* A message that was being received when the clock was set forward is not that much older.  (When
 * the clock was set back, it only stays that much longer.) */
static int64_t shift_on_the_way(const struct sched *s, const struct envelope *env) {
    return s->jump_us > 0 && env->arrival_us < s->jump_middle_us ? s->jump_us : 0;
}

static void run_add(struct task *t) {
    struct add_task *a = DL_OWNER(t, struct add_task, task);
    struct sched *s = a->s;
    sched_watch_clock(s);
    struct msg *m = msg_new(s, a->env, a->body);
    m->shift_us = shift_on_the_way(s, m->env);
    free(a);
    if ((m->flags & PROGRESS_HOLD) == 0) {
        msg_activate(m);
    } else {
        msg_drop_body(m);
        msg_set_queue(m, QUEUE_HOLD);
    }
}

void sched_add(struct sched *s, struct envelope *env, struct body *body) {
    struct add_task *a = MEM_NEW(struct add_task);
    a->s = s;
    a->env = env;
    a->body = body;
    a->task.run = run_add;
    loop_post(s->loop, &a->task);
}

static void run_taken(struct task *t) {
    struct attempt_taken *taken = DL_OWNER(t, struct attempt_taken, task);
    dest_taken(taken);
    attempt_taken_free(taken);
}

void sched_taken(struct sched *s, struct attempt_taken *t) {
    t->task.run = run_taken;
    loop_post(s->loop, &t->task);
}

static void run_result(struct task *t) {
    struct attempt *a = DL_OWNER(t, struct attempt, task);
    struct slot *slot = a->task_session;
    dest_result(slot->s, slot, a);
}

void sched_result(struct sched *s, void *slot, struct attempt *a) {
    a->task_session = slot;
    a->task.run = run_result;
    loop_post(s->loop, &a->task);
}

bool sched_recover(struct sched *s, struct envelope *env, struct str progress) {
    struct progress p = {0};
    if (progress.n > 0 && (!progress_decode(&p, progress) || p.n != env->n_rcpts)) {
        progress_free(&p);
        envelope_unref(env);
        return false;
    }
    struct msg *m = msg_new(s, env, NULL);
    /* The clock may have been set back since.  A message that came later than now is as old as if
     * it had come now: else it would not expire before the clock is where it was. */
    int64_t now = clock_wall_us(), latest = now + s->cfg->p.maximal_backoff_time * 1000000;
    if (env->arrival_us > now)
        m->shift_us = now - env->arrival_us;
    if (progress.n > 0) {
        msg_restore(m, &p);
        m->next_us = p.next_us < latest ? p.next_us : latest;
        if ((m->flags & PROGRESS_EXPIRE) != 0)
            m->next_us = 0; /* the order is carried out at once, whatever the clock says */
    }
    progress_free(&p);
    msg_count_reasons(m, true);
    if ((m->flags & PROGRESS_HOLD) != 0)
        msg_set_queue(m, QUEUE_HOLD);
    else
        heap_put(s, m);
    return true;
}

/* May the first message in the heap go? */
static bool routing_has_room(struct sched *s) {
    if (s->routing < ROUTING_MAX)
        return true;
    if (s->routing_credit <= 0)
        return false;
    s->routing_credit -= s->heap[0]->env->n_rcpts;
    return true;
}

void sched_run_due(struct sched *s) {
    int64_t now = clock_wall_us(), end = clock_mono_ms() + SLICE_MS;
    for (unsigned i = 0; s->heap_n > 0 && s->heap[0]->next_us <= now; i++) {
        s->due_waits = !routing_has_room(s);
        if (s->due_waits)
            return;
        if (i % 64 == 63 && clock_mono_ms() >= end) {
            uv_timer_start(&s->more, on_more, 0, 0);
            return;
        }
        msg_activate(s->heap[0]);
    }
    s->due_waits = false;
}

static void on_more(uv_timer_t *t) {
    sched_run_due(t->data);
}

static void on_tick(uv_timer_t *t) {
    struct sched *s = t->data;
    sched_watch_clock(s);
    if (s->routing_credit <= 0)
        s->routing_credit += ROUTING_TICK;
    sched_run_due(s);
    dispatch_tick(s, loop_now_ms(s->loop));
    tally_tick(&s->tally, clock_wall_us());
}

struct sched *sched_new(struct loop *l, struct lookup *k, struct config *cfg,
                        const struct sched_ops *ops) {
    struct sched *s = MEM_NEW(struct sched);
    s->loop = l;
    s->lookup = k;
    s->cfg = config_ref(cfg);
    s->ops = *ops;
    s->slots_max = (size_t)fs_descriptors_max() / 4; /* for the sessions of one transport */
    s->add = sched_add;
    s->steps_from = STEPS_FROM;
    dl_init(&s->idle_dests);
    dl_init(&s->idle_slots);
    dl_init(&s->paced);
    dl_init(&s->given);
    dl_init(&s->stirred);
    dl_init(&s->waits);
    dl_init(&s->fetches);
    return s;
}

void sched_set_spool(struct sched *s, struct spool *sp) {
    s->spool = sp;
}

void sched_start(struct sched *s) {
    uv_timer_init(&s->loop->uv, &s->tick);
    uv_timer_init(&s->loop->uv, &s->more);
    s->tick.data = s->more.data = s;
    s->drift_us = clock_wall_us() - clock_mono_ms() * 1000;
    uv_timer_start(&s->tick, on_tick, 1, TICK_MS);
}

static void sched_change(struct sched *s) {
    s->settings++;
    s->changed_us = clock_wall_us();
}

void sched_route_anew(struct sched *s) {
    sched_change(s);
    DL_EACH (it, &s->given)
        job_check(DL_OWNER(it, struct job, link));
    dest_route_all_anew(s);
}

bool sched_asks_again(const struct sched *s) {
    return s->n_again > 0 || s->due_waits;
}

/* What sessions have not begun comes back. */
static void sched_recall_all(struct sched *s) {
    DL_EACH (it, &s->given) {
        struct job *j = DL_OWNER(it, struct job, link);
        job_check_end(j);
        job_recall(j);
    }
}

void sched_reload(struct sched *s, struct config *cfg) {
    config_unref(s->cfg);
    s->cfg = config_ref(cfg);
    dest_wake_all(s);
    sched_change(s);
    sched_recall_all(s);
    dest_route_all_anew(s);
}

bool sched_stop(struct sched *s) {
    if (!s->stopping) {
        s->stopping = true;
        sched_recall_all(s);
    }
    DL_EACH (it, &s->given)
        if (atomic_load(&DL_OWNER(it, struct job, link)->given->whole))
            return false;
    return true;
}

const struct config *sched_config(const struct sched *s) {
    return s->cfg;
}
