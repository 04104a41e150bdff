/*
 * util/wake.c - see wake.h
 */
#include "util/wake.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/list.h"

static void wake_came(uv_poll_t *p, int status, int events) {
    struct wake *w = DL_OWNER(p, struct wake, poll);
    eventfd_t n;
    (void)status;
    (void)events;
    (void)eventfd_read(w->fd, &n); /* fails where another turn has read it */
    w->run(w);
}

int wake_init(uv_loop_t *uv, struct wake *w, void (*run)(struct wake *w)) {
    w->run = run;
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0)
        return -errno;
    int rc = uv_poll_init(uv, &w->poll, w->fd);
    if (rc == 0)
        rc = uv_poll_start(&w->poll, UV_READABLE, wake_came);
    if (rc != 0)
        close(w->fd);
    return rc;
}

void wake_send(struct wake *w) {
    (void)eventfd_write(w->fd, 1); /* fails only where the count is at its end: it is awake */
}
