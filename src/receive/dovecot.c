/*
 * receive/dovecot.c - Dovecot's auth service; see dovecot.h
 */
#include "receive/dovecot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "smtp/sasl.h"
#include "util/clock.h"
#include "util/conn.h"
#include "util/htab.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/os.h"

#define HANDSHAKE_MS 10000
#define ANSWER_MS    60000
#define LINE_LIMIT   16384U
#define MECHS_MAX    64U /* that it may name */
/* After a failed connect, the next one. */
#define RETRY_MS 1000
/* A CPID is a thread ID, which has 22 bits at most, and a number above it. */
#define CPID_SHIFT   22U
#define CPID_NUMBERS 512U

struct mech {
    char *name;
    unsigned lacks; /* properties that a session may ask for and this one has not */
};

struct question {
    uint32_t id;
    dovecot_fn fn;
    void *arg;
    int64_t asked_ms; /* 0: the client is to answer a challenge, the service owes nothing */
};

struct dovecot {
    struct loop *loop;
    char *path;
    unsigned number;   /* below CPID_NUMBERS; two of a thread have different ones */
    struct conn *conn; /* NULL: not connected */
    bool ready;
    struct dl waits;     /* struct dovecot_wait */
    struct later waking; /* those in waits are to be told */
    struct mech *mechs;
    size_t n_mechs;
    struct itab open;
    uint32_t next_id;
    int64_t failed_ms;
    int64_t answered_ms; /* when a question was answered last */
    uv_timer_t tick;
};

static size_t dovecot_input(void *arg, const char *p, size_t n);
static void dovecot_event(void *arg, enum conn_event ev);
static const struct conn_ops auth_conn_ops = {.input = dovecot_input, .event = dovecot_event};

static void mechs_clear(struct dovecot *d) {
    for (size_t i = 0; i < d->n_mechs; i++)
        free(d->mechs[i].name);
    free(d->mechs);
    d->mechs = NULL;
    d->n_mechs = 0;
}

/* The list of mechanisms is there, or cannot be had.  Whatever waits is told by the loop: what has
 * just begun to wait is not called from inside dovecot_await. */
static void dovecot_wake(struct dovecot *d) {
    loop_later(d->loop, &d->waking);
}

static void dovecot_tell_waiting(struct later *later) {
    struct dovecot *d = DL_OWNER(later, struct dovecot, waking);
    struct dl *n;
    while ((n = dl_pop(&d->waits)) != NULL) {
        struct dovecot_wait *w = DL_OWNER(n, struct dovecot_wait, link);
        dl_init(&w->link);
        w->fn(w->arg);
    }
}

/* All that was asked fails for now. */
static void dovecot_lose(struct dovecot *d, const char *why) {
    struct question *q;
    size_t pos;
    if (d->conn != NULL)
        conn_close(d->conn);
    d->conn = NULL;
    d->ready = false;
    d->failed_ms = d->loop->now_ms;
    mechs_clear(d);
    log_warn("smtpd", "SASL: %s: %s", d->path, why);
    while (pos = 0, (q = itab_next(&d->open, &pos)) != NULL) {
        itab_del(&d->open, q->id);
        q->fn(q->arg, DOVECOT_TEMP, STR_LIT("Connection lost to authentication server"), STR_NONE);
        free(q);
    }
    dovecot_wake(d);
}

/* One that has been asked for too long, or NULL. */
static struct question *question_late(const struct dovecot *d) {
    int64_t now = loop_now_ms(d->loop);
    struct question *q;
    for (size_t pos = 0; (q = itab_next(&d->open, &pos)) != NULL;)
        if (q->asked_ms != 0 && now - q->asked_ms > ANSWER_MS)
            return q;
    return NULL;
}

/* A service that has answered others since is there: that question alone is given up.  Answers may
 * end questions, so each is looked for anew. */
static void dovecot_tick(uv_timer_t *t) {
    struct dovecot *d = t->data;
    struct question *q;
    while ((q = question_late(d)) != NULL) {
        if (d->answered_ms <= q->asked_ms) {
            dovecot_lose(d, "no answer in time");
            return;
        }
        log_warn("smtpd", "SASL: %s: no answer in time to one question", d->path);
        conn_printf(d->conn, "CANCEL\t%u\n", q->id);
        itab_del(&d->open, q->id);
        q->fn(q->arg, DOVECOT_TEMP, STR_LIT("no answer in time"), STR_NONE);
        free(q);
    }
}

static _Thread_local unsigned dovecot_number; /* of the next one of this thread */

struct dovecot *dovecot_new(struct loop *l, const char *path) {
    struct dovecot *d = MEM_NEW(struct dovecot);
    d->loop = l;
    d->path = mem_strdup(path);
    d->number = dovecot_number++ % CPID_NUMBERS;
    d->failed_ms = -RETRY_MS;
    dl_init(&d->waits);
    d->waking.run = dovecot_tell_waiting;
    uv_timer_init(&l->uv, &d->tick);
    d->tick.data = d;
    uv_timer_start(&d->tick, dovecot_tick, 5000, 5000);
    uv_unref((uv_handle_t *)&d->tick);
    return d;
}

static void dovecot_tick_closed(uv_handle_t *h) {
    struct dovecot *d = h->data;
    free(d->path);
    free(d);
}

void dovecot_free(struct dovecot *d) {
    if (d == NULL)
        return;
    if (d->conn != NULL)
        dovecot_lose(d, "not used any more");
    loop_never(&d->waking);
    dovecot_tell_waiting(&d->waking);
    mechs_clear(d);
    itab_free(&d->open);
    uv_close((uv_handle_t *)&d->tick, dovecot_tick_closed);
}

bool dovecot_ready(const struct dovecot *d) {
    return d->ready;
}

/* -- connecting -- */

static int connect_unix(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return -ENAMETOOLONG;
    memcpy(a.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&a, sizeof a) == 0)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

/* "inet:127.0.0.1:12345", "inet:localhost:12345". */
static int start_inet(struct dovecot *d, struct str where) {
    ptrdiff_t colon = str_rchr(where, ':');
    struct str host = str_make(where.p, colon < 0 ? 0 : (size_t)colon);
    uint64_t port = 0;
    struct netaddr a;
    int err = -EINVAL;
    if (str_ieq_c(host, "localhost"))
        host = STR_LIT("127.0.0.1");
    if (host.n > 2 && host.p[0] == '[')
        host = str_make(host.p + 1, host.n - 2);
    if (!str_u64(str_from(where, (size_t)(colon + 1)), &port) || port > 65535 ||
        !netaddr_parse(&a, host, (uint16_t)port))
        return -EINVAL;
    d->conn = conn_connect(d->loop, &a, NULL, &auth_conn_ops, d, &err);
    if (d->conn == NULL)
        return err;
    conn_deadline(d->conn, HANDSHAKE_MS);
    return 0;
}

/* Each connection says a process ID that no other one has, or the service hangs up: several paths
 * may lead to one service. */
static void dovecot_greet(struct dovecot *d) {
    conn_printf(d->conn, "VERSION\t1\t1\nCPID\t%u\n", os_thread() | d->number << CPID_SHIFT);
    conn_deadline(d->conn, HANDSHAKE_MS);
}

static void dovecot_start(struct dovecot *d) {
    struct str path = str_of(d->path);
    int rc;
    if (d->loop->now_ms - d->failed_ms < RETRY_MS) {
        dovecot_wake(d);
        return;
    }
    if (str_istarts(path, "inet:")) {
        rc = start_inet(d, str_from(path, 5));
        if (rc == 0)
            return; /* greets when it is connected */
    } else {
        rc = connect_unix(d->path + (str_istarts(path, "unix:") ? 5 : 0));
        if (rc >= 0)
            d->conn = conn_new(d->loop, rc, &auth_conn_ops, d);
        if (rc >= 0 && d->conn == NULL)
            rc = -EMFILE;
    }
    if (d->conn != NULL)
        dovecot_greet(d);
    else
        dovecot_lose(d, strerror(-rc));
}

void dovecot_await(struct dovecot *d, struct dovecot_wait *w) {
    dl_push(&d->waits, &w->link);
    if (d->conn == NULL)
        dovecot_start(d);
}

/* -- what it says -- */

static const struct {
    const char *word;
    unsigned flag;
    bool good; /* asked for; else: forbidden */
} properties[] = {
    {"plaintext", SASL_NOPLAINTEXT, false},   {"active", SASL_NOACTIVE, false},
    {"dictionary", SASL_NODICTIONARY, false}, {"anonymous", SASL_NOANONYMOUS, false},
    {"mutual-auth", SASL_MUTUAL_AUTH, true},  {"forward-secrecy", SASL_FORWARD_SECRECY, true}};

static void add_mech(struct dovecot *d, struct str rest) {
    struct str name, word;
    unsigned lacks = SASL_MUTUAL_AUTH | SASL_FORWARD_SECRECY;
    bool private = false;
    if (!str_split(&rest, "\t", &name))
        return;
    while (str_split(&rest, "\t", &word)) {
        private = private || str_eq_c(word, "private");
        for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++)
            if (str_eq_c(word, properties[i].word))
                lacks =
                    properties[i].good ? lacks & ~properties[i].flag : lacks | properties[i].flag;
    }
    if (private)
        return;
    if (d->n_mechs == MECHS_MAX) {
        dovecot_lose(d, "too many mechanisms");
        return;
    }
    d->mechs = mem_realloc(d->mechs, (d->n_mechs + 1) * sizeof *d->mechs);
    d->mechs[d->n_mechs++] = (struct mech){str_dup(name), lacks};
}

void dovecot_mechs(const struct dovecot *d, unsigned flags, struct sbuf *out) {
    for (size_t i = 0; i < d->n_mechs; i++)
        if ((d->mechs[i].lacks & flags) == 0)
            sbuf_printf(out, "%s%s", out->n > 0 ? " " : "", d->mechs[i].name);
}

/* "name=value" among the parameters; p NULL: not there. */
static struct str param(struct str rest, const char *name) {
    struct str word;
    size_t n = strlen(name);
    while (str_split(&rest, "\t", &word))
        if (word.n > n && word.p[n] == '=' && memcmp(word.p, name, n) == 0)
            return str_from(word, n + 1);
        else if (str_eq_c(word, name))
            return STR_LIT("");
    return STR_NONE;
}

/* OK, FAIL and CONT: "\tid\t…". */
static void dovecot_on_answer(struct dovecot *d, struct str verb, struct str rest) {
    struct str id, reason = param(rest, "reason");
    uint64_t n;
    if (!str_split(&rest, "\t", &id) || !str_u64(id, &n)) {
        dovecot_lose(d, "malformed answer");
        return;
    }
    d->answered_ms = loop_now_ms(d->loop);
    struct question *q = itab_get(&d->open, n);
    if (q == NULL)
        return;
    if (str_eq_c(verb, "CONT")) {
        struct str challenge = STR_LIT("");
        str_split(&rest, "\t", &challenge);
        q->asked_ms = 0;
        q->fn(q->arg, DOVECOT_MORE, challenge, STR_NONE);
        return;
    }
    itab_del(&d->open, n);
    if (str_eq_c(verb, "OK"))
        q->fn(q->arg, DOVECOT_OK, param(rest, "user"), STR_NONE);
    else if (param(rest, "temp").p != NULL)
        q->fn(q->arg, DOVECOT_TEMP, reason.n > 0 ? reason : STR_LIT("internal error"), STR_NONE);
    else
        q->fn(q->arg, DOVECOT_FAIL, reason, param(rest, "user"));
    free(q);
}

static void dovecot_line(struct dovecot *d, struct str line) {
    struct str rest = line, verb;
    if (!str_split(&rest, "\t", &verb))
        return;
    if (str_eq_c(verb, "VERSION")) {
        struct str major;
        if (!str_split(&rest, "\t", &major) || !str_eq_c(major, "1"))
            dovecot_lose(d, "another version of the auth protocol");
    } else if (str_eq_c(verb, "MECH")) {
        add_mech(d, rest);
    } else if (str_eq_c(verb, "DONE")) {
        d->ready = true;
        conn_deadline(d->conn, 0);
        dovecot_wake(d);
    } else if (str_eq_c(verb, "OK") || str_eq_c(verb, "FAIL") || str_eq_c(verb, "CONT")) {
        dovecot_on_answer(d, verb, rest);
    } /* SPID, CUID, COOKIE say nothing to us */
}

static size_t dovecot_input(void *arg, const char *p, size_t n) {
    struct dovecot *d = arg;
    const char *nl = memchr(p, '\n', n);
    if (nl == NULL && n > LINE_LIMIT)
        dovecot_lose(d, "endless line");
    if (nl == NULL)
        return 0;
    dovecot_line(d, str_make(p, (size_t)(nl - p)));
    return (size_t)(nl - p) + 1;
}

static void dovecot_event(void *arg, enum conn_event ev) {
    struct dovecot *d = arg;
    if (ev == CONN_CONNECTED)
        dovecot_greet(d);
    else if (ev == CONN_TIMEOUT)
        dovecot_lose(d, "no greeting in time");
    else if (ev == CONN_CLOSED)
        dovecot_lose(d, conn_error(d->conn) == 0 ? "the connection was closed"
                                                 : strerror(-conn_error(d->conn)));
}

/* -- asking -- */

static void send_secret(struct dovecot *d) {
    conn_wipe_output(d->conn);
    conn_touch(d->conn);
}

/* The one place where a text becomes part of a line to the service; false if it cannot. */
static bool add_field(struct sbuf *line, const char *name, struct str value) {
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] == '\t' || value.p[i] == '\n' || value.p[i] == '\r' || value.p[i] == '\0')
            return false;
    sbuf_printf(line, "\t%s", name);
    sbuf_add_str(line, value);
    return true;
}

static bool add_login(struct sbuf *line, const struct dovecot_login *l) {
    return add_field(line, "", str_of(l->mech)) &&
           add_field(line, "service=", str_of(l->service)) &&
           add_field(line, "nologin", STR_NONE) &&
           (l->local_addr[0] == '\0' || add_field(line, "lip=", str_of(l->local_addr))) &&
           add_field(line, "rip=", str_of(l->client_addr)) &&
           (!l->secured || add_field(line, "secured", STR_NONE)) &&
           (l->resp.p == NULL || add_field(line, "resp=", l->resp));
}

/* Sends the line, or wipes it if it could not be made. */
static bool send_line(struct dovecot *d, struct sbuf *line, bool made) {
    if (made) {
        sbuf_add_ch(line, '\n');
        sbuf_add_str(conn_out(d->conn), sbuf_str(line));
        send_secret(d);
    }
    sbuf_wipe(line);
    return made;
}

uint32_t dovecot_begin(struct dovecot *d, const struct dovecot_login *l, dovecot_fn fn, void *arg) {
    struct sbuf line = {0};
    if (!d->ready)
        return 0;
    if (++d->next_id == 0)
        d->next_id = 1;
    sbuf_printf(&line, "AUTH\t%u", d->next_id);
    if (!send_line(d, &line, add_login(&line, l)))
        return 0;
    struct question *q = MEM_NEW(struct question);
    *q = (struct question){d->next_id, fn, arg, d->loop->now_ms};
    itab_put(&d->open, q->id, q);
    return q->id;
}

bool dovecot_continue(struct dovecot *d, uint32_t id, struct str resp) {
    struct sbuf line = {0};
    struct question *q = itab_get(&d->open, id);
    if (q == NULL || d->conn == NULL)
        return false;
    q->asked_ms = d->loop->now_ms;
    sbuf_printf(&line, "CONT\t%u", id);
    if (send_line(d, &line, add_field(&line, "", resp)))
        return true;
    dovecot_cancel(d, id);
    return false;
}

void dovecot_cancel(struct dovecot *d, uint32_t id) {
    struct question *q = id == 0 ? NULL : itab_del(&d->open, id);
    if (q == NULL)
        return;
    if (d->conn != NULL)
        conn_printf(d->conn, "CANCEL\t%u\n", id);
    free(q);
}
