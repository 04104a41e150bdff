/*
 * daemon/ask.c - asking the daemon over its control socket; see ask.h
 */
#include "daemon/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/reexec.h"
#include "daemon/reload.h"
#include "deliver/probe.h"
#include "util/clock.h"
#include "util/fs.h"
#include "util/mem.h"
#include "util/os.h"

#define TAKE_UP_MS     5000
#define FORGET_MS      30000 /* a relay process that hangs */
#define LOOK_MS        20
#define COUNT_MS       1000 /* a relay process that is busy does not say what it has taken up */
#define LINE_MAX_BYTES (16U << 20) /* of an answer: the relay's process is not believed */

static int64_t patience_ms;

void ask_set_patience(int64_t ms) {
    patience_ms = ms;
}

/* most_ms 0: for ever. */
static void ask_limit_time(int fd, int64_t most_ms) {
    struct timeval most = {.tv_sec = most_ms / 1000, .tv_usec = most_ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
}

int ask_connect(const char *dir, const char *name) {
    int at = open(dir, OS_O_PLACE | O_DIRECTORY | O_CLOEXEC), rc = -errno;
    int fd = at < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (at >= 0)
        rc = fd < 0 ? -errno : 0;
    if (rc == 0)
        rc = os_connect_at(fd, at, name);
    if (at >= 0)
        close(at);
    if (rc < 0 && fd >= 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

struct answer {
    ask_line_fn fn;
    void *arg;
    struct ask_end *end;
    char **why;
    int rc; /* 1: not over */
};

static void end_with(struct answer *a, int rc, const char *why) {
    a->rc = rc;
    if (why != NULL)
        *a->why = mem_strdup(why);
}

/* The last line has "ok". */
static void ask_take_line(struct answer *a, struct str line) {
    json_t *o = json_loadb(line.p, line.n, 0, NULL), *ok = json_object_get(o, "ok");
    if (ok == NULL) {
        if (a->fn != NULL)
            a->fn(a->arg, line);
    } else {
        const char *error = json_string_value(json_object_get(o, "error"));
        a->end->passed = json_is_true(json_object_get(o, "passed"));
        a->end->more = json_is_true(json_object_get(o, "more"));
        a->end->crowded = json_is_true(json_object_get(o, "crowded"));
        a->end->halted = json_is_true(json_object_get(o, "halted"));
        a->end->denied = json_is_true(json_object_get(o, "denied"));
        a->end->matched = (long)json_integer_value(json_object_get(o, "matched"));
        a->end->count = (long)json_integer_value(json_object_get(o, "count"));
        a->end->process = (long)json_integer_value(json_object_get(o, "process"));
        const char *store = json_string_value(json_object_get(o, "accounts_store"));
        a->end->store = store == NULL ? 0 : str_hash(str_of(store));
        a->end->uses = (json_is_true(json_object_get(o, "store")) ? ASK_STORE : 0U) |
                       (json_is_true(json_object_get(o, "relays")) ? ASK_RELAYS : 0U);
        if (json_is_true(ok))
            end_with(a, 0, NULL);
        else
            end_with(a, -EPROTO, error == NULL ? "the daemon refused" : error);
    }
    json_decref(o);
}

static void read_answer(int fd, struct answer *a) {
    struct sbuf in = {0};
    while (a->rc == 1) {
        char *nl, *at = sbuf_room(&in, 65536);
        ssize_t n = read(fd, at, 65536);
        size_t used = 0;
        if (n < 0 && errno == EAGAIN) {
            end_with(a, -ETIMEDOUT, "the daemon has been silent for too long");
            break;
        }
        if (n <= 0) {
            end_with(a, -EPIPE, "the daemon did not answer");
            break;
        }
        sbuf_advance(&in, (size_t)n);
        while (a->rc == 1 && (nl = memchr(in.p + used, '\n', in.n - used)) != NULL) {
            ask_take_line(a, str_make(in.p + used, (size_t)(nl - in.p) - used));
            used = (size_t)(nl - in.p) + 1;
        }
        sbuf_drop(&in, used);
        if (a->rc == 1 && in.n > LINE_MAX_BYTES)
            end_with(a, -EPROTO, "a line of the daemon's answer has no end");
    }
    sbuf_free(&in);
}

int ask_daemon_within(int64_t most_ms, const char *queue_directory, const char *request,
                      ask_line_fn fn, void *arg, struct ask_end *end, char **why) {
    struct ask_end unused;
    struct answer a = {fn, arg, end == NULL ? &unused : end, why, 1};
    struct sbuf b = {0};
    int fd = ask_connect(queue_directory, "control.sock");
    if (fd == -EACCES) /* what every user may ask */
        fd = ask_connect(queue_directory, "public/queue.sock");
    *why = NULL;
    if (fd < 0) {
        sbuf_printf(&b, "%s/control.sock: %s (is posthoused running?)", queue_directory,
                    strerror(-fd));
        *why = sbuf_take(&b);
        return fd;
    }
    ask_limit_time(fd, most_ms);
    sbuf_printf(&b, "%s\n", request);
    /* A daemon that has closed already has said why: its answer is read all the same. */
    for (size_t at = 0, n = 1; at < b.n && n > 0; at += n) {
        ssize_t sent = send(fd, b.p + at, b.n - at, MSG_NOSIGNAL);
        n = sent > 0 ? (size_t)sent : 0;
    }
    sbuf_free(&b);
    read_answer(fd, &a);
    close(fd);
    return a.rc;
}

int ask_daemon(const char *queue_directory, const char *request, ask_line_fn fn, void *arg,
               struct ask_end *end, char **why) {
    return ask_daemon_within(patience_ms, queue_directory, request, fn, arg, end, why);
}

/* The process that listens there is posthoused, not the owner of the folder that it lies in. */
static bool is_supervisor(int fd) {
    uid_t peer;
    return os_peer_uid(fd, &peer) == 0 && (peer == 0 || peer == geteuid());
}

/* A connection to the socket is the request; 0 when the answer is done. */
static int ask_supervisor(const char *queue_directory, const char *name, const char *done,
                          long wait_s) {
    char answer[64] = "";
    struct timeval most = {.tv_sec = wait_s};
    int fd = ask_connect(queue_directory, name);
    if (fd < 0)
        return fd == -ENOENT || fd == -ECONNREFUSED ? -ESRCH : fd;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    ssize_t n = is_supervisor(fd) ? read(fd, answer, sizeof answer - 1) : 0;
    int rc = n == 0 ? -EPERM : n > 0 ? -EINVAL : errno == EAGAIN ? -ETIMEDOUT : -errno;
    if (strcmp(answer, done) == 0)
        rc = 0;
    close(fd);
    return rc;
}

/* How many reloads all threads of the relay process have taken up; false: it does not say. */
static bool ask_reloads(const char *queue_directory, struct ask_end *end) {
    char *why = NULL;
    *end = (struct ask_end){0};
    int rc = ask_daemon_within(COUNT_MS, queue_directory, "{\"cmd\": \"reloads\"}", NULL, NULL, end,
                               &why);
    free(why);
    return rc == 0;
}

/* The supervisor answers when it has told the relay process; the threads of that process take the
 * reload up one by one. */
int ask_reload(const char *queue_directory, long wait_s) {
    struct ask_end before, now;
    int64_t end = clock_mono_ms() + wait_s * 1000;
    bool known = ask_reloads(queue_directory, &before);
    int rc = ask_supervisor(queue_directory, RELOAD_SOCKET, RELOAD_DONE "\n", wait_s);
    while (rc == 0 && known && clock_mono_ms() < end && ask_reloads(queue_directory, &now) &&
           now.process == before.process && now.count == before.count)
        usleep(LOOK_MS * 1000);
    return rc;
}

int ask_restart(const char *queue_directory, long wait_s) {
    int rc = ask_supervisor(queue_directory, RESTART_SOCKET, RESTART_DONE "\n", wait_s);
    return rc == -EPERM || rc == -ECONNRESET ? -EPIPE : rc;
}

/* Does the daemon use what was written? */
static bool ask_is_used(const struct ask_end *end, unsigned uses, const char *store) {
    return (end->uses & uses) == uses &&
           (store == NULL || end->store == 0 || end->store == str_hash(str_of(store)));
}

int ask_take_up(const char *queue_directory, unsigned uses, const char *store, char **why) {
    int64_t end = 0; /* of asking, counted from the reload: both it and an answer may take long */
    bool reloaded = false;
    const char *left = "the running daemon does not use it: it was not reloaded, or refused to "
                       "(posthouse check says why)";
    do {
        struct ask_end now = {0};
        int rc = ask_daemon_within(FORGET_MS, queue_directory, "{\"cmd\": \"forget\"}", NULL, NULL,
                                   &now, why);
        bool none = rc == -ENOENT || rc == -ECONNREFUSED;
        if (rc < 0 && !none && !reloaded)
            return rc;
        free(*why);
        *why = NULL;
        if (none || (rc == 0 && ask_is_used(&now, uses, store)))
            return reloaded && !none ? 1 : 0;
        if (rc == 0 && (now.uses & uses) == uses)
            left = "the running daemon has another accounts_store than this program, which has to "
                   "be started anew (systemctl restart posthouse-web) if that was changed since";
        rc = reloaded ? 0 : ask_reload(queue_directory, ASK_RELOAD_S);
        if (rc == -ETIMEDOUT)
            left = "the running daemon was asked to reload, and has not answered yet; its log will "
                   "say whether it has";
        if (rc < 0)
            break;
        if (!reloaded)
            end = clock_mono_ms() + TAKE_UP_MS;
        reloaded = true;
        usleep(LOOK_MS * 1000);
    } while (clock_mono_ms() < end);
    *why = mem_strdup(left);
    return -ETIMEDOUT;
}

const char *ask_advice(const char *cause, const char *reply) {
    return advice_for(mail_cause_named(str_of(cause)), str_of(reply));
}
