/*
 * daemon/audit_places.c - posthouse check: who else is there
 *
 * Owners and rights of the spool, of keys and of tables with passwords; transports that
 * master.cf does not have; Postfix in front of Posthouse on the same machine.
 */
#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/audit.h"
#include "daemon/confine.h"
#include "daemon/uses.h"
#include "maps/maps.h"
#include "route/nexthop.h"
#include "route/own.h"
#include "util/fs.h"
#include "util/net.h"

struct places {
    const struct config *c;
    struct diags *d;
    const struct config *front; /* Postfix's; NULL: there is none */
    bool said;
};

static int places_line_of(const struct config *c, const char *name) {
    const struct cfg_entry *e = cfg_file_find(&c->main, str_of(name));
    return e == NULL ? 0 : e->line;
}

/* -- owners and rights -- */

static void check_secret_file(void *arg, const char *path) {
    struct places *a = arg;
    struct stat st;
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IROTH) != 0)
        diag_add(a->d, DIAG_WARN, path, 0,
                 "it has a password or a key, and every user may read it");
}

/* A certificate is for everybody, its key is not. */
static void check_key_file(void *arg, const char *path) {
    struct places *a = arg;
    int err = 0;
    struct str text = config_file(a->c, path, &err);
    if (err == 0 && memmem(text.p, text.n, "PRIVATE KEY-----", 16) != NULL)
        check_secret_file(arg, path);
}

static void check_secret_tables(struct places *a, const char *value) {
    struct maps *m = maps_open(value, a->c->dir);
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i]->path != NULL) {
            check_secret_file(a, m->v[i]->path);
            if (m->v[i]->name != NULL && strcmp(m->v[i]->name, m->v[i]->path) != 0)
                check_secret_file(a, m->v[i]->name);
        }
    maps_close(m);
}

/* Is it, as all of the spool has to be, mail_owner's, or of the user who runs everything? */
static bool spool_owned(struct places *a, const struct passwd *owner, const char *path) {
    struct stat st;
    bool wrong = lstat(path, &st) == 0 && st.st_uid != owner->pw_uid &&
                 (geteuid() == 0 || st.st_uid != geteuid());
    if (wrong)
        diag_add(a->d, DIAG_ERROR, path, 0,
                 "it belongs to user %u, and mail_owner is %s: posthoused does not start; if it "
                 "is of Posthouse's spool: chown -R %s: %s",
                 (unsigned)st.st_uid, a->c->p.mail_owner, a->c->p.mail_owner,
                 a->c->p.queue_directory);
    return !wrong;
}

/* A copy of the spool that root has made without its owners is root's. */
static void check_spool_owner(struct places *a) {
    static const char *const folders[] = {"damaged", "body", "log"};
    const struct passwd *owner = getpwnam(a->c->p.mail_owner);
    struct sbuf path = {0};
    bool good = owner != NULL;
    for (size_t i = 0; good && i < sizeof folders / sizeof folders[0]; i++) {
        sbuf_reset(&path);
        sbuf_printf(&path, "%s/%s", a->c->p.queue_directory, folders[i]);
        good = spool_owned(a, owner, path.p);
    }
    DIR *log = good ? opendir(path.p) : NULL;
    for (const struct dirent *e; good && log != NULL && (e = readdir(log)) != NULL;) {
        sbuf_reset(&path);
        sbuf_printf(&path, "%s/log/%s", a->c->p.queue_directory, e->d_name);
        good = strspn(e->d_name, "0123456789abcdef") != 16 || spool_owned(a, owner, path.p);
    }
    if (log != NULL)
        closedir(log);
    sbuf_free(&path);
}

/* Tables that have keys in them; those of texthash are in files. */
static void check_key_tables(struct places *a, const char *value) {
    struct maps *m = maps_open(value, a->c->dir);
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i]->path != NULL && m->v[i]->ops != &map_texthash)
            check_secret_file(a, m->v[i]->path);
    maps_close(m);
}

/* -- transports -- */

static void check_transport(struct places *a, const char *name, const char *value) {
    const struct config *c = a->c;
    struct str t = str_make(value, strcspn(value, ":"));
    const struct service *svc = t.n == 0 ? NULL : config_transport(c, t);
    if (t.n == 0 || places_line_of(c, name) == 0 || (svc != NULL && svc->kind != SERVICE_UNUSED))
        return;
    diag_add(a->d, DIAG_WARN, c->main.path, places_line_of(c, name),
             "%s: \"%.*s\" is not a transport that Posthouse has%s: mail for it waits", name,
             STR_FMT(t), svc == NULL ? ", and master.cf has none of that name" : "");
}

/* -- Postfix in front -- */

/* Is the hop on this machine, by an address that only it has? */
static bool hop_is_here(struct str text, struct nexthop *hop) {
    struct netaddr addr;
    return nexthop_parse(hop, text, 25) == NULL &&
           (str_ieq_c(hop->host, "localhost") ||
            (netaddr_parse(&addr, hop->host, 0) && netaddr_is_loopback(&addr)));
}

/* Does a value of the front server's, a relay host or transport:next hop, lead to us? */
static bool front_leads_here(const struct config *c, const char *value, bool transport) {
    struct str text = str_of(value);
    ptrdiff_t colon = str_chr(text, ':');
    struct nexthop hop;
    if (transport)
        text = colon < 0 ? STR_LIT("") : str_from(text, (size_t)colon + 1);
    return text.n > 0 && hop_is_here(text, &hop) && own_service_of(c, &hop) != NULL;
}

static void front_hop(void *arg, struct str text, const char *where) {
    struct places *a = arg;
    struct nexthop hop;
    if (a->said || !hop_is_here(text, &hop) || own_service_of(a->c, &hop) != NULL)
        return;
    a->said = true;
    diag_add(
        a->d, DIAG_ERROR, a->c->main.path, places_line_of(a->c, "myhostname"),
        "myhostname: %s is the name of Postfix in front, too (%s), and %s sends mail back to it: "
        "it would be taken for a loop; give Posthouse another name, and smtp_helo_name this one",
        a->c->p.myhostname, a->front->dir, where);
}

static void check_front(struct places *a) {
    const struct config *c = a->c, *f = a->front;
    bool relay = front_leads_here(c, f->p.relayhost, false);
    if (!relay && !front_leads_here(c, f->p.default_transport, true))
        return;
    int64_t ours = c->p.message_size_limit, theirs = f->p.message_size_limit;
    if (ours != 0 && (theirs == 0 || theirs > ours))
        diag_add(a->d, DIAG_WARN, c->main.path, places_line_of(c, "message_size_limit"),
                 "message_size_limit: Postfix in front (%s) takes larger mail than %lld bytes, and "
                 "bounces it when Posthouse does not take it",
                 f->dir, (long long)ours);
    if (c->p.recipient_delimiter[0] == '\0' && f->p.recipient_delimiter[0] != '\0')
        diag_add(a->d, DIAG_WARN, c->main.path, places_line_of(c, "recipient_delimiter"),
                 "recipient_delimiter: Postfix in front (%s) has \"%s\": without it a sender "
                 "user+tag@… does not get the relay host of user@…",
                 f->dir, f->p.recipient_delimiter);
    if (relay && f->p.sender_dependent_relayhost_maps[0] != '\0')
        diag_add(
            a->d, DIAG_WARN, f->main.path, places_line_of(f, "relayhost"),
            "relayhost: sender_dependent_relayhost_maps of the same Postfix is stronger: mail of "
            "the senders that it names passes Posthouse by; default_transport = smtp:%s does not "
            "let it",
            f->p.relayhost);
    if (strcasecmp(c->p.myhostname, f->p.myhostname) == 0)
        uses_each(c, front_hop, a);
}

/* -- what the daemon opens at its start -- */

static void cannot_open(struct places *a, const char *param, const char *path, const char *why) {
    diag_add(a->d, DIAG_ERROR, a->c->main.path, places_line_of(a->c, param),
             "%s: %s: %s: the daemon does not start", param, path, why);
}

/* A folder that is there, or may be made; a user who is not root cannot say what root may. */
static void check_opens(struct places *a, const char *param, const char *path, bool folder) {
    struct stat st;
    char *parent = fs_folder(str_of(path));
    if (path[0] == '/' && stat(path, &st) == 0) {
        if (folder != S_ISDIR(st.st_mode))
            cannot_open(a, param, path, folder ? "it is no directory" : "it is a directory");
    } else if (path[0] == '/' && errno != ENOENT) {
        if (errno != EACCES || geteuid() == 0)
            cannot_open(a, param, path, strerror(errno));
    } else if (path[0] == '/' && !folder && stat(parent, &st) < 0 && errno == ENOENT) {
        cannot_open(a, param, path, "its directory is not there");
    }
    free(parent);
}

void audit_places(const struct config *c, struct diags *d) {
    const struct params *p = &c->p;
    struct places a = {.c = c, .d = d};
    check_opens(&a, "queue_directory", p->queue_directory, true);
    check_opens(&a, "maillog_file", p->maillog_file, false);
    check_spool_owner(&a);
    check_secret_tables(&a, p->smtp_sasl_password_maps);
    check_secret_tables(&a, p->accounts_store);
    check_secret_file(&a, p->relays_key_file);
    confine_certificates(c, check_key_file, &a);
    check_key_tables(&a, p->tls_server_sni_maps);
    check_transport(&a, "default_transport", p->default_transport);
    check_transport(&a, "relay_transport", p->relay_transport);
    check_transport(&a, "virtual_transport", p->virtual_transport);
    check_transport(&a, "local_transport", p->local_transport);
    char *front = realpath(p->front_config_directory, NULL);
    if (front != NULL && strcmp(front, c->dir) != 0) {
        struct config *f = config_build(cfg_source_new(front));
        a.front = f;
        if (f->diags.errors == 0)
            check_front(&a);
        config_unref(f);
    }
    free(front);
}
