/*
 * web/helper.c - the process that reads what only root may; see daemon.h
 *
 * posthoused's tables and passwords are often readable by root only, and an audit looks at all of
 * them.  This process, forked before any request comes, does that and nothing else: a request is a
 * number without anything behind it, so nobody who breaks into the page can tell it what to open.
 * Its answer has findings, never what stands in a table of passwords.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/audit.h"
#include "daemon/confine.h"
#include "util/ipc.h"
#include "util/log.h"
#include "web/daemon.h"

enum { HELPER_AUDIT = 1, HELPER_RELOAD = 2, HELPER_LOG = 3, HELPER_ANSWER = 4 };

static void add_findings(json_t *list, const struct diags *d) {
    static const char *names[] = {"note", "warning", "error"};
    for (size_t i = 0; i < d->n; i++) {
        const struct diag *x = &d->v[i];
        json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:i}", "level", names[x->level],
                                              "text", json_text(x->text), "file",
                                              json_text(x->file == NULL ? "" : x->file), "line",
                                              x->line));
    }
}

static char *run_audit(const char *dir) {
    struct diags d = {0};
    json_t *list = json_array();
    struct config *c = config_build(cfg_source_new(dir));
    audit_tables_of(c);
    audit(c, &d);
    add_findings(list, &c->diags);
    add_findings(list, &d);
    audit_tables_of(NULL);
    config_unref(c);
    diag_free(&d);
    json_t *o = json_pack("{s:o}", "findings", list);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

_Noreturn static void helper_main(const struct config *cfg, int fd) {
    struct sbuf in = {0};
    struct ipc_head head;
    struct str fields;
    size_t n;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    confine_memory();
    log_start();
    while (ipc_recv(fd, &in, &head, &fields, NULL, 0, &n) == 0) {
        struct sbuf out = {0};
        size_t at = ipc_begin(&out, HELPER_ANSWER, head.tag);
        char *text = head.type == HELPER_AUDIT ? run_audit(cfg->dir) : NULL;
        if (head.type == HELPER_RELOAD)
            ask_reload(cfg->p.queue_directory);
        int log_fd = head.type == HELPER_LOG ? log_reopen() : -1;
        ipc_put_str(&out, str_of(text == NULL ? "{}" : text));
        ipc_end(&out, at);
        ipc_send(fd, sbuf_str(&out), &log_fd, log_fd < 0 ? 0 : 1);
        sbuf_free(&out);
        free(text);
    }
    _exit(0);
}

bool helper_start(struct web *w) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        close(fds[0]);
        close(w->listen_fd);
        helper_main(w->cfg, fds[1]);
    }
    close(fds[1]);
    w->helper = fds[0];
    return pid > 0;
}

/* One question at a time. */
static json_t *ask(struct web *w, uint32_t type) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct sbuf out = {0}, in = {0};
    struct ipc_head head;
    struct str fields;
    size_t n;
    int log_fd;
    json_t *answer = NULL;
    pthread_mutex_lock(&lock);
    ipc_end(&out, ipc_begin(&out, type, 1));
    if (ipc_send(w->helper, sbuf_str(&out), NULL, 0) == 0 &&
        ipc_recv(w->helper, &in, &head, &fields, &log_fd, 1, &n) == 0) {
        if (n > 0)
            log_replace(log_fd);
        struct ipc_reader rd = {.rest = fields};
        struct str text = ipc_get_str(&rd);
        answer = json_loadb(text.p, text.n, 0, NULL);
    }
    pthread_mutex_unlock(&lock);
    sbuf_free(&out);
    sbuf_free(&in);
    return answer;
}

json_t *helper_audit(struct web *w) {
    return ask(w, HELPER_AUDIT);
}

void helper_reload(struct web *w) {
    json_decref(ask(w, HELPER_RELOAD));
}

void helper_reopen_log(struct web *w) {
    json_decref(ask(w, HELPER_LOG));
}
