/*
 * cli/postfix.c - postfix(1): starts, stops and asks after the daemon; posthouse reload
 *
 * One thread.  A running daemon is known by the lock on master.pid in queue_directory, which the
 * supervisor holds as long as it lives; the number in the file is not believed.  Where the file was
 * removed, a daemon that answers is running all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/str.h"

#define SCRIPT "postfix/postfix-script: "
/* An orderly stop lets deliveries end that are past their last dot. */
#define STOP_S  60
#define LOOK_MS 20
/* The most that posthouse reload waits for an answer. */
#define RELOAD_MOST_S 86400

struct postfix_run {
    const char *dir; /* the configuration directory */
    struct config *cfg;
    bool verbose;
};

/* No process holds the lock: no daemon runs, or its lock file was removed. */
static pid_t daemon_without_lock(const struct config *cfg) {
    int fd = ask_connect(cfg->p.queue_directory, "control.sock");
    if (fd < 0)
        return 0;
    close(fd);
    return -ENOLCK;
}

pid_t cli_daemon(const struct config *cfg) {
    struct sbuf path = {0};
    struct flock lk = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    sbuf_printf(&path, "%s/master.pid", cfg->p.queue_directory);
    int fd = open(path.p, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    sbuf_free(&path);
    if (fd < 0)
        return errno == ENOENT ? daemon_without_lock(cfg) : -errno;
    pid_t pid = fcntl(fd, F_GETLK, &lk) < 0 ? -errno : lk.l_type == F_UNLCK ? 0 : lk.l_pid;
    close(fd);
    return pid == 0 ? daemon_without_lock(cfg) : pid;
}

static int postfix_fatal(const char *text, const char *detail) {
    fprintf(stderr, SCRIPT "fatal: %s%s%s\n", text, detail == NULL ? "" : ": ",
            detail == NULL ? "" : detail);
    return 1;
}

/* Ends in the exit status of the program, run with the configuration directory. */
static int postfix_execute(const struct postfix_run *run, bool foreground) {
    char *args[] = {(char *)(uintptr_t) "posthoused",
                    (char *)(uintptr_t) "-c",
                    (char *)(uintptr_t)run->dir,
                    run->verbose ? (char *)(uintptr_t) "-v" : NULL,
                    NULL,
                    NULL};
    if (foreground)
        args[run->verbose ? 4 : 3] = (char *)(uintptr_t) "-f";
    execv(PH_SBINDIR "/posthoused", args);
    execvp("posthoused", args);
    return postfix_fatal(PH_SBINDIR "/posthoused", strerror(errno));
}

/* It answers, with its lock or without. */
static bool postfix_is_running(const struct postfix_run *run) {
    pid_t pid = cli_daemon(run->cfg);
    return pid > 0 || pid == -ENOLCK;
}

static int postfix_start(const struct postfix_run *run, bool foreground) {
    if (postfix_is_running(run))
        return postfix_fatal("the Postfix mail system is already running", NULL);
    if (!foreground)
        fputs(SCRIPT "starting the Postfix mail system\n", stderr);
    fflush(stderr);
    return postfix_execute(run, foreground);
}

static int postfix_not_running(const struct postfix_run *run) {
    pid_t pid = cli_daemon(run->cfg);
    if (pid == -ENOLCK)
        return postfix_fatal("the Postfix mail system is running, but its master.pid was removed",
                             "\"posthouse restart\" makes a new one");
    return postfix_fatal(pid < 0 ? run->cfg->p.queue_directory
                                 : "the Postfix mail system is not running",
                         pid < 0 ? strerror(-pid) : NULL);
}

int cli_stop_daemon(const struct config *cfg) {
    struct timespec pause = {0, LOOK_MS * 1000000L};
    pid_t pid = cli_daemon(cfg);
    if (pid <= 0)
        return pid == 0 ? -ESRCH : (int)pid;
    if (kill(pid, SIGTERM) < 0)
        return -errno;
    for (int i = 0; i < STOP_S * 1000 / LOOK_MS; i++) {
        if (cli_daemon(cfg) != pid)
            return 0;
        nanosleep(&pause, NULL);
    }
    return -ETIMEDOUT;
}

static int postfix_stop(const struct postfix_run *run) {
    if (cli_daemon(run->cfg) <= 0)
        return postfix_not_running(run);
    fputs(SCRIPT "stopping the Postfix mail system\n", stderr);
    int rc = cli_stop_daemon(run->cfg);
    if (rc == -ETIMEDOUT)
        return postfix_fatal("the Postfix mail system does not end", NULL);
    return rc == 0 || rc == -ESRCH
               ? 0
               : postfix_fatal("cannot stop the Postfix mail system", strerror(-rc));
}

/* Has the daemon read its configuration again; NULL, or what went wrong. */
static const char *reload_failure(const struct config *cfg, long wait_s) {
    int rc = ask_reload(cfg->p.queue_directory, wait_s);
    if (rc == -ETIMEDOUT)
        return "the daemon is busy and has not answered yet; it was asked, and its log will say "
               "whether it has reloaded or refused to";
    if (rc == -ESRCH)
        return "no daemon is running";
    if (rc == -EINVAL)
        return "it was refused, and the log says why (posthouse check names errors of the new "
               "configuration); the old one stays in use";
    return rc < 0 ? strerror(-rc) : NULL;
}

/* The same of a restart. */
static const char *restart_failure(const struct config *cfg) {
    int rc = ask_restart(cfg->p.queue_directory, ASK_RESTART_S);
    if (rc == -ETIMEDOUT)
        return "the daemon has not answered yet; its log will say whether it serves again";
    if (rc == -ESRCH)
        return "no daemon is running";
    if (rc == -EINVAL)
        return "it was refused, and the log says why (posthouse check names errors of the new "
               "configuration); the daemon goes on as it was";
    return rc == -EPIPE ? "the daemon has ended; its log says why" : rc < 0 ? strerror(-rc) : NULL;
}

static int postfix_reload(const struct postfix_run *run) {
    if (!postfix_is_running(run))
        return postfix_not_running(run);
    fputs(SCRIPT "refreshing the Postfix mail system\n", stderr);
    const char *failure = reload_failure(run->cfg, ASK_RELOAD_S);
    return failure == NULL ? 0 : postfix_fatal("cannot reload", failure);
}

/* The end of an order to the daemon of cfg, which is freed here; NULL: it cannot be read, which has
 * been said. */
static int order_status(struct config *cfg, const char *order, const char *failure) {
    if (failure != NULL)
        fprintf(stderr, "posthouse: cannot %s: %s\n", order, failure);
    int rc = cfg == NULL || failure != NULL;
    config_unref(cfg);
    return rc;
}

int cli_reload(const char *dir, int argc, char **argv) {
    uint64_t wait_s = ASK_RELOAD_S;
    bool waits = argc == 3 && strcmp(argv[1], "--wait") == 0 && str_u64(str_of(argv[2]), &wait_s) &&
                 wait_s > 0 && wait_s <= RELOAD_MOST_S;
    if (argc != 1 && !waits) {
        fputs("usage: posthouse reload [--wait SECONDS]\n", stderr);
        return EX_USAGE_;
    }
    struct config *cfg = cli_config("posthouse", dir);
    const char *failure = cfg == NULL ? NULL : reload_failure(cfg, (long)wait_s);
    return order_status(cfg, "reload", failure);
}

/* The process stays, and becomes a new one: clients that connect meanwhile wait. */
static int postfix_restart(const struct postfix_run *run) {
    if (!postfix_is_running(run))
        return postfix_start(run, false);
    fputs(SCRIPT "restarting the Postfix mail system\n", stderr);
    const char *failure = restart_failure(run->cfg);
    return failure == NULL ? 0 : postfix_fatal("cannot restart", failure);
}

int cli_restart(const char *dir, int argc, char **argv) {
    (void)argv;
    if (argc != 1) {
        fputs("usage: posthouse restart\n", stderr);
        return EX_USAGE_;
    }
    struct config *cfg = cli_config("posthouse", dir);
    const char *failure = cfg == NULL ? NULL : restart_failure(cfg);
    return order_status(cfg, "restart", failure);
}

static int postfix_status(const struct postfix_run *run) {
    pid_t pid = cli_daemon(run->cfg);
    if (pid <= 0)
        return postfix_not_running(run);
    fprintf(stderr, SCRIPT "the Postfix mail system is running: PID: %d\n", (int)pid);
    return 0;
}

static int postfix_flush(const struct postfix_run *run) {
    char *args[] = {(char *)(uintptr_t) "postqueue", (char *)(uintptr_t) "-f", NULL};
    return cli_postqueue(run->dir, 2, args);
}

static int postfix_check(const struct postfix_run *run) {
    char *args[] = {(char *)(uintptr_t) "check", NULL};
    return cli_check(run->dir, 1, args);
}

static int postfix_do(const struct postfix_run *run, const char *what) {
    if (strcmp(what, "start") == 0)
        return postfix_start(run, false);
    if (strcmp(what, "start-fg") == 0)
        return postfix_start(run, true);
    if (strcmp(what, "stop") == 0 || strcmp(what, "abort") == 0)
        return postfix_stop(run);
    if (strcmp(what, "reload") == 0)
        return postfix_reload(run);
    if (strcmp(what, "restart") == 0)
        return postfix_restart(run);
    if (strcmp(what, "status") == 0)
        return postfix_status(run);
    return strcmp(what, "flush") == 0 ? postfix_flush(run) : -1;
}

static int postfix_usage(void) {
    fputs("usage: postfix [-c DIR] [-v] "
          "start|start-fg|stop|abort|reload|restart|status|check|flush\n",
          stderr);
    return 1;
}

int cli_postfix(const char *dir, int argc, char **argv) {
    struct postfix_run run = {.dir = dir};
    int opt;
    optind = 1;
    while ((opt = getopt(argc, argv, "+c:v")) != -1) {
        if (opt == 'c')
            run.dir = optarg;
        else if (opt == 'v')
            run.verbose = true;
        else
            return postfix_usage();
    }
    if (optind + 1 != argc)
        return postfix_usage();
    run.dir = cli_dir(run.dir);
    if (strcmp(argv[optind], "check") == 0)
        return postfix_check(&run);
    run.cfg = cli_config("postfix", run.dir);
    if (run.cfg == NULL)
        return 1;
    int rc = postfix_do(&run, argv[optind]);
    config_unref(run.cfg);
    return rc < 0 ? postfix_usage() : rc;
}
