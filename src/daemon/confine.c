/*
 * daemon/confine.c - users, no_new_privs, Landlock; see confine.h.  The system calls are in
 * confine_calls.c.
 *
 * Landlock is called by number: Debian 12's headers know its first versions only, the kernel may
 * know more, and a newer kernel's extra rights are asked for by version.
 */
#include "daemon/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/certrows.h"
#include "daemon/confine_calls.h"
#include "daemon/daemon.h"
#include "maps/maps.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"

enum {
    FS_WRITE_FILE = 1 << 1,
    FS_READ_FILE = 1 << 2,
    FS_READ_DIR = 1 << 3,
    FS_REMOVE_FILE = 1 << 5,
    FS_MAKE_DIR = 1 << 7,
    FS_MAKE_REG = 1 << 8,
    FS_REFER = 1 << 13, /* a name from one directory to another */
    FS_TRUNCATE = 1 << 14,
    /* files and names of its own */
    FS_KEEP =
        FS_READ_FILE | FS_WRITE_FILE | FS_READ_DIR | FS_REMOVE_FILE | FS_MAKE_REG | FS_TRUNCATE
};
#define SCOPE_ALL 3U /* abstract unix sockets, signals */

/* struct landlock_ruleset_attr as of version 6; older kernels take its beginning. */
struct ruleset_attr {
    uint64_t fs, net, scoped;
};

struct __attribute__((packed)) path_beneath {
    uint64_t allowed;
    int32_t parent_fd;
};

static int landlock_version(void) {
    return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, 1U);
}

/* All file system rights that this version knows. */
static uint64_t fs_rights(int version) {
    unsigned bits = version >= 5 ? 16 : version >= 3 ? 15 : version >= 2 ? 14 : 13;
    return (1ULL << bits) - 1;
}

static int ruleset_new(int version) {
    struct ruleset_attr a = {.fs = fs_rights(version), .scoped = version >= 6 ? SCOPE_ALL : 0};
    size_t size = version >= 6 ? 24 : version >= 4 ? 16 : 8;
    return (int)syscall(SYS_landlock_create_ruleset, &a, size, 0U);
}

/* What does not exist needs no rule. */
static void ruleset_allow(int set, const char *dir, uint64_t rights) {
    struct path_beneath p = {.allowed = rights & fs_rights(landlock_version())};
    p.parent_fd = open(dir, O_PATH | O_CLOEXEC);
    if (p.parent_fd < 0)
        return;
    if (syscall(SYS_landlock_add_rule, set, 1, &p, 0U) < 0)
        log_warn("master", "landlock: %s: %s", dir, strerror(errno));
    close(p.parent_fd);
}

static void ruleset_enforce(int set, const char *who) {
    if (set < 0 || syscall(SYS_landlock_restrict_self, set, 0U) < 0)
        log_warn("master",
                 "no Landlock in this kernel: the %s process can open every file that its "
                 "user can",
                 who);
    if (set >= 0)
        close(set);
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

static int capabilities_keep(uint32_t caps) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct c[2] = {{0}, {0}};
    c[0].permitted = c[0].effective = caps;
    return (int)syscall(SYS_capset, &h, c);
}

/* keep_read: CAP_DAC_READ_SEARCH stays, for tables that only root may read. */
static void user_become(const char *param, const char *name, bool keep_read) {
    if (geteuid() != 0)
        return;
    const struct passwd *pw = user_find(param, name);
    int rc = keep_read ? prctl(PR_SET_KEEPCAPS, 1) : 0;
    if (rc == 0 && (setgroups(0, NULL) < 0 || setgid(pw->pw_gid) < 0 || setuid(pw->pw_uid) < 0))
        rc = -1;
    if (rc == 0 && keep_read)
        rc = capabilities_keep(1U << CAP_DAC_READ_SEARCH);
    if (rc < 0) {
        log_fatal("master", "cannot become %s: %s", name, strerror(errno));
        log_close();
        _exit(1);
    }
}

void confine_memory(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
}

/* Changing the user clears the death signal and sets dumpable anew. */
static void settle(void) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    confine_memory();
}

void confine_relay(const struct config *cfg) {
    int set = ruleset_new(landlock_version());
    prctl(PR_SET_NAME, "posthouse-relay");
    user_become("mail_owner", cfg->p.mail_owner, false);
    settle();
    if (set >= 0)
        ruleset_allow(set, ".", FS_KEEP | FS_MAKE_DIR | FS_REFER);
    ruleset_enforce(set, "relay");
    confine_calls("relay", CALLS_LOOPS | CALLS_FILES | CALLS_NETWORK);
}

static bool params_remote(const struct params *p) {
    for (size_t i = 0; i < param_count; i++) {
        const char *const *at = (const void *)((const char *)p + param_table[i].offset);
        if (param_table[i].type == PARAM_STR && maps_are_remote(*at))
            return true;
    }
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
    ruleset_allow(*(int *)arg, dir, FS_READ_FILE | FS_READ_DIR);
}

/* A rule for a file may have the rights of files only. */
static void allow_certificate(void *arg, const char *path) {
    struct stat st;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    ruleset_allow(*(int *)arg, path, FS_READ_FILE | (folder ? FS_READ_DIR : 0U));
}

/* What a database's client reads: names of servers, TLS, its defaults, and plugins for ways to log
 * in.  Files one by one where private keys or a server's own data lie beside them. */
static void allow_clients(int set) {
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
        ruleset_allow(set, files[i], FS_READ_FILE);
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++)
        allow_reading(&set, dirs[i]);
}

/* SQLite keeps journals beside a database. */
static void allow_database(int set, const char *path) {
    char *dir = fs_folder(str_of(path));
    if (path[0] == '/')
        ruleset_allow(set, dir, FS_KEEP);
    free(dir);
}

void confine_web(const struct config *cfg) {
    int set = ruleset_new(landlock_version());
    const char *store = cfg->p.accounts_store;
    prctl(PR_SET_NAME, "posthouse-web");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    confine_memory();
    if (set >= 0) {
        allow_reading(&set, cfg->dir);
        confine_folders_of(store, allow_reading, &set);
        allow_clients(set);
        ruleset_allow(set, cfg->p.data_directory, FS_KEEP);
        allow_database(set, cfg->p.relays_database);
        if (strncmp(store, "sqlite:", 7) == 0)
            allow_database(set, store + 7);
    }
    ruleset_enforce(set, "web");
    confine_calls("web", CALLS_LOOPS | CALLS_FILES | CALLS_NETWORK);
}

/* Becomes lookup_owner; files: the process opens certificates itself. */
static void confine_reader(const struct config *cfg, const char *who, bool files) {
    int set = ruleset_new(landlock_version());
    bool remote = needs_network(cfg);
    for (const struct config *c = cfg; set >= 0 && c != NULL; c = c->before)
        confine_folders(c, allow_reading, &set);
    if (set >= 0)
        ruleset_allow(set, "/etc/passwd", FS_READ_FILE); /* names for lists of users */
    if (set >= 0 && remote)
        allow_clients(set);
    if (set >= 0 && files)
        confine_certificates(cfg, allow_certificate, &set);
    user_become("lookup_owner", cfg->p.lookup_owner, true);
    settle();
    if (chdir("/") < 0) /* the spool was the current directory */
        log_warn("master", "chdir /: %s", strerror(errno));
    ruleset_enforce(set, who);
    confine_calls(who, remote ? CALLS_NETWORK : 0);
}

void confine_lookup(const struct config *cfg) {
    prctl(PR_SET_NAME, "posthouse-lookup");
    confine_reader(cfg, "lookup", false);
}

void confine_audit(struct config *cfg) {
    prctl(PR_SET_NAME, "posthouse-audit");
    certrows_read(cfg);
    confine_reader(cfg, "audit", true);
}

void confine_helper(const struct config *cfg) {
    int set = ruleset_new(landlock_version());
    const char *log = cfg->p.maillog_file;
    prctl(PR_SET_NAME, "posthouse-help");
    if (geteuid() == 0 && capabilities_keep(1U << CAP_DAC_READ_SEARCH | 1U << CAP_DAC_OVERRIDE |
                                            1U << CAP_SETUID | 1U << CAP_SETGID) < 0)
        log_warn("web", "the helper keeps all of root's rights: %s", strerror(errno));
    settle();
    if (set >= 0) {
        char *folder = fs_folder(str_of(log));
        allow_reading(&set, "/");
        if (log[0] == '/')
            ruleset_allow(set, folder, FS_WRITE_FILE | FS_MAKE_REG);
        free(folder);
    }
    ruleset_enforce(set, "helper");
    confine_calls("helper", CALLS_NETWORK | CALLS_CHILDREN);
}
