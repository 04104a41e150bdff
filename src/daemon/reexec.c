/*
 * daemon/reexec.c - a restart without systemd; see reexec.h
 */
#include "daemon/reexec.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/inherit.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/os.h"

#define TRY_MS      30000
#define TRY_SAYS    16384U /* bytes of what it says */
#define PROGRAM_MAX 4096

static char program[PROGRAM_MAX];

void reexec_begin(void) {
    if (!os_program(program, sizeof program))
        program[0] = '\0';
}

int reexec_asked(int fd) {
    uid_t peer;
    int asker = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (asker < 0)
        return -1;
    if (os_peer_uid(asker, &peer) == 0 && (peer == 0 || peer == geteuid()))
        return asker;
    close(asker);
    return -1;
}

void reexec_answer(int asker, bool refused) {
    const char *line = refused ? RESTART_REFUSED "\n" : RESTART_DONE "\n";
    if (asker < 0)
        return;
    send(asker, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
    close(asker);
}

/* -- the configuration is tried -- */

_Noreturn static void try_in_child(const char *dir, int say) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(say, 2);
    execl(program, "posthoused", "-c", dir, "-t", (char *)NULL);
    fprintf(stderr, "%s: %s\n", program, strerror(errno));
    _exit(1);
}

/* What the child says, to its end; false: it takes too long. */
static bool try_listen(int from, struct sbuf *said) {
    int64_t until_ms = clock_mono_ms() + TRY_MS;
    for (;;) {
        char part[1024];
        struct pollfd p = {.fd = from, .events = POLLIN};
        int64_t left_ms = until_ms - clock_mono_ms();
        if (left_ms <= 0 || (poll(&p, 1, (int)left_ms) < 0 && errno != EINTR))
            return false;
        ssize_t n = p.revents == 0 ? -1 : read(from, part, sizeof part);
        if (n == 0)
            return true;
        if (n > 0 && said->n < TRY_SAYS)
            sbuf_add(said, part, (size_t)n);
    }
}

static void try_log(struct str said) {
    struct str line;
    while (str_split(&said, "\n", &line))
        log_error("master", "restart refused: %.*s", STR_FMT(line));
}

bool reexec_try(const char *dir) {
    struct sbuf said = {0};
    int say[2], status = -1;
    if (pipe2(say, O_CLOEXEC) < 0) {
        log_error("master", "restart refused: pipe: %s", strerror(errno));
        return false;
    }
    pid_t pid = fork();
    if (pid == 0)
        try_in_child(dir, say[1]);
    close(say[1]);
    if (pid > 0 && !try_listen(say[0], &said)) {
        kill(pid, SIGKILL);
        sbuf_add_str(&said, STR_LIT("\nthe configuration could not be read in time"));
    }
    close(say[0]);
    bool good = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    if (!good)
        try_log(pid < 0 ? str_of(strerror(errno)) : sbuf_str(&said));
    sbuf_free(&said);
    return good;
}

/* -- the exec -- */

/* Descriptors on their way, numbered from INHERIT_FIRST on. */
struct passing {
    int *fds; /* -1: none has that number */
    size_t n;
    struct sbuf names;
    int lock;  /* keeps its number; -1: there is none, or it cannot be passed */
    int above; /* all numbers that are used */
};

static void passing_put(struct passing *p, const char *name, int fd) {
    sbuf_printf(&p->names, "%s%s", p->n == 0 ? "" : ":", name);
    p->fds[p->n++] = fd;
}

/* The lock is passed if its number is the next one.  It is not copied: the exec closes one of two
 * descriptors, and when any descriptor of a file is closed, its locks are lost (fcntl(2)). */
static void passing_lock(struct passing *p) {
    if (p->lock == INHERIT_FIRST + (int)p->n)
        passing_put(p, INHERIT_LOCK, p->lock);
}

/* A copy above all numbers that will be used, so that none is overwritten before it is passed. */
static void passing_add(struct passing *p, const char *name, int fd) {
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, p->above);
    if (copy < 0)
        return;
    passing_lock(p);
    passing_put(p, name, copy);
}

/* Numbers up to the lock's have nothing. */
static void passing_fill(struct passing *p) {
    while (p->lock > INHERIT_FIRST + (int)p->n)
        passing_put(p, "none", -1);
    passing_lock(p);
}

static void passing_number(const struct passing *p) {
    for (size_t i = 0; i < p->n; i++) {
        int number = INHERIT_FIRST + (int)i;
        if (p->fds[i] == number)
            fcntl(number, F_SETFD, 0);
        else if (p->fds[i] >= 0)
            dup2(p->fds[i], number);
    }
}

static void passing_env(const struct passing *p) {
    char number[32];
    snprintf(number, sizeof number, "%d", (int)getpid());
    setenv("LISTEN_PID", number, 1);
    snprintf(number, sizeof number, "%zu", p->n);
    setenv("LISTEN_FDS", number, 1);
    setenv("LISTEN_FDNAMES", p->names.p, 1);
}

void reexec_now(const struct reexec *next) {
    int lock = next->lock < INHERIT_FIRST ? -1 : next->lock;
    size_t most = next->set->n + 4, to_lock = lock < 0 ? 0 : (size_t)(lock - INHERIT_FIRST + 1);
    if (most < to_lock)
        most = to_lock;
    struct passing p = {
        .fds = mem_zalloc(most * sizeof *p.fds), .lock = lock, .above = INHERIT_FIRST + (int)most};
    if (access(program, X_OK) < 0)
        return;
    sbuf_add_str(&p.names, STR_LIT(""));
    for (size_t i = 0; i < next->set->n; i++)
        if (next->set->v[i].kind == LISTEN_SMTPD)
            passing_add(&p, INHERIT_LISTENER, next->set->v[i].fd);
    passing_add(&p, INHERIT_ASKER, next->asker);
    passing_add(&p, INHERIT_CONFIG, next->bundle);
    passing_add(&p, INHERIT_REFUSED, next->refused);
    passing_fill(&p);
    passing_number(&p);
    passing_env(&p);
    execl(program, "posthoused", "-c", next->dir, "-f", next->verbose ? "-v" : (char *)NULL,
          (char *)NULL);
    log_fatal("master", "%s: %s", program, strerror(errno));
}
