/*
 * daemon/confine.c - which walls each process has; see confine.h.  The walls themselves are
 * util/os.h's.
 */
#include "daemon/confine.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/certrows.h"
#include "daemon/daemon.h"
#include "maps/maps.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/os.h"

/* Files and names of its own. */
#define FS_KEEP                                                                                    \
    (OS_READ_FILE | OS_WRITE_FILE | OS_READ_DIR | OS_REMOVE_FILE | OS_MAKE_FILE | OS_TRUNCATE)

static void wall_allow(struct os_wall *w, const char *path, uint64_t rights) {
    int rc = os_wall_allow(w, path, rights);
    if (rc < 0)
        log_warn("master", "wall: %s: %s", path, strerror(-rc));
}

static void wall_stand(struct os_wall *w, const char *who, unsigned calls) {
    int rc = os_wall_stand(w);
    if (rc < 0)
        log_warn("master",
                 "no Landlock in this %s: the %s process can open every file that its user can",
                 rc == -ENOSYS ? "build" : "kernel", who);
    rc = os_calls_limit(calls);
    if (rc < 0)
        log_warn("master", "no list of system calls for the %s process: %s", who,
                 rc == -ENOSYS ? "it was left out of this build" : strerror(-rc));
}

static struct passwd *user_find(const char *param, const char *name) {
    struct passwd *pw = getpwnam(name);
    if (pw == NULL) {
        log_fatal("master", "%s = %s: no such user", param, name);
        log_close();
        _exit(1);
    }
    return pw;
}

/* keep_read: for tables that only root may read. */
static void user_become(const char *param, const char *name, bool keep_read) {
    if (geteuid() != 0)
        return;
    const struct passwd *pw = user_find(param, name);
    if (os_become(pw->pw_uid, pw->pw_gid, keep_read) < 0) {
        log_fatal("master", "cannot become %s: %s", name, strerror(errno));
        log_close();
        _exit(1);
    }
}

/* Changing the user has undone what was so before. */
static void settle(void) {
    os_no_new_rights();
    os_end_with_parent();
    os_no_dumps();
}

void confine_relay(const struct config *cfg) {
    struct os_wall wall;
    os_wall_begin(&wall);
    os_title("posthouse-relay");
    user_become("mail_owner", cfg->p.mail_owner, false);
    settle();
    wall_allow(&wall, ".", FS_KEEP | OS_MAKE_DIR | OS_MOVE);
    wall_stand(&wall, "relay", OS_CALLS_LOOPS | OS_CALLS_FILES | OS_CALLS_NETWORK);
}

static bool params_remote(const struct params *p) {
    for (size_t i = 0; i < param_count; i++)
        if (param_table[i].type == PARAM_STR &&
            maps_are_remote(params_text_at(p, param_table[i].offset)))
            return true;
    return false;
}

/* Does some table live in a database or behind a socket? */
static bool needs_network(const struct config *cfg) {
    bool remote = params_remote(&cfg->p) || maps_are_remote(cfg->p.accounts_store);
    for (size_t i = 0; i < cfg->n_services && !remote; i++)
        remote = params_remote(&cfg->services[i]->p);
    return remote || (cfg->before != NULL && needs_network(cfg->before));
}

static void allow_reading(void *arg, const char *dir) {
    wall_allow(arg, dir, OS_READ_FILE | OS_READ_DIR);
}

/* A rule for a file may have the rights of files only. */
static void allow_certificate(void *arg, const char *path) {
    struct stat st;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    wall_allow(arg, path, OS_READ_FILE | (folder ? OS_READ_DIR : 0U));
}

/* What a database's client reads: names of servers, TLS, its defaults, and plugins for ways to log
 * in.  Files one by one where private keys or a server's own data lie beside them. */
static void allow_clients(struct os_wall *w) {
    static const char *const files[] = {
        "/etc/hosts",          "/etc/resolv.conf",       "/etc/nsswitch.conf",
        "/etc/host.conf",      "/etc/gai.conf",          "/etc/services",
        "/etc/ld.so.cache",    "/etc/ssl/openssl.cnf",   "/etc/pki/tls/openssl.cnf",
        "/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf"};
    static const char *const dirs[] = {"/etc/ssl/certs",
                                       "/etc/pki/tls/certs",
                                       "/etc/pki/ca-trust",
                                       "/usr/share/ca-certificates",
                                       "/etc/crypto-policies",
                                       "/etc/gnutls",
                                       "/usr/lib",
                                       "/usr/lib64",
                                       "/lib"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        wall_allow(w, files[i], OS_READ_FILE);
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++)
        allow_reading(w, dirs[i]);
}

/* SQLite keeps journals beside a database. */
static void allow_database(struct os_wall *w, const char *path) {
    char *dir = fs_folder(str_of(path));
    if (path[0] == '/')
        wall_allow(w, dir, FS_KEEP);
    free(dir);
}

void confine_web(const struct config *cfg) {
    struct os_wall wall;
    os_wall_begin(&wall);
    const char *store = config_store_file(cfg);
    os_title("posthouse-web");
    os_no_new_rights();
    os_no_dumps();
    allow_reading(&wall, cfg->dir);
    confine_folders_of(cfg->p.accounts_store, allow_reading, &wall);
    allow_clients(&wall);
    wall_allow(&wall, cfg->p.data_directory, FS_KEEP);
    allow_database(&wall, cfg->p.relays_database);
    if (store != NULL)
        allow_database(&wall, store);
    wall_stand(&wall, "web", OS_CALLS_LOOPS | OS_CALLS_FILES | OS_CALLS_NETWORK);
}

/* Becomes lookup_owner; files: the process opens certificates itself. */
static void confine_reader(const struct config *cfg, const char *who, bool files) {
    struct os_wall wall;
    os_wall_begin(&wall);
    bool remote = needs_network(cfg);
    for (const struct config *c = cfg; c != NULL; c = c->before)
        confine_folders(c, allow_reading, &wall);
    wall_allow(&wall, "/etc/passwd", OS_READ_FILE); /* names for lists of users, and unix: */
    wall_allow(&wall, "/etc/group", OS_READ_FILE);
    if (remote)
        allow_clients(&wall);
    if (files)
        confine_certificates(cfg, allow_certificate, &wall);
    user_become("lookup_owner", cfg->p.lookup_owner, true);
    settle();
    if (chdir("/") < 0) /* the spool was the current directory */
        log_warn("master", "chdir /: %s", strerror(errno));
    wall_stand(&wall, who, remote ? OS_CALLS_NETWORK : 0);
}

void confine_lookup(const struct config *cfg) {
    os_title("posthouse-lookup");
    confine_reader(cfg, "lookup", false);
}

void confine_audit(struct config *cfg) {
    os_title("posthouse-audit");
    certrows_read(cfg);
    confine_reader(cfg, "audit", true);
}

void confine_helper(const struct config *cfg) {
    struct os_wall wall;
    os_wall_begin(&wall);
    const char *log = cfg->p.maillog_file;
    os_title("posthouse-help");
    int rc = geteuid() == 0 ? os_root_keeps_files() : 0;
    if (rc < 0)
        log_warn("web", "the helper keeps all of root's rights: %s", strerror(-rc));
    settle();
    char *folder = fs_folder(str_of(log));
    allow_reading(&wall, "/");
    if (log[0] == '/')
        wall_allow(&wall, folder, OS_WRITE_FILE | OS_MAKE_FILE);
    free(folder);
    wall_stand(&wall, "helper", OS_CALLS_NETWORK | OS_CALLS_CHILDREN);
}
