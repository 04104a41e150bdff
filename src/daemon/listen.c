/*
 * daemon/listen.c - listening sockets, bound by the supervisor; see listen.h
 */
#include "daemon/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/reexec.h"
#include "daemon/reload.h"
#include "route/nexthop.h"
#include "route/own.h"
#include "util/clock.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/net.h"
#include "util/notify.h"
#include "util/os.h"

#define BACKLOG       4096
#define BACKLOG_LOCAL 128
/* A program that is about to end has given its port back after so long. */
#define TAKEN_MS      10000
#define TAKEN_LOOK_MS 100

static void set_add(struct listen_set *set, const char *svc_name, struct listen_socket sock) {
    set->v = mem_realloc(set->v, (set->n + 1) * sizeof *set->v);
    sock.svc_name = mem_strdup(svc_name);
    set->v[set->n++] = sock;
}

/* Closes sockets, but for those that another set has taken over, and empties the set. */
static void set_clear(struct listen_set *set) {
    for (size_t i = 0; i < set->n; i++) {
        if (!set->v[i].taken)
            close(set->v[i].fd);
        free(set->v[i].svc_name);
    }
    free(set->v);
    *set = (struct listen_set){.open = set->open};
}

/* What happens while sockets are bound. */
struct binding {
    struct listen_set *old, *next;
    const struct config *cfg;
    size_t loops;
    uid_t uid;              /* the user that owns the sockets (bind_one) */
    struct diags *mistakes; /* not NULL: they are looked for, and nothing is bound */
    const struct service *svc;
};

/* Before the daemon has begun it is the end; at a reload the old sockets stay. */
static void binding_fails(const struct binding *b, const char *what) {
    const char *svc_name = b->svc->name;
    if (b->mistakes != NULL)
        diag_add(b->mistakes, DIAG_ERROR, b->svc->line > 0 ? "master.cf" : NULL, b->svc->line,
                 "service %s: %s: the daemon does not start", svc_name, what);
    else if (b->old->n > 0 && !b->old->inherited)
        log_error("master", "service %s: %s", svc_name, what);
    else
        log_fatal("master", "service %s: %s", svc_name, what);
}

/* A port with SO_REUSEPORT is shared with all programs of the socket's user that want to: were it
 * root's, a Postfix that is started would have half of the clients. */
static int bind_one(const struct netaddr *a, bool open, uid_t uid) {
    int on = 1;
    int fd = os_socket_of(uid, a->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK);
    if (fd < 0)
        return fd;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (a->u.sa.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, &a->u.sa, netaddr_len(a)) < 0 || (open && listen(fd, BACKLOG) < 0)) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

/* SO_REUSEPORT would let us share a port with another program of the same user: ask first. */
int listen_is_free(const struct netaddr *a) {
    int on = 1, rc = 0;
    int fd = socket(a->u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->u.sa.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, &a->u.sa, netaddr_len(a)) < 0 || listen(fd, 1) < 0)
        rc = -errno;
    close(fd);
    return rc;
}

static bool addr_is(const struct listen_socket *sock, const struct netaddr *a) {
    return sock->kind == LISTEN_SMTPD && netaddr_same(&sock->addr, a) &&
           netaddr_port(&sock->addr) == netaddr_port(a);
}

/* Sockets of the old set with that address go on; how many there are.  Of a supervisor with more
 * threads there are more than loops: a loop serves several then, and none with its clients is
 * closed. */
static size_t take_over(struct binding *b, const char *svc_name, const struct netaddr *a) {
    size_t taken = 0;
    for (size_t i = 0; i < b->old->n; i++) {
        struct listen_socket *sock = &b->old->v[i];
        if (!addr_is(sock, a))
            continue;
        set_add(b->next, svc_name,
                (struct listen_socket){
                    .fd = sock->fd, .loop = taken % b->loops, .kind = LISTEN_SMTPD, .addr = *a});
        sock->taken = true;
        taken++;
    }
    return taken;
}

/* On a port of ours the question whether it is free would be answered by ourselves. */
static bool port_is_ours(const struct listen_set *old, const struct netaddr *a) {
    for (size_t i = 0; i < old->n; i++)
        if (old->v[i].kind == LISTEN_SMTPD && netaddr_port(&old->v[i].addr) == netaddr_port(a))
            return true;
    return false;
}

/* One for each loop but for the first, who have theirs. */
static int bind_new(struct binding *b, const char *svc_name, const struct netaddr *a,
                    size_t first) {
    int rc = first >= b->loops || port_is_ours(b->old, a) ? 0 : listen_is_free(a);
    for (size_t i = first; i < b->loops && rc >= 0; i++) {
        rc = bind_one(a, b->old->open, b->uid);
        if (rc == -EADDRINUSE &&
            first > 0) /* beside sockets of an older version, which are root's */
            rc = bind_one(a, b->old->open, geteuid());
        if (rc >= 0)
            set_add(b->next, svc_name,
                    (struct listen_socket){.fd = rc, .loop = i, .kind = LISTEN_SMTPD, .addr = *a});
    }
    return rc < 0 ? rc : 0;
}

/* -EADDRNOTAVAIL: no interface of this machine has the address.  Anything else says nothing. */
static int addr_is_here(const struct netaddr *a) {
    struct netaddr any_port = *a;
    int fd = socket(a->u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), rc = 0;
    if (fd < 0)
        return 0;
    netaddr_set_port(&any_port, 0);
    if (bind(fd, &any_port.u.sa, netaddr_len(&any_port)) < 0 && errno == EADDRNOTAVAIL)
        rc = -EADDRNOTAVAIL;
    close(fd);
    return rc;
}

static int bind_addr(struct binding *b, const struct netaddr *a) {
    const char *svc_name = b->svc->name;
    char ip[INET6_ADDRSTRLEN];
    struct sbuf why = {0};
    int rc = 0;
    for (size_t i = 0; i < b->next->n && rc == 0; i++)
        if (addr_is(&b->next->v[i], a)) {
            sbuf_printf(&why, "bind %s port %u: service %s of master.cf listens there",
                        netaddr_text(a, ip), netaddr_port(a), b->next->v[i].svc_name);
            rc = -EEXIST;
        }
    if (rc == 0 && b->mistakes != NULL)
        rc = addr_is_here(a);
    if (rc == 0 && b->mistakes != NULL)
        set_add(b->next, svc_name,
                (struct listen_socket){.fd = -1, .kind = LISTEN_SMTPD, .addr = *a, .taken = true});
    else if (rc == 0)
        rc = bind_new(b, svc_name, a, take_over(b, svc_name, a));
    if (rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL)
        if (a->u.sa.sa_family == AF_INET6 && netaddr_is_any(a))
            return 0; /* a machine without IPv6 */
    if (rc < 0 && why.n == 0)
        sbuf_printf(&why, "bind %s port %u: %s", netaddr_text(a, ip), netaddr_port(a),
                    strerror(-rc));
    if (rc < 0)
        binding_fails(b, why.p);
    sbuf_free(&why);
    return rc;
}

static bool family_on(const struct config *cfg, int family) {
    const char *p = cfg->p.inet_protocols;
    return strstr(p, "all") != NULL || strstr(p, family == AF_INET ? "ipv4" : "ipv6") != NULL;
}

static int bind_service(struct binding *b, const struct service *svc) {
    struct str host, word;
    uint16_t number;
    int rc = 0;
    const char *why = nexthop_of_service(str_of(svc->name), &host, &number);
    b->svc = svc;
    if (why != NULL) {
        binding_fails(b, why);
        return -EINVAL;
    }
    struct str rest = host.n > 0 ? host : str_of(own_interfaces(b->cfg));
    while (rc == 0 && str_split(&rest, ", \t", &word)) {
        struct netaddr a;
        if (!own_address_parse(&a, word, number)) {
            struct sbuf text = {0};
            sbuf_printf(&text, "\"%.*s\" is not an address", STR_FMT(word));
            binding_fails(b, text.p);
            sbuf_free(&text);
            rc = -EINVAL;
        } else if (family_on(b->cfg, a.u.sa.sa_family)) {
            rc = bind_addr(b, &a);
        }
    }
    return rc;
}

/* The set goes back to what it was. */
static void binding_undo(struct binding *b) {
    for (size_t i = 0; i < b->next->n; i++)
        for (size_t k = 0; k < b->old->n; k++)
            if (b->old->v[k].fd == b->next->v[i].fd)
                b->next->v[i].taken = true;
    for (size_t k = 0; k < b->old->n; k++)
        b->old->v[k].taken = false;
    set_clear(b->next);
}

static bool sock_listens(int fd) {
    int on = 0, type = 0;
    socklen_t n = sizeof on, m = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on != 0 &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &m) == 0 && type == SOCK_STREAM;
}

void listen_inherit(struct listen_set *set, int fd) {
    struct listen_socket sock = {.fd = fd, .kind = LISTEN_SMTPD};
    socklen_t n = sizeof sock.addr.u;
    int flags = fcntl(fd, F_GETFL);
    if (!sock_listens(fd) || getsockname(fd, &sock.addr.u.sa, &n) < 0 ||
        (sock.addr.u.sa.sa_family != AF_INET && sock.addr.u.sa.sa_family != AF_INET6) ||
        fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        close(fd);
        return;
    }
    set_add(set, "", sock);
    set->inherited = true;
}

int listen_bind(struct listen_set *set, const struct config *cfg, size_t loops) {
    struct listen_set next = {.open = set->open};
    const struct passwd *pw = geteuid() == 0 ? getpwnam(cfg->p.mail_owner) : NULL;
    struct binding b = {.old = set,
                        .next = &next,
                        .cfg = cfg,
                        .loops = loops,
                        .uid = pw == NULL ? geteuid() : pw->pw_uid};
    int rc = 0;
    for (size_t i = 0; i < cfg->n_services && rc == 0; i++)
        if (cfg->services[i]->kind == SERVICE_SMTPD)
            rc = bind_service(&b, cfg->services[i]);
    if (rc < 0) {
        binding_undo(&b);
        return rc;
    }
    for (size_t i = 0; i < set->n; i++)
        if (set->v[i].kind != LISTEN_SMTPD) {
            set_add(&next, set->v[i].svc_name, set->v[i]);
            set->v[i].taken = true;
        } else if (!set->v[i].taken) {
            /* the relay has it for a moment yet: its port can be bound again at once */
            shutdown(set->v[i].fd, SHUT_RDWR);
        }
    set_clear(set);
    *set = next;
    return 0;
}

/* The first address that another program has: "" where there is none. */
struct taken {
    char text[192];
};

static void taken_look(void *arg, const struct service *svc, const struct netaddr *a) {
    struct taken *t = arg;
    char ip[INET6_ADDRSTRLEN];
    if (t->text[0] == '\0' && listen_is_free(a) == -EADDRINUSE)
        snprintf(t->text, sizeof t->text, "service %s: %s port %u", svc->name, netaddr_text(a, ip),
                 netaddr_port(a));
}

static bool stop_is_pending(void) {
    sigset_t pending;
    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

/* False: it is to stop. */
static bool taken_wait(const struct config *cfg) {
    int64_t until_ms = clock_mono_ms() + TAKEN_MS;
    for (bool said = false;; said = true) {
        struct taken t = {{0}};
        listen_each(cfg, taken_look, &t);
        if (t.text[0] == '\0' || clock_mono_ms() >= until_ms)
            return true;
        if (!said) {
            log_warn("master", "%s: another program listens there: it is waited for, for %d s",
                     t.text, TAKEN_MS / 1000);
            notify_send("STATUS=starting: another program has the port");
        }
        poll(NULL, 0, TAKEN_LOOK_MS);
        if (stop_is_pending())
            return false;
    }
}

int listen_begin(struct listen_set *set, const struct config *cfg, size_t loops, bool first) {
    if (first && notify_wanted() && !taken_wait(cfg))
        return -EINTR;
    return listen_bind(set, cfg, loops);
}

void listen_check(const struct config *cfg, struct diags *d) {
    struct listen_set none = {0}, seen = {0};
    struct binding b = {.old = &none, .next = &seen, .cfg = cfg, .mistakes = d};
    for (size_t i = 0; i < cfg->n_services; i++)
        if (cfg->services[i]->kind == SERVICE_SMTPD)
            bind_service(&b, cfg->services[i]);
    set_clear(&seen);
}

void listen_each(const struct config *cfg,
                 void (*fn)(void *arg, const struct service *svc, const struct netaddr *a),
                 void *arg) {
    struct listen_set none = {0}, seen = {0};
    struct diags unused = {0};
    struct binding b = {.old = &none, .next = &seen, .cfg = cfg, .mistakes = &unused};
    for (size_t i = 0, told = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        if (svc->kind == SERVICE_SMTPD)
            bind_service(&b, svc);
        for (; told < seen.n; told++)
            fn(arg, svc, &seen.v[told].addr);
    }
    set_clear(&seen);
    diag_free(&unused);
}

/* The name a socket is bound to in a folder that another user owns: made at once with its mode and
 * group, for what a path means could be changed between two calls.  Linux makes the file with the
 * mode of the socket's own inode.  group -1: root's. */
static int bind_as(int fd, int at, const char *name, mode_t mode, int64_t group) {
    mode_t mask = umask(0);
    gid_t own = getegid();
    int rc = fchmod(fd, mode) < 0 ? -errno : 0;
    if (rc == 0 && group >= 0 && geteuid() == 0 && setegid((gid_t)group) < 0)
        rc = -errno;
    if (rc == 0)
        rc = os_bind_at(fd, at, name);
    if (getegid() != own && setegid(own) < 0 && rc == 0)
        rc = -errno;
    umask(mask);
    return rc;
}

/* A unix socket at name in folder (of the current directory), which must not be a symbolic link. */
static int bind_unix(const char *folder, const char *name, mode_t mode, int64_t group) {
    int at = open(folder, OS_O_PLACE | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (at < 0)
        return -errno;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = fd < 0 ? -errno : 0;
    unlinkat(at, name, 0);
    if (rc == 0)
        rc = bind_as(fd, at, name, mode, group);
    if (rc == 0 && listen(fd, BACKLOG_LOCAL) < 0)
        rc = -errno;
    close(at);
    if (rc < 0 && fd >= 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

/* The group of the current directory: mail_owner's, in which posthouse-web is. */
static int64_t spool_group(void) {
    struct stat st;
    return stat(".", &st) < 0 ? -1 : (int64_t)st.st_gid;
}

static const struct {
    enum listen_kind kind;
    const char *folder, *name;
    mode_t mode;
} local_sockets[] = {{LISTEN_SENDMAIL, "public", "submit.sock", 0666},
                     {LISTEN_CONTROL, ".", "control.sock", 0660},
                     {LISTEN_QUEUE, "public", "queue.sock", 0666}};
#define N_LOCAL (sizeof local_sockets / sizeof local_sockets[0])

static int open_local(struct listen_set *set, const struct config *cfg) {
    int fd = fs_mkdir("public", 0755);
    for (size_t i = 0; i < N_LOCAL && fd >= 0; i++) {
        int64_t group = local_sockets[i].kind == LISTEN_CONTROL ? spool_group() : -1;
        fd =
            bind_unix(local_sockets[i].folder, local_sockets[i].name, local_sockets[i].mode, group);
        if (fd >= 0)
            set_add(set, "", (struct listen_socket){.fd = fd, .kind = local_sockets[i].kind});
    }
    if (fd < 0)
        log_fatal("master", "unix sockets in %s: %s", cfg->p.queue_directory, strerror(-fd));
    return fd < 0 ? fd : 0;
}

/* Negative errno after logging. */
static int open_services(const struct listen_set *set) {
    char ip[INET6_ADDRSTRLEN];
    for (size_t i = 0; i < set->n; i++) {
        const struct listen_socket *sock = &set->v[i];
        if (listen(sock->fd, BACKLOG) == 0)
            continue;
        int rc = -errno;
        log_fatal("master", "service %s: listen at %s port %u: %s", sock->svc_name,
                  netaddr_text(&sock->addr, ip), netaddr_port(&sock->addr), strerror(-rc));
        return rc;
    }
    return 0;
}

void listen_unlink(void) {
    for (size_t i = 0; i < N_LOCAL; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", local_sockets[i].folder, local_sockets[i].name);
        unlink(path);
    }
}

/* A socket that listened and is shut down keeps its address, and can listen again (Linux). */
void listen_shut(struct listen_set *set) {
    size_t kept = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (set->v[i].kind == LISTEN_SMTPD) {
            shutdown(set->v[i].fd, SHUT_RDWR);
            set->v[kept++] = set->v[i];
            continue;
        }
        close(set->v[i].fd);
        free(set->v[i].svc_name);
    }
    set->n = kept;
    set->open = false;
    listen_unlink();
}

int listen_open(struct listen_set *set, const struct config *cfg) {
    if (set->open)
        return 0;
    int rc = open_services(set);
    if (rc == 0)
        rc = open_local(set, cfg);
    if (rc < 0)
        listen_shut(set);
    else
        set->open = true;
    return rc;
}

void listen_forget(struct listen_set *set) {
    set_clear(set);
}

int listen_restart(const struct config *cfg) {
    int fd = bind_unix(".", RESTART_SOCKET, 0600, -1);
    if (fd < 0)
        log_fatal("master", RESTART_SOCKET " in %s: %s", cfg->p.queue_directory, strerror(-fd));
    return fd;
}

int listen_reload(const struct config *cfg) {
    int fd = bind_unix(".", RELOAD_SOCKET, 0660, reload_group(cfg));
    if (fd < 0)
        log_fatal("master", RELOAD_SOCKET " in %s: %s", cfg->p.queue_directory, strerror(-fd));
    return fd;
}
