/*
 * cli/cleaner.c - the lookup process of a command, and its questions; see cleaner.h
 */
#include "cli/cleaner.h"

#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clean/clean.h"
#include "daemon/daemon.h"
#include "util/loop.h"
#include "util/os.h"

static struct {
    struct loop *loop;
    struct lookup *lookup;
    pid_t pid; /* 0: there is no process */
    int order; /* the process ends when it is closed */
} cleaner;

/* What one message is for. */
struct cleaning {
    transfer_rcpts_fn fn;
    void *arg;
    bool over;
    enum virtual_rc rc;
};

_Noreturn static void cleaner_child(struct config *cfg, int order, int questions) {
    os_end_with_parent();
    signal(SIGPIPE, SIG_IGN);
    lookup_main(cfg, 0, order, &questions);
}

static bool cleaner_fork(struct config *cfg, int order[2], int questions[2]) {
    fflush(NULL);
    cleaner.pid = fork();
    if (cleaner.pid == 0) {
        close(order[0]);
        close(questions[0]);
        cleaner_child(cfg, order[1], questions[1]);
    }
    close(order[1]);
    close(questions[1]);
    if (cleaner.pid > 0) {
        cleaner.order = order[0];
        lookup_attach(cleaner.lookup, questions[0]);
        return true;
    }
    close(order[0]);
    close(questions[0]);
    cleaner.pid = 0;
    return false;
}

bool cleaner_start(struct config *cfg) {
    int order[2], questions[2];
    if (clean_is_idle(cfg, &cfg->sendmail.p))
        return true;
    if (cleaner.loop == NULL) {
        cleaner.loop = loop_new(0);
        cleaner.lookup = cleaner.loop == NULL ? NULL : lookup_new(cleaner.loop);
    }
    if (cleaner.lookup == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, order) < 0)
        return false;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, questions) == 0)
        return cleaner_fork(cfg, order, questions);
    close(order[0]);
    close(order[1]);
    return false;
}

void cleaner_stop(void) {
    if (cleaner.pid == 0)
        return;
    close(cleaner.order);
    kill(cleaner.pid, SIGKILL); /* it only reads */
    waitpid(cleaner.pid, NULL, 0);
    cleaner.pid = 0;
}

static void cleaner_on_result(void *arg, const struct virtual_result *r) {
    struct cleaning *c = arg;
    c->over = true;
    c->rc = r->rc;
    if (r->rc == VIRTUAL_OK)
        c->fn(c->arg, r->rcpts, r->n);
}

const char *cleaner_ask(void *arg, const struct transfer_drop *drop, transfer_rcpts_fn fn,
                        void *fn_arg) {
    const struct config *cfg = arg;
    struct cleaning c = {.fn = fn, .arg = fn_arg};
    struct clean_ask ask = {.cfg = cfg,
                            .p = &cfg->sendmail.p,
                            .lookup = cleaner.lookup,
                            .qid = drop->qid,
                            .sender = drop->sender,
                            .rcpts = drop->rcpts,
                            .n = drop->n};
    if (clean_is_idle(cfg, ask.p))
        return NULL;
    if (cleaner.pid == 0 || waitpid(cleaner.pid, NULL, WNOHANG) != 0) {
        cleaner.pid = 0;
        return "its aliases and copies cannot be looked up: the lookup process does not run";
    }
    clean_begin(&ask, cleaner_on_result, &c);
    while (!c.over)
        loop_turn(cleaner.loop);
    return c.rc == VIRTUAL_OK       ? NULL
           : c.rc == VIRTUAL_FAILED ? "its aliases or copies cannot be looked up, as is said "
                                      "above: give the command again when they can"
                                    : "it has more aliases than the limits allow, as is said above";
}
