/*
 * cli/front.c - the Postfix of this machine, and other programs that a setup runs; see front.h
 */
#include "cli/front.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transfer/pfqueue.h"
#include "util/mem.h"
#include "util/os.h"
#include "util/sock.h"

#define LOOK_MS 20

/* The exit status of a program that leads a process group; FRONT_TIMED_OUT: it was killed then. */
static int wait_ended(pid_t pid, int limit_ms) {
    int status = 0;
    pid_t done;
    for (int waited = 0; (done = waitpid(pid, &status, WNOHANG)) == 0; waited += LOOK_MS) {
        if (waited >= limit_ms) {
            kill(-pid, SIGKILL);
            waitpid(pid, &status, 0);
            return FRONT_TIMED_OUT;
        }
        poll(NULL, 0, LOOK_MS);
    }
    return done == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}

static void say_timed_out(char *const *argv, int limit_ms) {
    fputs("posthouse: fatal:", stderr);
    for (size_t i = 0; argv[i] != NULL; i++)
        fprintf(stderr, " %s", argv[i]);
    fprintf(stderr, " did not end within %d s\n", limit_ms / 1000);
}

_Noreturn static void run_child(char *const *argv, bool quiet) {
    static const int ignored[] = {SIGHUP, SIGINT, SIGPIPE, SIGTERM}; /* by the caller, perhaps */
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        signal(ignored[i], SIG_DFL);
    int nowhere = quiet ? open("/dev/null", O_WRONLY | O_CLOEXEC) : -1;
    setpgid(0, 0);
    if (quiet && (nowhere < 0 || dup2(nowhere, 1) < 0 || dup2(nowhere, 2) < 0))
        _exit(127);
    execvp(argv[0], argv);
    fprintf(stderr, "posthouse: fatal: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

int front_run(char *const *argv, int limit_ms, bool quiet) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        run_child(argv, quiet);
    if (pid > 0)
        setpgid(pid, pid); /* whichever of both is first */
    int rc = pid > 0 ? wait_ended(pid, limit_ms) : 127;
    if (rc == FRONT_TIMED_OUT)
        say_timed_out(argv, limit_ms);
    return rc;
}

char *front_queue(const struct config *front) {
    char *named = NULL;
    if (front != NULL && front->foreign_queue != NULL)
        named = mem_strdup(front->foreign_queue);
    else if (front != NULL && cfg_file_find(&front->main, STR_LIT("queue_directory")) != NULL)
        named = config_value(front, "queue_directory", NULL);
    if (named != NULL && named[0] != '\0')
        return named;
    free(named);
    return mem_strdup(CONFIG_POSTFIX_QUEUE);
}

char *front_program(const struct config *front) {
    char *folder = config_value(front, "command_directory", NULL);
    struct sbuf program = {0};
    sbuf_printf(&program, "%s/postfix", folder == NULL ? "/usr/sbin" : folder);
    free(folder);
    return sbuf_take(&program);
}

bool front_is_ours(const struct config *front) {
    char own[PATH_MAX], *name = front_program(front), *real = realpath(name, NULL);
    bool is = real != NULL && os_program(own, sizeof own) && strcmp(real, own) == 0;
    free(name);
    free(real);
    return is;
}

int front_postfix(const struct config *front, const char *word, int limit_ms) {
    char *program = front_program(front);
    char *argv[] = {program, (char *)(uintptr_t) "-c", (char *)(uintptr_t)front->dir,
                    (char *)(uintptr_t)word, NULL};
    int rc = front_run(argv, limit_ms, strcmp(word, "status") == 0);
    free(program);
    return rc;
}

enum front_state front_state(const struct config *front) {
    char *program = front_program(front), *queue = front_queue(front);
    bool missing = access(program, F_OK) < 0 && errno == ENOENT;
    int rc = missing ? 1 : front_postfix(front, "status", FRONT_STATUS_MS);
    enum front_state state = rc == 0                                ? FRONT_RUNS
                             : rc == 1 && !pfqueue_is_locked(queue) ? FRONT_RESTS
                                                                    : FRONT_UNKNOWN;
    free(program);
    free(queue);
    return state;
}

bool front_greets(const struct netaddr *addr, int wait_ms) {
    char greeting[4] = "";
    int fd = sock_connect(addr, NULL);
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    bool yes = fd >= 0 && poll(&readable, 1, wait_ms) == 1 && sock_recv(fd, greeting, 3) == 3 &&
               strcmp(greeting, "220") == 0;
    if (fd >= 0)
        sock_close(fd);
    return yes;
}

bool front_listens(const struct netaddr *addr, int wait_ms) {
    int fd = sock_connect(addr, NULL);
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    bool yes = fd >= 0 && poll(&writable, 1, wait_ms) == 1 && sock_error(fd) == 0;
    if (fd >= 0)
        sock_close(fd);
    return yes;
}
