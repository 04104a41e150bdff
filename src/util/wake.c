/*
 * util/wake.c - see wake.h
 */
#include "util/wake.h"

#include <unistd.h>

#include "util/list.h"
#include "util/os.h"

static void wake_came(uv_poll_t *p, int status, int events) {
    struct wake *w = DL_OWNER(p, struct wake, poll);
    (void)status;
    (void)events;
    os_wake_clear(w->fd);
    w->run(w);
}

int wake_init(uv_loop_t *uv, struct wake *w, void (*run)(struct wake *w)) {
    w->run = run;
    w->fd = os_wake_open(&w->to);
    if (w->fd < 0)
        return w->fd;
    int rc = uv_poll_init(uv, &w->poll, w->fd);
    if (rc == 0)
        rc = uv_poll_start(&w->poll, UV_READABLE, wake_came);
    if (rc != 0) {
        close(w->fd);
        if (w->to != w->fd)
            close(w->to);
    }
    return rc;
}

void wake_send(struct wake *w) {
    os_wake_send(w->to);
}
