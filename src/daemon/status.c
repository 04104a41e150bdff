/*
 * daemon/status.c - what systemctl status shows; see status.h
 */
#include "daemon/status.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#include "util/clock.h"
#include "util/mem.h"
#include "util/notify.h"

#define COUNT_MS 1000
#define WATCH_MS 2000

/* In memory that supervisor and relay share. */
struct status_page {
    atomic_uint_least32_t waiting; /* messages in the queue */
    atomic_uint_least32_t resting; /* relay hosts that no mail is tried at for now */
    atomic_bool halted;            /* nothing is sent: the disk takes no notes */
};

static struct {
    struct status_page *page; /* NULL: the status is not told */
    uint32_t waiting, resting;
    bool serving, refused, halted;
    int64_t again_ms;
} status;

void status_begin(void) {
    if (!notify_wanted())
        return;
    void *page =
        mmap(NULL, sizeof *status.page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    status.page = page == MAP_FAILED ? NULL : page;
}

/* -- in the relay -- */

struct status_counter {
    uv_timer_t timer;
    const struct sched *sched;
};

static void status_tick(uv_timer_t *t) {
    const struct status_counter *c = t->data;
    struct sched_stats st;
    size_t pos = 0;
    uint32_t resting = 0;
    int64_t now_ms = clock_mono_ms();
    for (const struct hop *h; (h = kset_next(&sched_tally(c->sched)->hops, &pos)) != NULL;)
        resting += h->resting_ms > now_ms;
    sched_stats(c->sched, &st);
    atomic_store(&status.page->waiting, (uint32_t)(st.active + st.deferred + st.hold));
    atomic_store(&status.page->resting, resting);
    atomic_store(&status.page->halted, st.halted);
}

void status_count(struct loop *l, const struct sched *s) {
    if (status.page == NULL)
        return;
    struct status_counter *c = MEM_NEW(struct status_counter); /* as long as the process */
    c->sched = s;
    c->timer.data = c;
    uv_timer_init(&l->uv, &c->timer);
    uv_timer_start(&c->timer, status_tick, 0, COUNT_MS);
}

/* -- in the supervisor -- */

/* True if they are not what was told last. */
static bool numbers_changed(void) {
    uint32_t waiting = 0, resting = 0;
    bool halted = false;
    if (status.page != NULL && status.serving) {
        waiting = atomic_load(&status.page->waiting);
        resting = atomic_load(&status.page->resting);
        halted = atomic_load(&status.page->halted);
    }
    bool changed =
        waiting != status.waiting || resting != status.resting || halted != status.halted;
    status.halted = halted;
    status.waiting = waiting;
    status.resting = resting;
    return changed;
}

static void status_say(const char *lines) {
    char text[384], resting[48] = "", numbers[80] = "";
    if (status.resting > 0)
        snprintf(resting, sizeof resting, ", %lu relay%s resting", (unsigned long)status.resting,
                 status.resting == 1 ? "" : "s");
    if (status.waiting > 0 || status.resting > 0)
        snprintf(numbers, sizeof numbers, ": %lu waiting%s", (unsigned long)status.waiting,
                 resting);
    snprintf(text, sizeof text, "%sSTATUS=%s%s%s%s", lines,
             status.serving ? "serving" : "no client is let in: the log says why", numbers,
             status.halted
                 ? "; nothing is sent: the disk takes down nothing of what becomes of mail"
                 : "",
             status.refused ? "; the new configuration was refused: see posthouse check" : "");
    notify_send(text);
    status.again_ms = clock_mono_ms() + WATCH_MS;
}

void status_send(const char *lines, bool serving, bool refused) {
    status.serving = serving;
    status.refused = refused;
    numbers_changed();
    status_say(lines);
}

int status_watch(void) {
    if (status.page == NULL || !status.serving)
        return -1;
    int64_t left_ms = status.again_ms - clock_mono_ms();
    if (left_ms <= 0) {
        status.again_ms = clock_mono_ms() + WATCH_MS;
        left_ms = WATCH_MS;
        if (numbers_changed())
            status_say("");
    }
    return (int)left_ms;
}
