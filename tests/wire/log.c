/*
 * tests/wire/log.c - the product's log lines, as they are made (stands in for util/log.c)
 */
#include "world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "util/log.h"

int log_open(const struct log_conf *conf) {
    (void)conf;
    return 0;
}

int log_reopen(void) {
    return -ENOENT;
}

void log_replace(int fd) {
    (void)fd;
}

void log_start(void) {}

void log_close(void) {}

/* What is logged after the product was killed is not logged. */
static void line_show(const char *service, const char *prefix, const char *fmt, va_list ap) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct sbuf text = {0};
    sbuf_add_c(&text, prefix);
    sbuf_vprintf(&text, fmt, ap);
    if (W != NULL && !W->dying) {
        wire_note(W, "log: %s: %s", service, text.p);
        if (W->watch.log != NULL)
            W->watch.log(W->watch.arg, service, text.p);
    }
    sbuf_free(&text);
    heap_switch(side);
}

#define LINE(service, prefix)                                                                      \
    do {                                                                                           \
        va_list ap;                                                                                \
        va_start(ap, fmt);                                                                         \
        line_show(service, prefix, fmt, ap);                                                       \
        va_end(ap);                                                                                \
    } while (0)

void log_as(const char *name, const char *service, const char *fmt, ...) {
    (void)name;
    LINE(service, "");
}

void log_info(const char *service, const char *fmt, ...) {
    LINE(service, "");
}

void log_warn(const char *service, const char *fmt, ...) {
    LINE(service, "warning: ");
}

void log_warn_as(const char *name, const char *service, const char *fmt, ...) {
    (void)name;
    LINE(service, "warning: ");
}

void log_error(const char *service, const char *fmt, ...) {
    LINE(service, "error: ");
}

void log_fatal(const char *service, const char *fmt, ...) {
    LINE(service, "fatal: ");
}
