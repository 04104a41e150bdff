/*
 * daemon/listen.c - listening sockets, bound by the supervisor
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/daemon.h"
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

static int bind_unix(const char *path, mode_t mode) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    strncpy(a.sun_path, path, sizeof a.sun_path - 1);
    unlink(path);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || chmod(path, mode) < 0 ||
        listen(fd, 128) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

int listen_bind(struct listen_set *set, const struct config *cfg, size_t loops) {
    *set = (struct listen_set){.control = -1};
    for (size_t i = 0; i < cfg->n_services; i++) {
        if (cfg->services[i]->kind != SERVICE_SMTPD)
            continue;
        int rc = bind_service(set, cfg, cfg->services[i], loops);
        if (rc < 0)
            return rc;
    }
    int rc = fs_mkdir("public", 0755);
    int fd = rc < 0 ? rc : bind_unix("public/submit.sock", 0666);
    if (fd >= 0) {
        set_add(set, "sendmail", fd, 0, true);
        fd = set->control = bind_unix("control.sock", 0660);
        fs_adopt("control.sock"); /* posthouse-web is in mail_owner's group */
    }
    if (fd < 0)
        log_fatal("master", "unix sockets in %s: %s", cfg->p.queue_directory, strerror(-fd));
    return fd < 0 ? fd : 0;
}
