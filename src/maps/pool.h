/*
 * maps/pool.h - connections to the servers behind a table
 *
 * Any number of threads ask at once; each takes an idle connection or makes one.  A host that fails
 * rests for retry_interval while another one answers; when there is no other, it is tried again
 * after a second.
 */
#ifndef PH_MAPS_POOL_H
#define PH_MAPS_POOL_H

#include "maps/tabconf.h"
#include "util/str.h"

/* Seconds that a server may take: to connect, and for an answer. */
#define REMOTE_CONNECT_S 5
#define REMOTE_ANSWER_S  10

enum remote_rc {
    REMOTE_OK,
    REMOTE_LOST,  /* the connection is of no use any more: another one may do */
    REMOTE_FAILED /* the server refuses the question */
};

struct pool_ops {
    /* NULL with *why (the caller frees). */
    void *(*connect)(const char *host, const struct tabconf *c, char **why);
    void (*close)(void *conn);
    /* What may be shown of a host that is more than a name: with its password left out (the caller
     * frees).  NULL: all of it. */
    char *(*show)(const char *host);
};

struct pool;

/* Waits until fd is ready for events (poll(2)) or the monotonic clock says until_ms: false. */
bool pool_wait(int fd, short events, int64_t until_ms);

/* hosts: separated by blanks or commas; conf and spec live as long as the pool.  idle_ms, retry_ms:
 * how long an idle connection is kept, a host that failed is passed over. */
struct pool *pool_new(const struct pool_ops *ops, const struct tabconf *conf, const char *spec,
                      const char *hosts, int64_t idle_ms, int64_t retry_ms);
void pool_free(struct pool *p);
size_t pool_hosts(const struct pool *p);
/* Runs fn over a connection, and again over another one, or to another host, while it says LOST.
 * *why (the caller frees) unless REMOTE_OK. */
enum remote_rc pool_use(struct pool *p, enum remote_rc (*fn)(void *arg, void *conn, char **why),
                        void *arg, char **why);
/* For a question that changes nothing: also asks the other hosts while it says FAILED.  A server of
 * a cluster may be reached and yet refuse every question, as one that has lost the others does. */
enum remote_rc pool_ask(struct pool *p, enum remote_rc (*fn)(void *arg, void *conn, char **why),
                        void *arg, char **why);

#endif
