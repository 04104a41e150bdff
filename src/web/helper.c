/*
 * web/helper.c - the process that does what only root may; see daemon.h
 *
 * posthoused's tables and passwords are often readable by root only, and an audit looks at all of
 * them; a rotated log file lies where only root may make one.  This process, forked before any
 * request comes, understands three requests and nothing else (an audit, which next hops the
 * configuration names, the log file): a request is a number without anything behind it, so a
 * broken page cannot tell it what to open.
 *
 * What parses (configuration, tables, certificates) is not this process but a child for each
 * request, which is not root any more, can read what the configuration names, and can write to one
 * pipe. The answer has findings, never what stands in a table of passwords.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/audit.h"
#include "daemon/confine.h"
#include "daemon/uses.h"
#include "util/fs.h"
#include "util/ipc.h"
#include "util/log.h"
#include "web/daemon.h"

#define AUDIT_S 120U /* the most that an audit may take: tables in databases time out before */

enum { HELPER_UNSET = 0, HELPER_AUDIT = 1, HELPER_LOG = 2, HELPER_USES = 3, HELPER_ANSWER = 4 };

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

static json_t *findings(struct config *cfg) {
    struct diags d = {0};
    json_t *list = json_array();
    audit(cfg, &d);
    add_findings(list, &cfg->diags);
    add_findings(list, &d);
    diag_free(&d);
    return json_pack("{s:o}", "findings", list);
}

static void add_use(void *arg, struct str hop, const char *where) {
    json_t *o = arg;
    char *key = str_dup(hop);
    json_t *text = json_text(key); /* as UTF-8 */
    if (json_object_get(o, json_string_value(text)) == NULL)
        json_object_set_new(o, json_string_value(text), json_text(where));
    json_decref(text);
    free(key);
}

/* Each next hop once, with the first place that names it. */
static json_t *next_hops(const struct config *cfg) {
    json_t *o = json_object();
    uses_each(cfg, add_use, o);
    return json_pack("{s:o}", "next_hops", o);
}

/* In a child of the helper: what type asks for, as JSON, to out. */
_Noreturn static void audit_main(const char *dir, uint32_t type, int out) {
    sigset_t none; /* the page waits for its signals with sigwait, and nothing here does */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    alarm(AUDIT_S);
    struct config *cfg = config_build(cfg_source_new(dir));
    confine_audit(cfg);
    audit_tables_of(cfg);
    json_t *o = type == HELPER_AUDIT ? findings(cfg) : next_hops(cfg);
    char *text = json_dumps(o, JSON_COMPACT);
    int rc = text == NULL ? -ENOMEM : fs_write_all(out, text, strlen(text));
    _exit(rc < 0 ? 1 : 0);
}

/* Appends what comes from fd until its end; false: it failed, or is more than an answer may be. */
static bool read_to_end(int fd, struct sbuf *text) {
    for (;;) {
        char *at = sbuf_room(text, 65536);
        ssize_t n = read(fd, at, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0;
        sbuf_advance(text, (size_t)n);
        if (text->n > IPC_MAX / 2)
            return false;
    }
}

/* What a child wrote; "" when it failed. */
static void run_audit(const char *dir, uint32_t type, struct sbuf *text) {
    int ends[2], status = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        audit_main(dir, type, ends[1]);
    }
    close(ends[1]);
    bool whole = pid > 0 && read_to_end(ends[0], text);
    close(ends[0]); /* a child that goes on writing ends by that */
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (whole && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    log_warn("web", "an audit of the configuration failed (status %d)", status);
    sbuf_reset(text);
}

static void helper_answer(int fd, const struct config *cfg, const struct ipc_head *head) {
    struct sbuf out = {0}, text = {0};
    size_t at = ipc_begin(&out, HELPER_ANSWER, head->tag);
    if (head->type == HELPER_AUDIT || head->type == HELPER_USES)
        run_audit(cfg->dir, head->type, &text);
    int log_fd = head->type == HELPER_LOG ? log_reopen() : -1;
    ipc_put_str(&out, text.n == 0 ? STR_LIT("{}") : sbuf_str(&text));
    ipc_end(&out, at);
    ipc_send(fd, sbuf_str(&out), &log_fd, log_fd < 0 ? 0 : 1);
    sbuf_free(&text);
    sbuf_free(&out);
}

/* Without a log thread: what it logs is written at once, and it can fork. */
_Noreturn static void helper_main(const struct config *cfg, int fd) {
    struct sbuf in = {0};
    struct ipc_head head;
    struct str fields;
    size_t n;
    confine_helper(cfg);
    while (ipc_recv(fd, &in, &head, &fields, NULL, 0, &n) == 0)
        helper_answer(fd, cfg, &head);
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
static json_t *helper_ask(struct web *w, uint32_t type) {
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
    return helper_ask(w, HELPER_AUDIT);
}

json_t *helper_next_hops(struct web *w) {
    json_t *o = helper_ask(w, HELPER_USES), *hops = json_object_get(o, "next_hops");
    json_incref(hops);
    json_decref(o);
    return hops;
}

void helper_reopen_log(struct web *w) {
    json_decref(helper_ask(w, HELPER_LOG));
}
