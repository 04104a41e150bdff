/*
 * web/guests.c - which connections make room when the page has many; see guests.h
 *
 * The library calls guests_notify from the thread that accepts, guest_keep comes from the
 * connection's own thread; one lock guards them all.  A guest belongs to its connection and is
 * freed when the library says that the connection is closed.
 */
#include "web/guests.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/list.h"
#include "util/mem.h"
#include "util/net.h"
#include "web/throttle.h"

struct guest {
    struct dl link;
    int fd;       /* the connection's socket once more: the library closes its own at any time */
    uint64_t who; /* hash of the client's address */
    bool kept;    /* not to be ended for others */
    bool ended;   /* by us */
};

/* The oldest first, but for those that were kept: they count from the end of that. */
static struct dl guests = {&guests, &guests};
static unsigned guests_n; /* those that are not ended */
static pthread_mutex_t guests_lock = PTHREAD_MUTEX_INITIALIZER;

bool guest_peer(struct MHD_Connection *conn, struct netaddr *peer) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (info == NULL || info->client_addr == NULL || info->client_addr->sa_family == AF_UNIX)
        return false;
    *peer = (struct netaddr){0};
    memcpy(&peer->u, info->client_addr,
           info->client_addr->sa_family == AF_INET6 ? sizeof peer->u.in6 : sizeof peer->u.in4);
    netaddr_unmap(peer);
    return true;
}

static uint64_t guest_address(struct MHD_Connection *conn) {
    struct netaddr peer;
    char text[INET6_ADDRSTRLEN], network[INET6_ADDRSTRLEN];
    if (!guest_peer(conn, &peer))
        return 0;
    netaddr_text(&peer, text);
    return str_hash(str_of(netaddr_network(text, THROTTLE_NETWORK, network)));
}

static unsigned guests_of(uint64_t who) {
    unsigned n = 0;
    DL_EACH (it, &guests) {
        const struct guest *g = DL_OWNER(it, struct guest, link);
        n += g->who == who && !g->ended;
    }
    return n;
}

/* Under the lock. */
static void guests_end_one(void) {
    struct guest *victim = NULL;
    unsigned most = 0;
    DL_EACH (it, &guests) {
        struct guest *g = DL_OWNER(it, struct guest, link);
        if (g->kept || g->ended || (victim != NULL && victim->who == g->who))
            continue;
        unsigned n = guests_of(g->who);
        if (n > most) {
            most = n;
            victim = g;
        }
    }
    if (victim == NULL)
        return;
    victim->ended = true;
    guests_n--;
    shutdown(victim->fd, SHUT_RDWR); /* its thread finds that the client has gone */
}

static struct guest *guest_new(struct MHD_Connection *conn) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    int fd = info == NULL ? -1 : fcntl(info->connect_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    struct guest *g = MEM_NEW(struct guest);
    *g = (struct guest){.fd = fd, .who = guest_address(conn)};
    return g;
}

void guests_notify(void *cls, struct MHD_Connection *conn, void **guest,
                   enum MHD_ConnectionNotificationCode code) {
    struct guest *g = code == MHD_CONNECTION_NOTIFY_STARTED ? guest_new(conn) : *guest;
    (void)cls;
    if (g == NULL)
        return;
    pthread_mutex_lock(&guests_lock);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        if (guests_n >= GUESTS_MAX)
            guests_end_one();
        dl_push(&guests, &g->link);
        guests_n++;
        *guest = g;
    } else {
        dl_remove(&g->link);
        guests_n -= !g->ended;
        close(g->fd);
        free(g);
        *guest = NULL;
    }
    pthread_mutex_unlock(&guests_lock);
}

void guest_keep(struct MHD_Connection *conn, bool keep) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct guest *g = info == NULL ? NULL : info->socket_context;
    if (g == NULL)
        return;
    pthread_mutex_lock(&guests_lock);
    if (g->kept && !keep) {
        dl_remove(&g->link);
        dl_push(&guests, &g->link);
    }
    g->kept = keep;
    pthread_mutex_unlock(&guests_lock);
}
