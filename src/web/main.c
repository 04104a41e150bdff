/*
 * web/main.c - posthouse-web: the page and its API
 *
 * Opens its port, makes what is not there yet (the embedded accounts store, the database of relay
 * records), starts its helper, becomes web_owner, and serves until SIGTERM or SIGINT.  SIGHUP reads
 * main.cf again, SIGUSR1 opens the log file again.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accounts/relays.h"
#include "daemon/audit.h"
#include "daemon/confine.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/net.h"
#include "web/daemon.h"
#include "web/dashboard.h"
#include "web/http.h"
#include "web/routes.h"

#define NICE 10 /* where mail and the page want the same processor, mail has it */

static void web_usage(FILE *to) {
    fputs("usage: posthouse-web [-c DIR] [-f] [-V]\n"
          "  -c DIR  configuration directory (default " PH_CONFIG_DIR ")\n"
          "  -f      stay in the foreground\n"
          "  -V      print the version and exit\n",
          to);
}

_Noreturn static void web_fatal(const char *what, const char *why) {
    fprintf(stderr, "posthouse-web: fatal: %s: %s\n", what, why);
    exit(1);
}

static struct config *web_load(const char *dir) {
    struct config *cfg = config_build(cfg_source_new(dir));
    for (size_t i = 0; i < cfg->diags.n; i++) {
        const struct diag *d = &cfg->diags.v[i];
        if (d->level == DIAG_ERROR)
            fprintf(stderr, "posthouse-web: fatal: %s, line %d: %s\n",
                    d->file == NULL ? "?" : d->file, d->line, d->text);
    }
    if (cfg->diags.errors == 0)
        return cfg;
    config_unref(cfg);
    return NULL;
}

static void web_start_log(const struct config *cfg) {
    int rc = config_open_log(cfg);
    if (rc < 0)
        web_fatal(cfg->p.maillog_file, strerror(-rc));
}

/* web_listen: address:port. */
static int listen_at(const char *where) {
    struct str s = str_of(where);
    ptrdiff_t colon = str_rchr(s, ':');
    struct netaddr a;
    uint64_t port = 0;
    int on = 1;
    struct str host = str_make(s.p, colon < 0 ? 0 : (size_t)colon);
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = str_make(host.p + 1, host.n - 2);
    if (colon < 0 || !str_u64(str_from(s, (size_t)colon + 1), &port) || port == 0 || port > 65535 ||
        !netaddr_parse(&a, host, (uint16_t)port))
        web_fatal(where, "web_listen is an address and a port, as in 127.0.0.1:7795");
    int fd = socket(a.u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, &a.u.sa, netaddr_len(&a)) < 0 || listen(fd, 512) < 0)
        web_fatal(where, strerror(errno));
    return fd;
}

/* -- what is made at the first start -- */

/* The owner is enough: what root has put back and given to that user has root's group. */
static void own(const char *path, const struct passwd *pw) {
    struct stat st;
    int rc = pw == NULL ? 0 : fs_give(path, pw->pw_uid, pw->pw_gid);
    if (rc == -EPERM && lstat(path, &st) == 0 && st.st_uid == pw->pw_uid)
        rc = 0;
    if (rc == -EPERM)
        web_fatal(path, "it has to belong to web_owner (chown -R), and this service may not change "
                        "that");
    if (rc < 0 && rc != -ENOENT)
        web_fatal(path, strerror(-rc));
}

/* The databases that the page writes become web_owner's, with the directory that SQLite writes its
 * journals to. */
static void give_away(const struct config *cfg, const struct passwd *pw) {
    static const char *const files[] = {"", "/accounts.db", "/web.db", "/web.db-wal",
                                        "/web.db-shm"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct sbuf path = {0};
        sbuf_printf(&path, "%s%s", cfg->p.data_directory, files[i]);
        own(path.p, pw);
        sbuf_free(&path);
    }
    own(cfg->p.relays_database, pw);
}

/* Records that were there and cannot be opened are no reason to keep the whole page away: it says
 * so wherever they are asked for.  True if they were made now. */
static bool records_prepare(const struct config *cfg) {
    char *why = NULL;
    bool made = false;
    struct relays *r =
        relays_open(cfg->p.relays_database, cfg->p.relays_key_file, true, &made, &why);
    if (r == NULL) {
        fprintf(stderr, "posthouse-web: warning: relays_database: %s\n", why);
        log_error("web", "relay records: %s", why);
    }
    free(why);
    relays_close(r);
    return r != NULL && made;
}

/* True if the daemon has to read its configuration again. */
static bool make_missing(struct config **cfg, const char *dir) {
    char *why = NULL;
    bool fresh = false;
    int rc = fs_mkdir((*cfg)->p.data_directory, 0755);
    if (rc < 0)
        web_fatal((*cfg)->p.data_directory, strerror(-rc));
    if ((*cfg)->p.accounts_store[0] == '\0') {
        struct store *st = store_embedded((*cfg)->p.data_directory, &why);
        if (st == NULL)
            web_fatal("accounts_store", why);
        store_close(st);
        fresh = true;
    }
    bool made = records_prepare(*cfg);
    if (!fresh && !made)
        return false;
    config_unref(*cfg);
    *cfg = web_load(dir);
    if (*cfg == NULL)
        exit(1);
    return true;
}

/* -- privileges -- */

/* web_owner, with mail_owner's group: the control socket is that group's. */
static void become(const struct config *cfg, const struct passwd *web) {
    const struct passwd *mail = getpwnam(cfg->p.mail_owner);
    gid_t groups[2] = {0, mail == NULL ? 0 : mail->pw_gid};
    groups[0] = web->pw_gid;
    if (setgroups(mail == NULL ? 1 : 2, groups) < 0 || setgid(web->pw_gid) < 0 ||
        setuid(web->pw_uid) < 0)
        web_fatal("web_owner", strerror(errno));
}

static void web_daemonize(void) {
    pid_t pid = fork();
    if (pid < 0)
        web_fatal("fork", strerror(errno));
    if (pid > 0)
        _exit(0);
    setsid();
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3 && fd >= 0; i++)
        dup2(fd, i);
}

static void web_prepare(struct web *w, struct config *cfg, const char *dir, bool foreground) {
    char *why = NULL;
    static struct passwd web; /* getpwnam's own is overwritten */
    struct passwd *pw = geteuid() == 0 ? getpwnam(cfg->p.web_owner) : NULL;
    if (geteuid() == 0 && pw == NULL)
        web_fatal(cfg->p.web_owner, "web_owner is no user of this system");
    if (pw != NULL)
        web = *pw;
    w->listen_fd = listen_at(cfg->p.web_listen);
    bool made = make_missing(&cfg, dir);
    w->cfg = cfg;
    audit_tables_of(cfg);
    if (!foreground)
        web_daemonize();
    setpriority(PRIO_PROCESS, 0, NICE); /* of the helper and its audits, too */
    if (!helper_start(w))
        web_fatal("helper", strerror(errno));
    w->store = store_open(cfg->p.accounts_store, cfg->dir, true, &why);
    if (w->store == NULL)
        web_fatal("accounts_store", why);
    if (pw != NULL) {
        give_away(cfg, &web);
        become(cfg, &web);
    }
    w->state = state_open(cfg->p.data_directory, &why);
    if (w->state == NULL)
        web_fatal("web.db", why);
    confine_web(cfg);
    log_start();
    if (made)
        ask_reload(cfg->p.queue_directory, ASK_RELOAD_S);
}

/* Before any thread, so that none takes one while the main thread is busy with another. */
static void web_block_signals(sigset_t *set) {
    static const int waited_for[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD};
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP}, NULL);
    sigemptyset(set);
    for (size_t i = 0; i < sizeof waited_for / sizeof waited_for[0]; i++)
        sigaddset(set, waited_for[i]);
    pthread_sigmask(SIG_BLOCK, set, NULL);
}

/* The one child is the helper.  Without it nothing is audited and no new log file is opened, and
 * only root can start another. */
_Noreturn static void web_helper_ended(void) {
    log_error("web", "the helper process has ended, and the page with it");
    log_close();
    _exit(1);
}

static void web_serve(struct web *w, const char *dir, const sigset_t *set) {
    int sig = 0;
    if (!http_start(w, w->listen_fd, routes_dispatch) || !samples_start(w))
        web_fatal("http", "cannot start");
    log_info("web", "the page is at http://%s/", w->cfg->p.web_listen);
    while (sigwait(set, &sig) == 0 && sig != SIGTERM && sig != SIGINT) {
        if (sig == SIGCHLD)
            web_helper_ended();
        if (sig == SIGUSR1) {
            helper_reopen_log(w);
            continue;
        }
        struct config *fresh = web_load(dir);
        if (fresh != NULL) /* requests may still look at the old one: it stays */
            w->cfg = fresh;
        log_info("web",
                 fresh != NULL ? "configuration read again" : "the configuration has errors");
    }
    log_info("web", "terminating on signal %d", sig);
    log_close();
    _exit(0); /* streams that are open end here */
}

int main(int argc, char **argv) {
    static struct web w;
    const char *env = getenv("MAIL_CONFIG"), *dir = env != NULL ? env : PH_CONFIG_DIR;
    bool foreground = false;
    sigset_t set;
    int opt;
    fs_open_standard();
    while ((opt = getopt(argc, argv, "c:fVh")) != -1) {
        if (opt == 'c') {
            dir = optarg;
        } else if (opt == 'f') {
            foreground = true;
        } else if (opt == 'V') {
            puts("posthouse-web " PH_VERSION);
            return 0;
        } else {
            web_usage(opt == 'h' ? stdout : stderr);
            return opt == 'h' ? 0 : 64;
        }
    }
    char *full = realpath(dir, NULL);
    if (full == NULL)
        web_fatal(dir, strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* what is too large for a file is an error */
    web_block_signals(&set);
    struct config *cfg = web_load(full);
    if (cfg == NULL)
        return 1;
    web_start_log(cfg);
    web_prepare(&w, cfg, full, foreground);
    web_serve(&w, full, &set);
}
