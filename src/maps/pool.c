/*
 * maps/pool.c - idle connections, hosts that failed; see pool.h
 */
#include "maps/pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

/* With no other host, one that failed is tried again this soon. */
#define LAST_RESORT_MS 1000

struct idle {
    struct idle *next;
    void *conn;
    int64_t since_ms;
};

struct host {
    char *name;
    bool local; /* a unix socket: tried before the others */
    struct idle *idle;
    int64_t failed_ms; /* 0: it did not */
};

struct pool {
    const struct pool_ops *ops;
    const struct tabconf *conf;
    const char *spec;
    int64_t idle_ms, retry_ms;
    pthread_mutex_t lock; /* of the hosts */
    struct host *hosts;
    size_t n_hosts;
    unsigned turn;
};

bool pool_wait(int fd, short events, int64_t until_ms) {
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        int64_t left = until_ms - clock_mono_ms();
        int rc = left <= 0 ? 0 : poll(&p, 1, (int)left);
        if (rc < 0 && errno == EINTR)
            continue;
        return rc > 0;
    }
}

struct pool *pool_new(const struct pool_ops *ops, const struct tabconf *conf, const char *spec,
                      const char *hosts, int64_t idle_ms, int64_t retry_ms) {
    struct pool *p = MEM_NEW(struct pool);
    struct str rest = str_of(hosts), w;
    *p = (struct pool){
        .ops = ops, .conf = conf, .spec = spec, .idle_ms = idle_ms, .retry_ms = retry_ms};
    pthread_mutex_init(&p->lock, NULL);
    while (str_split(&rest, ", \t\r\n", &w)) {
        p->hosts = mem_realloc(p->hosts, (p->n_hosts + 1) * sizeof *p->hosts);
        p->hosts[p->n_hosts++] =
            (struct host){.name = str_dup(w), .local = str_istarts(w, "unix:") || w.p[0] == '/'};
    }
    return p;
}

size_t pool_hosts(const struct pool *p) {
    return p->n_hosts;
}

/* Closes what has been idle since then or longer. */
static void close_idle(struct pool *p, struct host *h, int64_t since_ms) {
    for (struct idle **at = &h->idle; *at != NULL;) {
        struct idle *i = *at;
        if (i->since_ms > since_ms) {
            at = &i->next;
            continue;
        }
        *at = i->next;
        p->ops->close(i->conn);
        free(i);
    }
}

void pool_free(struct pool *p) {
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n_hosts; i++) {
        close_idle(p, &p->hosts[i], INT64_MAX);
        free(p->hosts[i].name);
    }
    free(p->hosts);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* How soon a host would be asked: 0 local, 1 others, 2 one that failed, 3 one that failed just now.
 */
static int host_class(const struct pool *p, const struct host *h, int64_t now) {
    if (h->failed_ms == 0 || now - h->failed_ms >= p->retry_ms)
        return h->local ? 0 : 1;
    return now - h->failed_ms >= LAST_RESORT_MS ? 2 : 3;
}

/* The next host that was not tried for this question; in turn among equals.  NULL: none. */
static struct host *host_pick(struct pool *p, const bool *tried) {
    struct host *best = NULL;
    int best_class = 3;
    int64_t now = clock_mono_ms();
    for (size_t k = 0; k < p->n_hosts; k++) {
        size_t i = (k + p->turn) % p->n_hosts;
        int c = tried[i] ? 3 : host_class(p, &p->hosts[i], now);
        if (c < best_class) {
            best = &p->hosts[i];
            best_class = c;
        }
    }
    return best;
}

static void *conn_take(struct pool *p, struct host *h) {
    pthread_mutex_lock(&p->lock);
    close_idle(p, h, clock_mono_ms() - p->idle_ms);
    struct idle *i = h->idle;
    if (i != NULL)
        h->idle = i->next;
    pthread_mutex_unlock(&p->lock);
    void *conn = i == NULL ? NULL : i->conn;
    free(i);
    return conn;
}

static void conn_give(struct pool *p, struct host *h, void *conn) {
    struct idle *i = MEM_NEW(struct idle);
    i->conn = conn;
    i->since_ms = clock_mono_ms();
    pthread_mutex_lock(&p->lock);
    i->next = h->idle;
    h->idle = i;
    h->failed_ms = 0;
    pthread_mutex_unlock(&p->lock);
}

static void pool_host_log(const struct pool *p, const struct host *h, const char *why) {
    char *shown = p->ops->show == NULL ? NULL : p->ops->show(h->name);
    log_warn("lookup", "%s: %s: %s", p->spec, shown == NULL ? h->name : shown, why);
    free(shown);
}

static void pool_host_failed(struct pool *p, struct host *h, const char *why) {
    pthread_mutex_lock(&p->lock);
    h->failed_ms = clock_mono_ms();
    close_idle(p, h, INT64_MAX);
    pthread_mutex_unlock(&p->lock);
    pool_host_log(p, h, why);
}

/* Over an idle connection; if the server has closed that one meanwhile, over a new one. */
static enum remote_rc use_host(struct pool *p, struct host *h,
                               enum remote_rc (*fn)(void *arg, void *conn, char **why), void *arg,
                               char **why) {
    for (bool first = true;; first = false) {
        void *conn = first ? conn_take(p, h) : NULL;
        bool fresh = conn == NULL;
        if (fresh && (conn = p->ops->connect(h->name, p->conf, why)) == NULL)
            return REMOTE_LOST;
        enum remote_rc rc = fn(arg, conn, why);
        if (rc != REMOTE_LOST) {
            conn_give(p, h, conn);
            return rc;
        }
        p->ops->close(conn);
        if (fresh)
            return rc;
        free(*why);
        *why = NULL;
    }
}

static enum remote_rc pool_over_hosts(struct pool *p,
                                      enum remote_rc (*fn)(void *arg, void *conn, char **why),
                                      void *arg, bool refused_too, char **why) {
    bool *tried = mem_zalloc(p->n_hosts * sizeof *tried);
    enum remote_rc rc = REMOTE_LOST;
    *why = NULL;
    do {
        pthread_mutex_lock(&p->lock);
        p->turn++;
        struct host *h = host_pick(p, tried);
        pthread_mutex_unlock(&p->lock);
        if (h == NULL)
            break;
        free(*why);
        *why = NULL;
        tried[h - p->hosts] = true;
        rc = use_host(p, h, fn, arg, why);
        if (rc == REMOTE_LOST)
            pool_host_failed(p, h, *why);
        else if (rc == REMOTE_FAILED && refused_too && p->n_hosts > 1)
            pool_host_log(p, h, *why);
    } while (rc == REMOTE_LOST || (rc == REMOTE_FAILED && refused_too));
    free(tried);
    if (rc == REMOTE_LOST && *why == NULL)
        *why = mem_strdup("no server answers");
    return rc;
}

enum remote_rc pool_use(struct pool *p, enum remote_rc (*fn)(void *arg, void *conn, char **why),
                        void *arg, char **why) {
    return pool_over_hosts(p, fn, arg, false, why);
}

enum remote_rc pool_ask(struct pool *p, enum remote_rc (*fn)(void *arg, void *conn, char **why),
                        void *arg, char **why) {
    return pool_over_hosts(p, fn, arg, true, why);
}
