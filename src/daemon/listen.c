/*
 * daemon/listen.c - listening sockets, bound by the supervisor
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/reload.h"
#include "route/nexthop.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/net.h"

#define BACKLOG 1024

static void set_add(struct listen_set *set, const char *service, int fd, size_t loop, bool local) {
    set->v = mem_realloc(set->v, (set->n + 1) * sizeof *set->v);
    set->v[set->n++] = (struct listen_socket){mem_strdup(service), fd, loop, local};
}

static int bind_one(const struct netaddr *a) {
    int on = 1;
    int fd = socket(a->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (a->u.sa.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, &a->u.sa, netaddr_len(a)) < 0 || listen(fd, BACKLOG) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

/* SO_REUSEPORT would let us share a port with another program of the same user: ask first. */
static int port_is_free(const struct netaddr *a) {
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

static int bind_addr(struct listen_set *set, const struct service *svc, const struct netaddr *a,
                     size_t loops) {
    char ip[INET6_ADDRSTRLEN];
    int rc = port_is_free(a);
    for (size_t i = 0; i < loops && rc >= 0; i++) {
        rc = bind_one(a);
        if (rc >= 0)
            set_add(set, svc->name, rc, i, false);
    }
    if (rc < 0)
        log_fatal("master", "bind %s port %u (service %s): %s", netaddr_text(a, ip),
                  netaddr_port(a), svc->name, strerror(-rc));
    return rc < 0 ? rc : 0;
}

static bool family_on(const struct config *cfg, int family) {
    const char *p = cfg->p.inet_protocols;
    return strstr(p, "all") != NULL || strstr(p, family == AF_INET ? "ipv4" : "ipv6") != NULL;
}

/* "all" and "loopback-only" as addresses. */
static const char *interfaces(const struct config *cfg) {
    const char *v = cfg->p.inet_interfaces;
    if (strcmp(v, "all") == 0)
        return "0.0.0.0 ::";
    if (strcmp(v, "loopback-only") == 0)
        return "127.0.0.1 ::1";
    return v;
}

static int bind_service(struct listen_set *set, const struct config *cfg, const struct service *svc,
                        size_t loops) {
    struct str name = str_of(svc->name), host = STR_NONE, word;
    ptrdiff_t colon = str_rchr(name, ':');
    struct nexthop port;
    struct sbuf probe = {0};
    if (colon >= 0)
        host = str_make(name.p, (size_t)colon);
    sbuf_printf(&probe, "h:%.*s", STR_FMT(str_from(name, (size_t)(colon + 1))));
    const char *why = nexthop_parse(&port, sbuf_str(&probe), 25);
    uint16_t number = port.port;
    sbuf_free(&probe);
    if (why != NULL) {
        log_fatal("master", "service %s: %s", svc->name, why);
        return -EINVAL;
    }
    if (host.n > 2 && host.p[0] == '[')
        host = str_make(host.p + 1, host.n - 2);
    struct str rest = host.n > 0 ? host : str_of(interfaces(cfg));
    int rc = 0;
    while (rc == 0 && str_split(&rest, ", \t", &word)) {
        struct netaddr a;
        if (word.n > 2 && word.p[0] == '[')
            word = str_make(word.p + 1, word.n - 2);
        if (str_ieq_c(word, "localhost"))
            word = STR_LIT("127.0.0.1");
        if (!netaddr_parse(&a, word, number)) {
            log_fatal("master", "service %s: \"%.*s\" is not an address", svc->name, STR_FMT(word));
            rc = -EINVAL;
        } else if (family_on(cfg, a.u.sa.sa_family)) {
            rc = bind_addr(set, svc, &a, loops);
            bool any6 = a.u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a.u.in6.sin6_addr);
            if (any6 && (rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL))
                rc = 0; /* a machine without IPv6 */
        }
    }
    return rc;
}

/* The name a socket is bound to in a folder that another user owns: made at once with its mode and
 * group, for what a path means could be changed between two calls.  Linux makes the file with the
 * mode of the socket's own inode.  group -1: root's. */
static int bind_as(int fd, const char *path, mode_t mode, int64_t group) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    mode_t mask = umask(0);
    gid_t own = getegid();
    strncpy(a.sun_path, path, sizeof a.sun_path - 1);
    int rc = fchmod(fd, mode) < 0 ? -errno : 0;
    if (rc == 0 && group >= 0 && geteuid() == 0 && setegid((gid_t)group) < 0)
        rc = -errno;
    if (rc == 0 && bind(fd, (struct sockaddr *)&a, sizeof a) < 0)
        rc = -errno;
    if (getegid() != own && setegid(own) < 0 && rc == 0)
        rc = -errno;
    umask(mask);
    return rc;
}

/* A unix socket at name in folder (of the current directory), which must not be a symbolic link. */
static int bind_unix(const char *folder, const char *name, mode_t mode, int64_t group) {
    char path[64];
    int at = open(folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (at < 0)
        return -errno;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = fd < 0 ? -errno : 0;
    unlinkat(at, name, 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", at, name);
    if (rc == 0)
        rc = bind_as(fd, path, mode, group);
    if (rc == 0 && listen(fd, 128) < 0)
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

static int bind_local(struct listen_set *set, const struct config *cfg) {
    int rc = fs_mkdir("public", 0755);
    int fd = rc < 0 ? rc : bind_unix("public", "submit.sock", 0666, -1);
    if (fd >= 0) {
        set_add(set, "sendmail", fd, 0, true);
        fd = set->control = bind_unix(".", "control.sock", 0660, spool_group());
    }
    if (fd >= 0)
        fd = set->queue = bind_unix("public", "queue.sock", 0666, -1);
    if (fd >= 0)
        fd = set->reload = bind_unix(".", RELOAD_SOCKET, 0660, reload_group(cfg));
    if (fd < 0)
        log_fatal("master", "unix sockets in %s: %s", cfg->p.queue_directory, strerror(-fd));
    return fd < 0 ? fd : 0;
}

int listen_bind(struct listen_set *set, const struct config *cfg, size_t loops) {
    *set = (struct listen_set){.control = -1, .queue = -1, .reload = -1};
    for (size_t i = 0; i < cfg->n_services; i++) {
        if (cfg->services[i]->kind != SERVICE_SMTPD)
            continue;
        int rc = bind_service(set, cfg, cfg->services[i], loops);
        if (rc < 0)
            return rc;
    }
    return bind_local(set, cfg);
}
