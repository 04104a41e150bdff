/*
 * maps/map_net.c - socketmap and tcp: tables behind a server of their own
 *
 * socketmap:inet:host:port:name, socketmap:unix:/path:name (socketmap_table(5)): netstrings,
 * "name key" is answered with "OK value", "NOTFOUND", "TEMP why", "TIMEOUT why" or "PERM why".
 * tcp:host:port (tcp_table(5)): lines, "get key" is answered with "200 value", "500 why" (not
 * found) or "400 why".  They see whole keys only.  Workers of the lookup process ask, each over a
 * connection of its own; a server that does not answer in time fails the question.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "maps/dbtable.h"
#include "util/clock.h"
#include "util/codec.h"
#include "util/mem.h"

#define REPLY_MAX 100000U
#define IDLE_MS   10000
#define RETRY_MS  1000

struct net_table {
    struct map *m;
    struct pool *pool;
    char *server;                    /* "inet:host:port" or "unix:/path" */
    char *name;                      /* of the table, for socketmap */
    bool (*is_whole)(struct str in); /* is the reply complete? */
};

struct ask {
    const struct net_table *t;
    struct str question;
    struct sbuf reply;
};

/* -- connections: a descriptor + 1 as a pointer, so that NULL stays free -- */

static int conn_fd_of(void *conn) {
    return (int)(intptr_t)conn - 1;
}

static int try_connect(int family, const struct sockaddr *a, socklen_t n) {
    int err = 0, fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof err;
    if (fd < 0)
        return -errno;
    if (connect(fd, a, n) == 0)
        return fd;
    err = errno;
    if (err == EINPROGRESS && !pool_wait(fd, POLLOUT, clock_mono_ms() + 1000 * REMOTE_CONNECT_S))
        err = ETIMEDOUT;
    else if (err == EINPROGRESS)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (err == 0)
        return fd;
    close(fd);
    return -err;
}

static int net_map_connect_unix(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return -ENAMETOOLONG;
    memcpy(a.sun_path, path, strlen(path) + 1);
    return try_connect(AF_UNIX, (const struct sockaddr *)&a, sizeof a);
}

static int connect_inet(const char *where, const char **why) {
    struct str w = str_of(where);
    ptrdiff_t colon = str_rchr(w, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    char *host = str_dup(str_make(w.p, colon < 0 ? 0 : (size_t)colon));
    int rc = getaddrinfo(host, where + colon + 1, &hints, &list), fd = -EHOSTUNREACH;
    if (rc != 0)
        *why = gai_strerror(rc);
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next)
        fd = try_connect(a->ai_family, a->ai_addr, a->ai_addrlen);
    if (list != NULL)
        freeaddrinfo(list);
    free(host);
    return fd;
}

static void *net_connect(const char *host, const struct tabconf *c, char **why) {
    const char *text = NULL;
    (void)c;
    int fd = strncmp(host, "unix:", 5) == 0 ? net_map_connect_unix(host + 5)
                                            : connect_inet(host + 5, &text);
    if (fd >= 0)
        return (void *)(intptr_t)(fd + 1);
    *why = mem_strdup(text != NULL ? text : strerror(-fd));
    return NULL;
}

static void net_close(void *conn) {
    close(conn_fd_of(conn));
}

static const struct pool_ops net_pool = {net_connect, net_close};

static bool send_all(int fd, struct str text, int64_t until) {
    while (text.n > 0) {
        ssize_t n = send(fd, text.p, text.n, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR) && pool_wait(fd, POLLOUT, until))
            continue;
        if (n < 0)
            return false;
        text = str_from(text, (size_t)n);
    }
    return true;
}

/* A server that has spoken without being asked: what comes next would be taken for the answer. */
static bool is_quiet(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

/* Is the reply whole, and nothing behind it? */
static bool is_one_reply(const struct ask *a) {
    return !a->t->is_whole(str_make(a->reply.p, a->reply.n - 1));
}

static enum remote_rc net_map_ask_conn(void *arg, void *conn, char **why) {
    struct ask *a = arg;
    int fd = conn_fd_of(conn);
    int64_t until = clock_mono_ms() + 1000 * REMOTE_ANSWER_S;
    sbuf_reset(&a->reply);
    bool ok = is_quiet(fd) && send_all(fd, a->question, until);
    while (ok && !a->t->is_whole(sbuf_str(&a->reply))) {
        ssize_t n = -1;
        char *at = sbuf_room(&a->reply, 4096);
        if (a->reply.n <= REPLY_MAX && pool_wait(fd, POLLIN, until))
            n = read(fd, at, 4096);
        ok = n > 0;
        if (ok)
            sbuf_advance(&a->reply, (size_t)n);
    }
    if (ok && is_one_reply(a))
        return REMOTE_OK;
    *why =
        mem_strdup(ok ? "it says more than it was asked" : "no answer, or the connection was lost");
    return REMOTE_LOST;
}

static void net_shut(struct map *m) {
    struct net_table *t = m->state;
    pool_free(t->pool);
    free(t->server);
    free(t->name);
    free(t);
}

static int net_open(struct map *m, char *server, char *name, bool (*is_whole)(struct str in)) {
    struct net_table *t = MEM_NEW(struct net_table);
    *t = (struct net_table){.m = m, .server = server, .name = name, .is_whole = is_whole};
    m->state = t;
    t->pool = pool_new(&net_pool, NULL, m->spec, server, IDLE_MS, RETRY_MS);
    return 0;
}

/* The reply to question in a->reply; false with m's error set. */
static bool net_ask(struct map *m, struct ask *a) {
    const struct net_table *t = m->state;
    char *why = NULL;
    a->t = t;
    bool ok = pool_use(t->pool, net_map_ask_conn, a, &why) == REMOTE_OK;
    if (!ok)
        map_set_error(m, "%s: %s", m->spec, why);
    free(why);
    return ok;
}

/* -- socketmap -- */

/* "12:content," : the content; false: not there yet.  A malformed one is an empty content. */
static bool netstring(struct str in, struct str *content) {
    ptrdiff_t colon = str_chr(in, ':');
    uint64_t n;
    *content = STR_LIT("");
    if (colon < 0)
        return in.n > 10;
    if (!str_u64(str_make(in.p, (size_t)colon), &n) || n > REPLY_MAX)
        return true;
    in = str_from(in, (size_t)colon + 1);
    if (in.n <= n)
        return false;
    if (in.p[n] == ',')
        *content = str_make(in.p, (size_t)n);
    return true;
}

static bool socket_whole(struct str in) {
    struct str content;
    return netstring(in, &content);
}

static int socket_open(struct map *m) {
    struct str s = str_of(m->name);
    ptrdiff_t last = str_rchr(s, ':');
    bool known = str_istarts(s, "inet:") || str_istarts(s, "unix:");
    if (!known || last < 6 || (size_t)last + 1 == s.n) {
        map_set_error(m,
                      "bad syntax: \"%s\"; need socketmap:inet:host:port:name or "
                      "socketmap:unix:path:name",
                      m->spec);
        return -EINVAL;
    }
    return net_open(m, str_dup(str_make(s.p, (size_t)last)), str_dup(str_from(s, (size_t)last + 1)),
                    socket_whole);
}

static enum map_rc socket_get(struct map *m, struct str key, struct sbuf *value) {
    const struct net_table *t = m->state;
    struct ask a = {0};
    struct sbuf q = {0};
    struct str content, word;
    enum map_rc rc = MAP_ERROR;
    sbuf_printf(&q, "%zu:%s ", strlen(t->name) + 1 + key.n, t->name);
    sbuf_add_str(&q, key);
    sbuf_add_ch(&q, ',');
    a.question = sbuf_str(&q);
    if (net_ask(m, &a)) {
        netstring(sbuf_str(&a.reply), &content);
        struct str rest = content;
        if (!str_split(&rest, " ", &word))
            map_set_error(m, "%s: malformed reply", m->spec);
        else if (str_eq_c(word, "OK") && rest.n > 1)
            rc = MAP_FOUND;
        else if (str_eq_c(word, "NOTFOUND"))
            rc = MAP_NOT_FOUND;
        else
            map_set_error(m, "%s: server answered: %.*s", m->spec, STR_FMT(content));
        if (rc == MAP_FOUND)
            sbuf_add_str(value, str_from(rest, 1));
    }
    sbuf_free(&q);
    sbuf_wipe(&a.reply);
    return rc;
}

/* -- tcp -- */

static bool line_whole(struct str in) {
    return str_chr(in, '\n') >= 0;
}

static int tcp_open(struct map *m) {
    struct str s = str_of(m->name);
    ptrdiff_t colon = str_rchr(s, ':');
    if (colon <= 0 || (size_t)colon + 1 == s.n) {
        map_set_error(m, "bad syntax: \"%s\"; need tcp:host:port", m->spec);
        return -EINVAL;
    }
    struct sbuf server = {0};
    sbuf_printf(&server, "inet:%s", m->name);
    return net_open(m, sbuf_take(&server), NULL, line_whole);
}

static void quote_hex(struct str text, struct sbuf *out) {
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c <= ' ' || c == '%' || c >= 0x7f)
            sbuf_printf(out, "%%%02x", c);
        else
            sbuf_add_ch(out, (char)c);
    }
}

static enum map_rc tcp_get(struct map *m, struct str key, struct sbuf *value) {
    struct ask a = {0};
    struct sbuf q = {0};
    enum map_rc rc = MAP_ERROR;
    sbuf_add_c(&q, "get ");
    quote_hex(key, &q);
    sbuf_add_ch(&q, '\n');
    a.question = sbuf_str(&q);
    if (net_ask(m, &a)) {
        struct str line = str_trim(str_make(a.reply.p, (size_t)str_chr(sbuf_str(&a.reply), '\n')));
        if (str_istarts(line, "200 ") && percent_decode(value, str_from(line, 4)))
            rc = MAP_FOUND;
        else if (str_istarts(line, "500"))
            rc = MAP_NOT_FOUND;
        else if (str_istarts(line, "200")) /* what follows may be a login */
            map_set_error(m, "%s: server answered: 200 and no value that can be decoded", m->spec);
        else
            map_set_error(m, "%s: server answered: %.*s", m->spec, STR_FMT(line));
    }
    sbuf_free(&q);
    sbuf_wipe(&a.reply);
    return rc;
}

const struct map_ops map_socket = {.type = "socketmap",
                                   .shared = true,
                                   .remote = true,
                                   .open = socket_open,
                                   .close = net_shut,
                                   .get = socket_get};

const struct map_ops map_tcp = {.type = "tcp",
                                .shared = true,
                                .remote = true,
                                .open = tcp_open,
                                .close = net_shut,
                                .get = tcp_get};
