/*
 * receive/receive.c - the SMTP server of one loop: listeners, certificate, reload, stop
 *
 * The loop's thread.  A struct receive lives as long as the process; listeners are freed by
 * receive_deaf and receive_stop, sessions free themselves (serve.c).
 */
#include "receive/receive.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "receive/auth.h"
#include "receive/certificate.h"
#include "receive/policyd.h"
#include "receive/serve.h"
#include "util/accept.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/sock.h"

struct listener {
    struct dl link; /* receive->listeners */
    struct receive *r;
    struct acceptor *acceptor;
    struct service_load *load; /* of the service of master.cf */
    bool local;                /* a unix socket for sendmail */
};

static const struct service *smtpd_service(const struct config *cfg, const char *name) {
    for (size_t i = 0; i < cfg->n_services; i++)
        if (cfg->services[i]->kind == SERVICE_SMTPD && strcmp(cfg->services[i]->name, name) == 0)
            return cfg->services[i];
    return NULL;
}

static const struct service *listener_service(const struct listener *ln) {
    const struct config *cfg = ln->r->cfg;
    return ln->local ? &cfg->sendmail : smtpd_service(cfg, ln->load->svc_name);
}

/* Takes a place at the service for a client; false: there is none left.  Each service has its own
 * limit: strangers at one take no place of those that log in at another.  All loops take places at
 * the same time: looking and taking are one step. */
static bool load_take(struct service_load *load, const struct service *svc) {
    int64_t procs = svc->maxproc < 0 ? svc->p.default_process_limit : svc->maxproc;
    size_t n = atomic_load(&load->n_sessions);
    do {
        if (procs > 0 && n >= (size_t)procs * SESSIONS_PER_PROC)
            return false;
    } while (!atomic_compare_exchange_weak(&load->n_sessions, &n, n + 1));
    return true;
}

/* One of all loops: the limit is the machine's, and the kernel spreads clients unevenly. */
static struct service_load *load_of(const char *svc_name) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct service_load *all;
    pthread_mutex_lock(&lock);
    struct service_load *load = all;
    while (load != NULL && strcmp(load->svc_name, svc_name) != 0)
        load = load->next;
    if (load == NULL) {
        load = MEM_NEW(struct service_load);
        load->svc_name = mem_strdup(svc_name);
        load->next = all;
        all = load;
    }
    pthread_mutex_unlock(&lock);
    return load;
}

/* A client that waits for TLS is told nothing in clear.  Whether it takes the line or not, that was
 * all. */
static void listener_refuse(const struct listener *ln, int fd, const char *line) {
    const struct service *svc = listener_service(ln);
    if (ln->local || svc == NULL || !svc->p.smtpd_tls_wrappermode)
        sock_send(fd, line, strlen(line));
    sock_close(fd);
}

/* Out of descriptors: the client is told to come later, and the log, once a minute. */
static void listener_full(void *arg, int fd) {
    struct listener *ln = arg;
    struct receive *r = ln->r;
    if (smtpd_may_warn(r, &r->full_ms))
        log_warn("smtpd", "too many open files (limit %d): new clients are refused for now",
                 r->fd_max);
    if (fd >= 0)
        listener_refuse(ln, fd, "421 4.3.2 Too many connections, try again later\r\n");
}

static void listener_client(void *arg, int fd, const struct netaddr *peer) {
    struct listener *ln = arg;
    struct receive *r = ln->r;
    const struct service *svc = listener_service(ln);
    if (fd > r->fd_max) {
        listener_full(ln, fd);
        return;
    }
    if (svc == NULL || r->stop != RECEIVE_SERVES || !load_take(ln->load, svc)) {
        listener_refuse(ln, fd, "421 4.3.2 Service not available, try again later\r\n");
        return;
    }
    serve_client(r, fd, peer, svc, ln->load, ln->local);
}

static const struct accept_ops listener_ops = {listener_client, listener_full};

void receive_listen(struct receive *r, int fd, const char *svc_name, bool local) {
    struct listener *ln = MEM_NEW(struct listener);
    ln->r = r;
    ln->local = local;
    ln->load = load_of(svc_name);
    ln->acceptor = acceptor_new(r->loop, fd, &listener_ops, ln);
    dl_push(&r->listeners, &ln->link);
}

struct receive *receive_new(struct loop *l, struct lookup *k, struct spool *sp, struct config *cfg,
                            const struct receive_ops *ops) {
    struct receive *r = MEM_NEW(struct receive);
    r->loop = l;
    r->lookup = k;
    r->spool = sp;
    r->cfg = config_ref(cfg);
    r->ops = *ops;
    dl_init(&r->listeners);
    dl_init(&r->sessions);
    dl_init(&r->auth_servers);
    r->policies = policyd_new(l, ops->loops);
    certificates_load(&r->tls, r->cfg);
    int limit = fs_descriptors_max();
    r->fd_max = limit - limit / 10 - 32;
    r->full_ms = r->crowded_ms = r->held_ms = -SMTPD_WARN_MS;
    auth_reload(r);
    return r;
}

void receive_reload(struct receive *r, struct config *cfg) {
    config_unref(r->cfg);
    r->cfg = config_ref(cfg);
    certificates_load(&r->tls, r->cfg);
    auth_reload(r);
}

static void stop_sessions(struct receive *r, enum receive_stage stage) {
    if (r->stop >= stage)
        return;
    r->stop = stage;
    DL_EACH_SAFE (it, &r->sessions)
        serve_stop(DL_OWNER(it, struct session, link));
}

void receive_deaf(struct receive *r) {
    struct dl *n;
    while ((n = dl_pop(&r->listeners)) != NULL) {
        struct listener *ln = DL_OWNER(n, struct listener, link);
        acceptor_close(ln->acceptor);
        free(ln);
    }
}

void receive_stop(struct receive *r) {
    receive_deaf(r);
    stop_sessions(r, RECEIVE_ENDS);
}

void receive_leave(struct receive *r) {
    receive_stop(r);
    stop_sessions(r, RECEIVE_LEAVES);
}

size_t receive_sessions(const struct receive *r) {
    return r->n_sessions;
}
