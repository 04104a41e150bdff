/*
 * daemon/handover.c - what a supervisor leaves to the next one; see handover.h
 */
#include "daemon/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/inherit.h"
#include "daemon/reexec.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/notify.h"
#include "util/os.h"

/* A bundle (config/source.h) begins with this line; another version may write another bundle. */
#define BUNDLE_HEAD "posthouse configuration 1\n"
/* Descriptors that one message takes along; fewer than the kernel's most. */
#define STORE_AT_ONCE 128U
#define BUNDLE_MOST   (64U << 20)

static struct {
    const char *dir;
    struct listen_set *set;
    bool verbose;
    int lock;    /* master.pid, locked; -1: not yet */
    int asker;   /* waits for the end of this start, which is a restart by exec; -1: none */
    int bundle;  /* of the supervisor before; -1: none */
    bool second; /* the start before this one failed, with the files that are there now */
    bool begun;  /* there is nothing to be said of this start any more */
} handover = {.lock = -1, .asker = -1, .bundle = -1};

static void store_fds(const char *name, const int *fds, size_t n) {
    char lines[64];
    snprintf(lines, sizeof lines, "FDSTORE=1\nFDNAME=%s", name);
    notify_send_fds(lines, fds, n);
}

static void store_forget(const char *name) {
    char lines[64];
    snprintf(lines, sizeof lines, "FDSTOREREMOVE=1\nFDNAME=%s", name);
    notify_send(lines);
}

/* A descriptor of its own with the bundle; negative errno. */
static int bundle_write(const struct config *cfg) {
    struct sbuf text = {0};
    int fd = os_memory_file("posthouse-" INHERIT_CONFIG);
    if (fd < 0)
        return fd;
    sbuf_add_str(&text, STR_LIT(BUNDLE_HEAD));
    cfg_source_put(cfg->source, &text);
    int rc = fs_write_all(fd, text.p, text.n);
    mem_wipe(text.p, text.n); /* it may hold keys */
    sbuf_free(&text);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

/* All of it, from its first byte on, wherever the process before had read to. */
static bool bundle_read(int fd, struct sbuf *text) {
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > BUNDLE_MOST)
        return false;
    size_t size = (size_t)st.st_size;
    char *at = sbuf_room(text, size);
    for (ssize_t n = 1; text->n < size && n > 0; at += n) {
        n = pread(fd, at, size - text->n, (off_t)text->n);
        if (n > 0)
            sbuf_advance(text, (size_t)n);
    }
    return text->n == size;
}

/* NULL: it is another version's, another directory's, or broken. */
static struct config *bundle_config(int fd, const char *dir) {
    const struct str head = STR_LIT(BUNDLE_HEAD);
    struct sbuf text = {0};
    struct cfg_source *src = NULL;
    if (bundle_read(fd, &text) && text.n > head.n && memcmp(text.p, head.p, head.n) == 0) {
        struct ipc_reader r = {.rest = str_from(sbuf_str(&text), head.n)};
        src = cfg_source_get(&r);
        if (!ipc_done(&r) || strcmp(cfg_source_dir(src), dir) != 0) {
            cfg_source_free(src);
            src = NULL;
        }
    }
    if (text.p != NULL)
        mem_wipe(text.p, text.n);
    sbuf_free(&text);
    return src == NULL ? NULL : config_build(src);
}

/* The configuration as the files have it now. */
static struct config *files_config(const char *dir) {
    return config_build(cfg_source_new(dir));
}

/* For an exec; the set's sockets and the lock are those of now. */
static struct reexec handover_next(int asker, int bundle, int refused) {
    return (struct reexec){.dir = handover.dir,
                           .set = handover.set,
                           .lock = handover.lock,
                           .asker = asker,
                           .bundle = bundle,
                           .refused = refused,
                           .verbose = handover.verbose};
}

/* The exit of a start that has failed: the next one is to know with which files. */
static void handover_fails(void) {
    if (handover.begun || handover.second || handover.bundle < 0)
        return;
    struct config *cfg = files_config(handover.dir);
    int mark = bundle_write(cfg);
    config_unref(cfg);
    if (mark < 0)
        return;
    fputs("posthoused: this start has failed; the next one goes on with the configuration that was "
          "in use before, unless the files have changed\n",
          stderr);
    struct reexec next = handover_next(handover.asker, handover.bundle, mark);
    if (handover.asker >= 0)
        reexec_now(&next);
    store_fds(INHERIT_REFUSED, &mark, 1);
    close(mark);
}

/* Has the last start failed with the files that are there now? */
static bool files_refused(void) {
    int mark = inherit_take(INHERIT_REFUSED);
    if (mark < 0)
        return false;
    struct config *refused = bundle_config(mark, handover.dir), *now = files_config(handover.dir);
    bool same = refused != NULL && cfg_source_same(refused->source, now->source);
    config_unref(now);
    if (refused != NULL)
        config_unref(refused);
    close(mark);
    store_forget(INHERIT_REFUSED);
    return same;
}

struct config *handover_begin(const char *dir, bool verbose, struct listen_set *set) {
    inherit_begin();
    for (int fd; (fd = inherit_take(INHERIT_LISTENER)) >= 0;)
        listen_inherit(set, fd);
    handover.dir = dir;
    handover.verbose = verbose;
    handover.set = set;
    handover.lock = inherit_take(INHERIT_LOCK);
    handover.asker = inherit_take(INHERIT_ASKER);
    handover.bundle = inherit_take(INHERIT_CONFIG);
    handover.second = files_refused();
    inherit_end();
    reexec_begin();
    atexit(handover_fails);
    struct config *cfg =
        handover.second && handover.bundle >= 0 ? bundle_config(handover.bundle, dir) : NULL;
    if (cfg != NULL)
        fputs("posthoused: warning: the last start failed: the configuration that was in use "
              "before is in use again; see posthouse check\n",
              stderr);
    return cfg;
}

bool handover_left(void) {
    return handover.bundle >= 0 || handover.set->n > 0;
}

int handover_lock(void) {
    return handover.lock;
}

void handover_set_lock(int fd) {
    if (handover.lock >= 0 && handover.lock != fd)
        close(handover.lock);
    handover.lock = fd;
}

void handover_forget(void) {
    int *const fds[] = {&handover.lock, &handover.asker, &handover.bundle};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    handover.begun = true;
}

void handover_begun(void) {
    handover.begun = true;
    if (handover.bundle >= 0)
        close(handover.bundle);
    handover.bundle = -1;
    reexec_answer(handover.asker, handover.second);
    handover.asker = -1;
}

void handover_restart(const struct config *cfg, int asker) {
    int bundle = bundle_write(cfg);
    struct reexec next = handover_next(asker, bundle, -1);
    reexec_now(&next);
}

void handover_leave(const struct listen_set *set, const struct config *cfg) {
    int fds[STORE_AT_ONCE];
    size_t n = 0;
    if (!notify_wanted())
        return;
    store_forget(INHERIT_LISTENER);
    for (size_t i = 0; i < set->n; i++) {
        if (set->v[i].kind == LISTEN_SMTPD)
            fds[n++] = set->v[i].fd;
        if (n == STORE_AT_ONCE || (n > 0 && i + 1 == set->n)) {
            store_fds(INHERIT_LISTENER, fds, n);
            n = 0;
        }
    }
    store_forget(INHERIT_CONFIG);
    int bundle = bundle_write(cfg);
    if (bundle < 0)
        log_warn("master", "the next start is left no configuration: %s", strerror(-bundle));
    else
        store_fds(INHERIT_CONFIG, &bundle, 1);
    if (bundle >= 0)
        close(bundle);
}
