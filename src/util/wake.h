/*
 * util/wake.h - waking a loop from another thread
 *
 * What uv_async_t does, by one write to a descriptor (os_wake_open).  uv_async_send holds a lock in
 * memory while it writes, and the loop that it has woken spins until the sender runs again.
 */
#ifndef PH_UTIL_WAKE_H
#define PH_UTIL_WAKE_H

#include <uv.h>

struct wake {
    uv_poll_t poll; /* data is the owner's */
    int fd, to;     /* what is polled and what is written to; kept as long as the loop */
    void (*run)(struct wake *w);
};

/* run is called on the loop's thread after each wake_send, once for several that came together.
 * Returns 0, or a negative errno. */
int wake_init(uv_loop_t *uv, struct wake *w, void (*run)(struct wake *w));
/* Any thread. */
void wake_send(struct wake *w);

#endif
