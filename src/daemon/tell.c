/*
 * daemon/tell.c - what a child of the supervisor tells it; see tell.h
 */
#include "daemon/tell.h"

#include <stdbool.h>

#include "daemon/daemon.h"
#include "util/log.h"

static int tell_fd = -1;

static bool tell_fails(const char *service, const char *text) {
    struct sbuf msg = {0};
    size_t at = ipc_begin(&msg, CHILD_FAILS, 0);
    ipc_put_str(&msg, str_of(service));
    ipc_put_str(&msg, str_of(text));
    ipc_end(&msg, at);
    int rc = ipc_send(tell_fd, sbuf_str(&msg), NULL, 0);
    sbuf_free(&msg);
    return rc == 0;
}

void tell_fatal_to(int sup) {
    tell_fd = sup;
    log_on_fatal(tell_fails);
}

void tell_ready(int sup) {
    struct sbuf msg = {0};
    log_on_fatal(NULL);
    ipc_end(&msg, ipc_begin(&msg, CHILD_READY, 0));
    ipc_send(sup, sbuf_str(&msg), NULL, 0); /* one that is gone is noticed by the next read */
    sbuf_free(&msg);
}
