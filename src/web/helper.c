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
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
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

/* What an audit was asked for, and how far its child has come. */
struct helper_job {
    pid_t pid;        /* 0: no audit goes on */
    int from;         /* the child's answer comes here; -1: none */
    uint32_t tag;     /* of the question */
    struct sbuf text; /* the answer so far */
};

/* The helper's ends of both channels. */
static const int *helper_ends;

static void helper_job_begin(struct helper_job *job, const char *dir, const struct ipc_head *head) {
    int ends[2] = {-1, -1};
    job->tag = head->tag;
    job->pid = pipe2(ends, O_CLOEXEC) < 0 ? -1 : fork();
    if (job->pid == 0) {
        close(ends[0]);
        close(helper_ends[HELPER_AUDITS]);
        close(helper_ends[HELPER_FILES]);
        audit_main(dir, head->type, ends[1]);
    }
    if (ends[1] >= 0)
        close(ends[1]);
    job->from = ends[0];
}

static void helper_answer(int channel, uint32_t tag, struct str text, int log_fd) {
    struct sbuf out = {0};
    size_t at = ipc_begin(&out, HELPER_ANSWER, tag);
    ipc_put_str(&out, text.n == 0 ? STR_LIT("{}") : text);
    ipc_end(&out, at);
    ipc_send(helper_ends[channel], sbuf_str(&out), &log_fd, log_fd < 0 ? 0 : 1);
    sbuf_free(&out);
}

/* whole: the child's answer came to its end. */
static void helper_job_end(struct helper_job *job, bool whole) {
    int status = 0;
    close(job->from); /* a child that goes on writing ends by that */
    while (job->pid > 0 && waitpid(job->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (!whole || job->pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        log_warn("web", "an audit of the configuration failed (status %d)", status);
        sbuf_reset(&job->text);
    }
    helper_answer(HELPER_AUDITS, job->tag, sbuf_str(&job->text), -1);
    sbuf_free(&job->text);
    *job = (struct helper_job){.from = -1};
}

/* Takes what the child has written; an answer that is longer than one may be ends the audit. */
static void helper_job_read(struct helper_job *job) {
    char *at = sbuf_room(&job->text, 65536);
    ssize_t n = read(job->from, at, 65536);
    if (n < 0 && errno == EINTR)
        return;
    if (n > 0)
        sbuf_advance(&job->text, (size_t)n);
    if (n <= 0 || job->text.n > IPC_MAX / 2)
        helper_job_end(job, n == 0);
}

/* False: the page's process has gone. */
static bool helper_take(int channel, const struct config *cfg, struct helper_job *job) {
    struct sbuf in = {0};
    struct ipc_head head;
    struct str fields;
    size_t n;
    bool came = ipc_recv(helper_ends[channel], &in, &head, &fields, NULL, 0, &n) == 0;
    sbuf_free(&in);
    if (came && channel == HELPER_AUDITS)
        helper_job_begin(job, cfg->dir, &head);
    if (came && channel == HELPER_FILES) {
        int log_fd = log_reopen();
        helper_answer(HELPER_FILES, head.tag, STR_NONE, log_fd);
    }
    return came;
}

/* Without a log thread: what it logs is written at once, and it can fork.  One audit goes on at a
 * time; the log file is opened meanwhile. */
_Noreturn static void helper_main(const struct config *cfg, const int *ends) {
    struct helper_job job = {.from = -1};
    bool goes_on = true;
    helper_ends = ends;
    confine_helper(cfg);
    while (goes_on) {
        struct pollfd p[] = {{.fd = job.pid == 0 ? ends[HELPER_AUDITS] : -1, .events = POLLIN},
                             {.fd = ends[HELPER_FILES], .events = POLLIN},
                             {.fd = job.from, .events = POLLIN}};
        if (poll(p, 3, -1) < 0)
            continue;
        if (p[2].revents != 0)
            helper_job_read(&job);
        for (int channel = 0; channel < HELPER_CHANNELS && goes_on; channel++)
            if (p[channel].revents != 0)
                goes_on = helper_take(channel, cfg, &job);
        if (job.pid < 0)
            helper_job_end(&job, false);
    }
    _exit(0);
}

bool helper_start(struct web *w) {
    int pairs[HELPER_CHANNELS][2], theirs[HELPER_CHANNELS];
    for (int i = 0; i < HELPER_CHANNELS; i++)
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]) < 0)
            return false;
    for (int i = 0; i < HELPER_CHANNELS; i++) {
        w->helper[i] = pairs[i][0];
        theirs[i] = pairs[i][1];
    }
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < HELPER_CHANNELS; i++)
            close(w->helper[i]);
        close(w->listen_fd);
        helper_main(w->cfg, theirs);
    }
    for (int i = 0; i < HELPER_CHANNELS; i++)
        close(theirs[i]);
    return pid > 0;
}

/* One question at a time on each channel. */
static json_t *helper_ask(struct web *w, int channel, uint32_t type) {
    static pthread_mutex_t locks[HELPER_CHANNELS] = {PTHREAD_MUTEX_INITIALIZER,
                                                     PTHREAD_MUTEX_INITIALIZER};
    struct sbuf out = {0}, in = {0};
    struct ipc_head head;
    struct str fields;
    size_t n;
    int log_fd;
    json_t *answer = NULL;
    pthread_mutex_lock(&locks[channel]);
    ipc_end(&out, ipc_begin(&out, type, 1));
    if (ipc_send(w->helper[channel], sbuf_str(&out), NULL, 0) == 0 &&
        ipc_recv(w->helper[channel], &in, &head, &fields, &log_fd, 1, &n) == 0) {
        if (n > 0)
            log_replace(log_fd);
        struct ipc_reader rd = {.rest = fields};
        struct str text = ipc_get_str(&rd);
        answer = json_loadb(text.p, text.n, 0, NULL);
    }
    pthread_mutex_unlock(&locks[channel]);
    sbuf_free(&out);
    sbuf_free(&in);
    return answer;
}

json_t *helper_audit(struct web *w) {
    return helper_ask(w, HELPER_AUDITS, HELPER_AUDIT);
}

json_t *helper_next_hops(struct web *w) {
    json_t *o = helper_ask(w, HELPER_AUDITS, HELPER_USES), *hops = json_object_get(o, "next_hops");
    json_incref(hops);
    json_decref(o);
    return hops;
}

void helper_reopen_log(struct web *w) {
    json_decref(helper_ask(w, HELPER_FILES, HELPER_LOG));
}
