/*
 * daemon/audit_sockets.c - posthouse check: sockets of other programs that mail_owner may not open
 *
 * Where Postfix was, Dovecot and policy services have theirs below its folder "private", which is
 * open to Postfix alone.  A child that becomes mail_owner tries the path, for groups and access
 * lists count; only root can do that, and to others nothing is said.
 */
#include <errno.h>
#include <pwd.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/audit.h"
#include "receive/access.h"
#include "route/nexthop.h"
#include "util/os.h"

struct sockets {
    const struct config *c;
    struct diags *d;
    const struct passwd *owner; /* NULL: no such user, or not root */
};

/* A socket that is not there yet is no mistake of rights. */
static bool may_open(const struct passwd *owner, const char *path) {
    int status = 0;
    pid_t pid = fork();
    if (pid == 0)
        _exit(os_become(owner->pw_uid, owner->pw_gid, false) == 0 && access(path, W_OK) < 0 &&
              errno == EACCES);
    return pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
           WEXITSTATUS(status) != 1;
}

/* path: below queue_directory, that of Postfix where it is the one meant, or absolute. */
static void check_socket(const struct sockets *s, struct str path, const char *file, int line,
                         const char *who, const char *consequence) {
    const struct config *c = s->c;
    struct sbuf whole = {0};
    if (path.n > 0 && path.p[0] != '/')
        sbuf_printf(&whole, "%s/",
                    c->socket_folder != NULL ? c->socket_folder : c->p.queue_directory);
    sbuf_add_str(&whole, path);
    if (!may_open(s->owner, whole.p))
        diag_add(s->d, DIAG_WARN, file, line,
                 "%s: %s, whom mail_owner names, may not open %s: %s; its program (Dovecot: "
                 "unix_listener) is to make it in a folder that this user can pass through, and "
                 "writable for it",
                 who, c->p.mail_owner, whole.p, consequence);
    sbuf_free(&whole);
}

/* -- who has one -- */

static void check_hop(const struct sockets *s, const char *name, const char *value) {
    const struct config *c = s->c;
    size_t n = strcspn(value, ":");
    const struct service *svc = n == 0 ? NULL : config_transport(c, str_make(value, n));
    const struct cfg_entry *e = cfg_file_find(&c->main, str_of(name));
    struct nexthop hop;
    if (svc != NULL && svc->kind == SERVICE_LMTP && value[n] == ':' &&
        nexthop_parse_lmtp(&hop, str_of(value + n + 1), 24) == NULL && hop.local)
        check_socket(s, hop.host, c->main.path, e == NULL ? 0 : e->line, name, "mail for it waits");
}

static void check_login(const struct sockets *s, const struct service *svc) {
    struct str path = str_of(svc->p.smtpd_sasl_path);
    if (!svc->p.smtpd_sasl_auth_enable || strcmp(svc->p.smtpd_sasl_type, "dovecot") != 0 ||
        str_istarts(path, "inet:"))
        return;
    check_socket(s, str_istarts(path, "unix:") ? str_from(path, 5) : path, "master.cf", svc->line,
                 "smtpd_sasl_path", "nobody can log in");
}

struct policy_look {
    const struct sockets *s;
    const struct service *svc;
};

static void check_policy(void *arg, struct str where) {
    const struct policy_look *l = arg;
    if (str_istarts(where, "unix:"))
        check_socket(l->s, str_from(where, 5), "master.cf", l->svc->line, "check_policy_service",
                     "mail is put off, as smtpd_policy_service_default_action says");
}

void audit_sockets(const struct config *c, struct diags *d) {
    const struct params *p = &c->p;
    const struct sockets s = {c, d, geteuid() == 0 ? getpwnam(p->mail_owner) : NULL};
    if (s.owner == NULL)
        return;
    check_hop(&s, "default_transport", p->default_transport);
    check_hop(&s, "relay_transport", p->relay_transport);
    check_hop(&s, "virtual_transport", p->virtual_transport);
    check_hop(&s, "local_transport", p->local_transport);
    for (size_t i = 0; i < c->n_services; i++) {
        struct policy_look look = {&s, c->services[i]};
        if (c->services[i]->kind != SERVICE_SMTPD)
            continue;
        check_login(&s, c->services[i]);
        access_each_policy(c->services[i], check_policy, &look);
    }
}
