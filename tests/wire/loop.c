/*
 * tests/wire/loop.c - libuv for the simulated product
 *
 * Defines the uv_* functions that the product uses, and util/wake.h, on the world's ready list and
 * clock; libuv itself is not linked.  A turn of a loop is an iteration of libuv 1.44: timers,
 * prepare, what was ready when the loop looked, closing.  Several loops take their turns as chance
 * has it.
 */
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/wake.h"

struct uvloop {
    struct dl link;
    uv_loop_t *uv;
    bool again; /* it has run something since it last came to rest */
};

struct handle {
    struct dl link; /* world->handles */
    uv_handle_t *uv;
    struct uvloop *loop;
    bool active, closing;
    bool sent;  /* a loop's wake: wake_send was called */
    int fd;     /* poll */
    int events; /* poll: wanted */
    int seen;   /* poll: ready when the loop looked */
    bool broken;
    int64_t due_us, repeat_us; /* timer; repeat 0: fires once */
    uv_close_cb close_cb;
    union {
        void (*wake)(struct wake *w);
        uv_poll_cb poll;
        uv_timer_cb timer;
        uv_prepare_cb prepare;
    } cb;
};

struct work {
    struct dl link;
    struct uvloop *loop;
    uv_work_t *req;
    uv_work_cb run;
    uv_after_work_cb after;
    bool done;
};

static struct handle *handle_of(const void *uv) {
    return ((const uv_handle_t *)uv)->u.reserved[0];
}

static struct uvloop *loop_of(uv_loop_t *uv) {
    DL_EACH (n, &W->loops) {
        struct uvloop *l = DL_OWNER(n, struct uvloop, link);
        if (l->uv == uv)
            return l;
    }
    abort();
}

static struct handle *handle_init(uv_loop_t *loop, void *uv, uv_handle_type type) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct handle *h = calloc(1, sizeof *h);
    uv_handle_t *u = uv;
    h->uv = u;
    h->loop = loop_of(loop);
    h->fd = -1;
    u->loop = loop;
    u->type = type;
    u->flags = 0;
    u->close_cb = NULL;
    u->u.reserved[0] = h;
    dl_push(&W->handles, &h->link);
    heap_switch(side);
    return h;
}

int uv_loop_init(uv_loop_t *uv) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct uvloop *l = calloc(1, sizeof *l);
    l->uv = uv;
    dl_push(&W->loops, &l->link);
    heap_switch(side);
    return 0;
}

/* Behind a uv_loop_init alone, on a way that no scenario takes. */
int uv_loop_close(uv_loop_t *uv) {
    (void)uv;
    return UV_EBUSY;
}

int uv_run(uv_loop_t *uv, uv_run_mode mode) {
    (void)uv;
    (void)mode;
    return 0;
}

int uv_thread_create(uv_thread_t *tid, uv_thread_cb entry, void *arg) {
    (void)entry;
    (void)arg;
    *tid = 0;
    return 0;
}

int wake_init(uv_loop_t *loop, struct wake *w, void (*run)(struct wake *w)) {
    struct handle *h = handle_init(loop, &w->poll, UV_ASYNC);
    h->cb.wake = run;
    h->active = true;
    return 0;
}

void wake_send(struct wake *w) {
    handle_of(&w->poll)->sent = true;
    W->busy++;
}

int uv_prepare_init(uv_loop_t *loop, uv_prepare_t *uv) {
    handle_init(loop, uv, UV_PREPARE);
    return 0;
}

int uv_prepare_start(uv_prepare_t *uv, uv_prepare_cb cb) {
    struct handle *h = handle_of(uv);
    h->cb.prepare = cb;
    h->active = true;
    return 0;
}

int uv_prepare_stop(uv_prepare_t *uv) {
    handle_of(uv)->active = false;
    return 0;
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *uv) {
    handle_init(loop, uv, UV_TIMER);
    return 0;
}

int uv_timer_start(uv_timer_t *uv, uv_timer_cb cb, uint64_t timeout, uint64_t repeat) {
    struct handle *h = handle_of(uv);
    if (h->closing || cb == NULL)
        return UV_EINVAL;
    h->cb.timer = cb;
    h->due_us = W->now_us + (int64_t)timeout * 1000;
    h->repeat_us = (int64_t)repeat * 1000;
    h->active = true;
    return 0;
}

int uv_timer_stop(uv_timer_t *uv) {
    handle_of(uv)->active = false;
    return 0;
}

int uv_poll_init(uv_loop_t *loop, uv_poll_t *uv, int fd) {
    struct handle *h = handle_init(loop, uv, UV_POLL);
    h->fd = fd;
    return 0;
}

int uv_poll_start(uv_poll_t *uv, int events, uv_poll_cb cb) {
    struct handle *h = handle_of(uv);
    if (h->closing)
        return UV_EINVAL;
    h->cb.poll = cb;
    h->events = events;
    h->active = events != 0;
    return 0;
}

int uv_poll_stop(uv_poll_t *uv) {
    struct handle *h = handle_of(uv);
    h->active = false;
    h->events = 0;
    return 0;
}

void uv_close(uv_handle_t *uv, uv_close_cb cb) {
    struct handle *h = handle_of(uv);
    if (h->closing) {
        wire_fail(W, "uv_close was called twice for one handle");
        return;
    }
    h->closing = true;
    h->active = false;
    h->close_cb = cb;
}

int uv_is_active(const uv_handle_t *uv) {
    return handle_of(uv)->active;
}

int uv_is_closing(const uv_handle_t *uv) {
    return handle_of(uv)->closing;
}

void uv_unref(uv_handle_t *uv) {
    (void)uv;
}

void uv_ref(uv_handle_t *uv) {
    (void)uv;
}

int uv_queue_work(uv_loop_t *loop, uv_work_t *req, uv_work_cb run, uv_after_work_cb after) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct work *k = calloc(1, sizeof *k);
    k->loop = loop_of(loop);
    k->req = req;
    k->run = run;
    k->after = after;
    dl_push(&W->works, &k->link);
    W->busy++;
    heap_switch(side);
    return 0;
}

/* ---- a loop's turn ---- */

static bool timer_due(const struct handle *h) {
    return h->uv->type == UV_TIMER && h->active && h->due_us <= W->now_us;
}

static void run_timers(struct uvloop *l) {
    DL_EACH_SAFE (n, &W->handles) {
        struct handle *h = DL_OWNER(n, struct handle, link);
        if (h->loop != l || !timer_due(h))
            continue;
        if (h->repeat_us > 0) {
            h->due_us = W->now_us + h->repeat_us;
        } else {
            h->active = false;
            W->busy++;
        }
        l->again = true;
        h->cb.timer((uv_timer_t *)h->uv);
    }
}

static void run_prepares(struct uvloop *l) {
    DL_EACH_SAFE (n, &W->handles) {
        struct handle *h = DL_OWNER(n, struct handle, link);
        if (h->loop == l && h->uv->type == UV_PREPARE && h->active)
            h->cb.prepare((uv_prepare_t *)h->uv);
    }
}

/* What epoll would say of a poll handle, in libuv's words. */
static int poll_seen(const struct handle *h, bool *broken) {
    unsigned ready = net_ready(h->fd);
    int events = 0;
    *broken = (ready & SEEN_BROKEN) != 0;
    if ((ready & SEEN_IN) != 0)
        events |= UV_READABLE;
    if ((ready & SEEN_OUT) != 0)
        events |= UV_WRITABLE;
    return events & h->events;
}

static bool handle_ready(const struct handle *h) {
    bool broken;
    if (h->uv->type == UV_ASYNC)
        return h->sent && h->active;
    if (h->uv->type == UV_POLL)
        return h->active && (poll_seen(h, &broken) != 0 || broken);
    return false;
}

static void run_poll(struct handle *h) {
    int events = h->seen & h->events;
    if (h->broken) { /* as libuv: an error stops the handle and is told once */
        uv_poll_stop((uv_poll_t *)h->uv);
        h->cb.poll((uv_poll_t *)h->uv, UV_EBADF, 0);
    } else if (events != 0) {
        h->cb.poll((uv_poll_t *)h->uv, 0, events);
    }
}

static void run_handle(struct handle *h) {
    if (!h->active)
        return;
    h->loop->again = true;
    W->busy++;
    if (h->uv->type == UV_POLL) {
        run_poll(h);
    } else if (h->sent) {
        h->sent = false;
        h->cb.wake(DL_OWNER(h->uv, struct wake, poll));
    }
}

static void run_ready(struct uvloop *l) {
    struct handle *ready[256];
    size_t n_ready = 0;
    DL_EACH (n, &W->handles) {
        struct handle *h = DL_OWNER(n, struct handle, link);
        if (h->loop != l || !handle_ready(h) || n_ready == 256)
            continue;
        if (h->uv->type == UV_POLL)
            h->seen = poll_seen(h, &h->broken);
        ready[n_ready++] = h;
    }
    for (; n_ready > 0; n_ready--) {
        size_t i = wire_rnd(&W->chance, n_ready);
        run_handle(ready[i]);
        ready[i] = ready[n_ready - 1];
    }
}

static void run_closing(struct uvloop *l) {
    DL_EACH_SAFE (n, &W->handles) {
        struct handle *h = DL_OWNER(n, struct handle, link);
        if (h->loop != l || !h->closing)
            continue;
        dl_remove(&h->link);
        l->again = true;
        W->busy++;
        if (h->close_cb != NULL)
            h->close_cb(h->uv);
        free(h);
    }
}

static void loop_turn(void *arg) {
    struct uvloop *l = arg;
    enum heap_side side = heap_switch(HEAP_PRODUCT);
    l->again = false;
    run_timers(l);
    run_prepares(l);
    run_ready(l);
    run_closing(l);
    heap_switch(side);
}

void loops_wake(struct wire_world *w) {
    DL_EACH (n, &w->loops)
        DL_OWNER(n, struct uvloop, link)->again = true;
}

static void work_step(void *arg) {
    struct work *k = arg;
    enum heap_side side = heap_switch(HEAP_PRODUCT);
    W->busy++;
    if (!k->done) {
        k->done = true;
        k->run(k->req);
    } else {
        dl_remove(&k->link);
        k->loop->again = true;
        if (k->after != NULL)
            k->after(k->req, 0);
    }
    heap_switch(side);
}

void loops_collect(struct wire_world *w, struct choices *c) {
    DL_EACH (n, &w->handles) {
        struct handle *h = DL_OWNER(n, struct handle, link);
        if (timer_due(h) || handle_ready(h) || h->closing)
            h->loop->again = true;
    }
    DL_EACH (n, &w->loops) {
        struct uvloop *l = DL_OWNER(n, struct uvloop, link);
        if (l->again)
            choice_add(c, loop_turn, l);
    }
    DL_EACH (n, &w->works)
        choice_add(c, work_step, DL_OWNER(n, struct work, link));
}

void loops_next(const struct wire_world *w, int64_t *once, int64_t *periodic) {
    DL_EACH (n, &w->handles) {
        const struct handle *h = DL_OWNER(n, struct handle, link);
        if (h->uv->type != UV_TIMER || !h->active)
            continue;
        int64_t *at = h->repeat_us > 0 ? periodic : once;
        if (h->due_us < *at)
            *at = h->due_us;
    }
}

void loops_drop(struct wire_world *w) {
    dl_init(&w->loops);
    dl_init(&w->handles);
    dl_init(&w->works);
}
