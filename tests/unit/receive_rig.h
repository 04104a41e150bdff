/* What the unit tests of receive share: a loop with a clock that can be ahead, a configuration, and
 * a lookup process in memory. */
#ifndef PH_TESTS_RECEIVE_RIG_H
#define PH_TESTS_RECEIVE_RIG_H

#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "config/config.h"
#include "receive/access.h"
#include "receive/anvil.h"
#include "receive/dovecot.h"
#include "receive/intake.h"
#include "receive/serve.h"
#include "route/alias.h"
#include "util/codec.h"
#include "util/mem.h"

/* A program uses a part of what follows. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

static struct loop *loop;

/* Every clock but the one on the wall is this much ahead, for libuv's timers too. */
static time_t ahead_s;

int clock_gettime(clockid_t id, struct timespec *t) {
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    t->tv_sec += id == CLOCK_REALTIME ? 0 : ahead_s;
    return rc;
}

static void turn(void) {
    uv_run(&loop->uv, UV_RUN_NOWAIT);
    uv_run(&loop->uv, UV_RUN_NOWAIT);
}

static struct config *configure(const char *main) {
    char path[100];
    snprintf(path, sizeof path, "%s/main.cf", dir);
    FILE *f = fopen(path, "w");
    fprintf(f, "myhostname = mta.example\n%s\n", main);
    fclose(f);
    struct config *cfg = config_build(cfg_source_new(dir));
    assert_non_null(cfg);
    return cfg;
}

/* -- what check says -- */

/* Of a service in master.cf, behind its address and type. */
#define LINE "n - n - - smtpd "

static void file_put(const char *name, struct str text) {
    char path[100];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (text.n > 0)
        fwrite(text.p, 1, text.n, f);
    fclose(f);
}

/* With the services of master.cf. */
static struct config *configure_services(const char *main, const char *master) {
    char path[100];
    file_put("master.cf", str_of(master));
    struct config *cfg = configure(main);
    snprintf(path, sizeof path, "%s/master.cf", dir);
    remove(path);
    return cfg;
}

/* The texts of d, a line each behind the first letter of its level; in the order they were said. */
static void diags_are(struct diags *d, const char *want) {
    struct sbuf got = {0};
    for (size_t i = 0; i < d->n; i++)
        sbuf_printf(&got, "%c %s\n", "NWE"[d->v[i].level], d -> v[i].text);
    assert_str(sbuf_str(&got), want);
    sbuf_free(&got);
    diag_free(d);
}

/* -- a lookup process in memory: it says what the test says -- */

static struct maps_answer table_says; /* to every table */
static enum match_rc network_says;    /* to a list with a table in it */
static char
    asked_keys[1000]; /* of the last question, each with a blank; a shortened one with '~' */

static struct {
    lookup_maps_fn fn;
    lookup_match_fn match;
    void *arg;
} asking;

uint32_t lookup_maps(struct lookup *k, const char *svc, const char *spec, enum map_values values,
                     const struct maps_key *keys, size_t n, lookup_maps_fn fn, void *arg) {
    size_t at = 0;
    (void)k;
    (void)svc;
    (void)spec;
    (void)values;
    asked_keys[0] = '\0';
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(asked_keys + at, sizeof asked_keys - at, "%s%.*s ",
                               keys[i].partial ? "~" : "", STR_FMT(keys[i].key));
    asking.fn = fn;
    asking.arg = arg;
    return 5;
}

uint32_t lookup_match_now(struct lookup *k, const char *svc, const char *spec, enum match_kind kind,
                          unsigned how, struct str key, enum match_rc *now, lookup_match_fn fn,
                          void *arg) {
    char *err = NULL;
    (void)k;
    (void)svc;
    if (!matchlist_has_tables(spec)) {
        struct matchlist *l = matchlist_open(spec, NULL, kind, how);
        *now = matchlist_has(l, key, &err);
        matchlist_close(l);
        return 0;
    }
    asking.match = fn;
    asking.arg = arg;
    return 6;
}

void lookup_cancel(struct lookup *k, uint32_t tag) {
    (void)k;
    if (tag != 0) {
        asking.fn = NULL;
        asking.match = NULL;
    }
}

static int loop_make(void **state) {
    loop = loop_new(0);
    return loop == NULL || dir_make(state) != 0;
}

#pragma GCC diagnostic pop

#endif
