/* What the unit tests of schedule share: a scheduler with a spool and sessions that the test plays.
 */
#ifndef PH_TESTS_SCHEDULE_RIG_H
#define PH_TESTS_SCHEDULE_RIG_H

#include "unit.h"

#include <errno.h>
#include <unistd.h>

#include "../fuzz/bundle.h"
#include "mail/address.h"
#include "schedule/dest.h"
#include "schedule/dispatch.h"
#include "schedule/forward.h"
#include "schedule/msg.h"
#include "schedule/rcpt.h"
#include "schedule/sched.h"
#include "spool/inside.h"
#include "spool/spool.h"
#include "util/clock.h"
#include "util/mem.h"

/* A program uses a part of what follows. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

static struct sched *sched_make(void) {
    static const struct sched_ops ops;
    struct config *cfg =
        bundle_config(STR_LIT("myhostname = mta.example\n"), STR_LIT("smtp unix - - n - - smtp\n"));
    return sched_new(loop_new(0), NULL, cfg, &ops);
}

/* ---- a scheduler with a spool and sessions that the test plays ---- */

#define RIG_GIVEN 128

struct rig {
    struct sched *s;
    struct spool *spool;
    struct attempt *given[RIG_GIVEN]; /* with a session, in the order of giving */
    size_t n_given;
    size_t n_sessions;
    size_t n_recalls;
};

struct rig_session {
    struct rig *rig;
    void *slot;
};

static void *rig_session_new(void *arg, void *slot) {
    struct rig_session *x = MEM_NEW(struct rig_session);
    x->rig = arg;
    x->slot = slot;
    x->rig->n_sessions++;
    return x;
}

static void rig_session_give(void *session, struct attempt *a) {
    struct rig_session *x = session;
    a->task_session = x->slot;
    x->rig->given[x->rig->n_given++] = a;
}

static void rig_session_release(void *session) {
    struct rig_session *x = session;
    x->rig->n_sessions--;
    free(x);
}

static void rig_session_recall(void *session) {
    ((struct rig_session *)session)->rig->n_recalls++;
}

static bool rig_no_sync; /* the disk makes nothing durable */
static int rig_sync(void *arg, int fd) {
    return rig_no_sync ? -EIO : spool_io_disk.datasync(arg, fd);
}

static bool rig_no_room; /* the disk takes nothing */
static ssize_t rig_write(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    return rig_no_room ? -ENOSPC : spool_io_disk.pwritev(arg, fd, iov, n, off);
}

static void rig_found(void *arg, const struct spool_found *f) {
    struct rig *r = arg;
    struct envelope *env = envelope_decode(f->meta);
    assert_non_null(env);
    assert_true(sched_recover(r->s, env, f->progress));
}

static struct config *rig_config(const char *main_cf) {
    struct sbuf b = {0};
    sbuf_printf(&b, "myhostname = mta.example\nsender_dependent_relayhost_maps =\n%s", main_cf);
    struct config *cfg = bundle_config(
        sbuf_str(&b),
        STR_LIT("smtp unix - - n - - smtp\nslow unix - - n - - smtp\n"
                "few unix - - n - 2 smtp\nunlimited unix - - n - 0 smtp\none unix - - n - 1 smtp\n"
                "error unix - - n - - error\ndiscard unix - - n - - discard\nretry "
                "unix - - n - - error\nbounce unix - - n - 0 bounce\n"));
    sbuf_free(&b);
    return cfg;
}

/* What the spool in dir has is found again. */
static void rig_open(struct rig *r, const char *main_cf) {
    struct sched_ops ops = {.session_new = rig_session_new,
                            .session_give = rig_session_give,
                            .session_release = rig_session_release,
                            .session_recall = rig_session_recall,
                            .arg = r};
    struct spool_conf conf = {dir, 1U << 20};
    static struct spool_io io;
    struct loop *loop = loop_new(0);
    char *why;
    io = spool_io_disk;
    io.datasync = rig_sync;
    io.pwritev = rig_write;
    rig_no_sync = rig_no_room = false;
    *r = (struct rig){0};
    r->s = sched_new(loop, lookup_new(loop), rig_config(main_cf), &ops);
    assert_int_equal(spool_open(&r->spool, &conf, &io, rig_found, r, &why), 0);
    sched_set_spool(r->s, r->spool);
    r->s->drift_us = clock_wall_us() - clock_mono_ms() * 1000;
}

static void rig_loop(struct rig *r) {
    for (int i = 0; i < 20; i++)
        uv_run(&r->s->loop->uv, UV_RUN_NOWAIT);
}

/* Until nothing is left to do at once. */
static void rig_turn(struct rig *r) {
    for (int i = 0; i < 10; i++) {
        rig_loop(r);
        spool_turn(r->spool);
    }
    rig_loop(r);
}

static uint64_t rig_id(void) {
    uint64_t id;
    char qid[QID_MAX];
    qid_next(false, &id, qid);
    return id;
}

static void rig_new_done(struct spool_op *op) {
    assert_int_equal(op->rc, 0);
}

static uint32_t rig_notify;     /* of each recipient of the next message */
static const char *rig_content; /* of the messages to come; NULL: some */

/* A message to those addresses (separated by blanks), stored and queued; the message, if it is
 * queued still when nothing more happens by itself. */
static struct msg *rig_mail(struct rig *r, const char *sender, const char *rcpts) {
    struct rcpt list[8] = {0};
    struct envelope tmpl = {.id = rig_id(), .arrival_us = clock_wall_us()};
    struct sbuf content = {0};
    struct str rest = str_of(rcpts), word;
    tmpl.sender = str_of(sender);
    tmpl.rcpts = list;
    while (str_split(&rest, " ", &word))
        list[tmpl.n_rcpts++] = (struct rcpt){.addr = word, .notify = rig_notify};
    rig_notify = 0;
    snprintf(tmpl.qid, sizeof tmpl.qid, "%llX", (unsigned long long)tmpl.id);
    sbuf_add_c(&content, rig_content == NULL ? "S: x\r\n\r\ny\r\n" : rig_content);
    tmpl.size = content.n;
    struct spool_op op = {.kind = SPOOL_NEW, .id = tmpl.id, .done = rig_new_done};
    struct envelope *env = envelope_make(&tmpl);
    envelope_encode(env, &op.meta);
    op.body = body_from_buf(&content);
    spool_submit(r->spool, &op);
    spool_turn(r->spool);
    sbuf_free(&op.meta);
    sched_add(r->s, env, op.body);
    rig_turn(r);
    return itab_get(&r->s->msgs, tmpl.id);
}

struct rig_result {
    enum mail_status status;
    enum mail_blame blame;
    const char *dsn, *text;
    enum mail_cause cause;
    const char *reply; /* the host's, or NULL */
};

/* The oldest attempt comes back, with a result for each of its recipients. */
static void rig_answer(struct rig *r, const struct rig_result *results) {
    struct attempt *a = r->given[0];
    assert_true(r->n_given > 0);
    memmove(r->given, r->given + 1, --r->n_given * sizeof(struct attempt *));
    for (uint32_t i = 0; i < a->n; i++) {
        mailerr_set(&a->res[i], results[i].status, results[i].dsn, "%s", results[i].text);
        mailerr_blame(&a->res[i], PHASE_CONNECT, results[i].blame);
        a->res[i].cause = results[i].cause;
        if (results[i].reply != NULL)
            mailerr_remote(&a->res[i], "host", str_of(results[i].reply));
        a->tried[i] = true;
    }
    a->outcome = ATTEMPT_TRIED;
    sched_result(r->s, a->task_session, a);
    rig_turn(r);
}

/* The process ends as if it were killed: only what is in the spool counts. */
static void rig_close(struct rig *r) {
    spool_close(r->spool);
}

static const char *why_waits(const struct msg *m, uint32_t i) {
    assert_non_null(m->rcpts[i].why);
    return m->rcpts[i].why->err.text;
}

static const struct rig_result sent = {MAIL_SENT, BLAME_MESSAGE, "2.0.0", "250 ok"};
static const struct rig_result gone = {MAIL_BOUNCED, BLAME_RECIPIENT, "5.1.1",
                                       "host said: 550 no ann@away.example here"};
static const struct rig_result refused = {MAIL_DEFERRED, BLAME_SITE, "4.4.1",
                                          "connect to far.example: Connection refused",
                                          CAUSE_REFUSED};

static size_t order_one(struct rig *r, enum sched_act act, const struct msg *m) {
    struct htab ids = {0};
    struct sched_filter f = SCHED_ALL;
    htab_put(&ids, str_of(m->env->qid), r);
    f.ids = &ids;
    size_t n = sched_act(r->s, act, &f, NULL);
    htab_free(&ids);
    return n;
}

static void given_to(const struct rig *r, size_t i, const char *rcpt) {
    const struct attempt *a = r->given[i];
    assert_true(i < r->n_given);
    assert_str(a->env->rcpts[a->idx[0]].addr, rcpt);
}

#define RIG(test) cmocka_unit_test_setup_teardown(test, dir_make, dir_remove)

#pragma GCC diagnostic pop

#endif
