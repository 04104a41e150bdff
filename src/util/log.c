/*
 * util/log.c - the log sink; see log.h
 *
 * One mutex guards the buffer.  The writer thread sleeps until there is something, waits a few
 * milliseconds more so that busy times share a write(2), swaps the buffer and writes it.  A write
 * that fails is given up, and lines that find the buffer full are left out: logging never stops
 * mail.  How many lines were lost stands before the next one that can be written.
 */
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "util/fs.h"
#include "util/mem.h"
#include "util/str.h"

#define LOG_BATCH_NS 5000000L
#define LOG_BUF_MAX  (32U << 20)
#define LINKS_MAX    16U
#define LOG_LINE_MAX 40000U /* bytes of one line's text; the rest is left out */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool threaded;
    bool stopping;
    int fd;       /* -1: syslog */
    int facility; /* of syslog */
    char *name;
    char *file;
    char host[64];
    bool json;
    struct sbuf buf;
    uint64_t lost; /* lines, since that was said last */
    char pid[16];  /* "[123]: " */
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .fd = 2};

static const struct {
    const char *name;
    int value;
} facilities[] = {{"mail", LOG_MAIL},     {"daemon", LOG_DAEMON}, {"user", LOG_USER},
                  {"local0", LOG_LOCAL0}, {"local1", LOG_LOCAL1}, {"local2", LOG_LOCAL2},
                  {"local3", LOG_LOCAL3}, {"local4", LOG_LOCAL4}, {"local5", LOG_LOCAL5},
                  {"local6", LOG_LOCAL6}, {"local7", LOG_LOCAL7}};

static int facility_value(const char *name) {
    for (size_t i = 0; i < sizeof facilities / sizeof facilities[0]; i++)
        if (name != NULL && strcmp(name, facilities[i].name) == 0)
            return facilities[i].value;
    return LOG_MAIL;
}

/* Can only root put another file in the place of this one? */
static bool folder_is_roots(const char *path) {
    struct stat st;
    char *dir = fs_folder(str_of(path));
    bool yes = stat(dir, &st) == 0 && st.st_uid == 0 && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
    free(dir);
    return yes;
}

static int log_file_open(const char *path) {
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    int fd = open(path, flags, 0640);
    return fd < 0 ? -errno : fd;
}

/* Root follows a link, or writes to a file with several names, only where root alone can have made
 * it. */
static int root_file_open(const char *path, unsigned links) {
    if (!folder_is_roots(path))
        return fs_open_only(path, O_WRONLY | O_CREAT | O_APPEND, 0640);
    char *target = fs_link_target(path);
    if (target == NULL)
        return log_file_open(path);
    int fd = links == 0 ? -ELOOP : root_file_open(target, links - 1);
    free(target);
    return fd;
}

static int file_open(const char *path) {
    if (strcmp(path, "/dev/stdout") == 0)
        return 1;
    if (strcmp(path, "/dev/stderr") == 0)
        return 2;
    return geteuid() == 0 ? root_file_open(path, LINKS_MAX) : log_file_open(path);
}

static void note_pid(void);

int log_open(const struct log_conf *conf) {
    note_pid();
    char *name = mem_strdup(conf->name != NULL && conf->name[0] != '\0' ? conf->name : "postfix");
    free(sink.name);
    sink.name = name;
    sink.json = conf->json;
    snprintf(sink.host, sizeof sink.host, "%s", conf->hostname == NULL ? "" : conf->hostname);
    sink.host[strcspn(sink.host, ".")] = '\0';
    free(sink.file);
    sink.file = NULL;
    if (conf->file == NULL || conf->file[0] == '\0') {
        sink.facility = facility_value(conf->facility);
        openlog(NULL, LOG_NDELAY | LOG_PID, sink.facility);
        sink.fd = -1;
        return 0;
    }
    int fd = file_open(conf->file);
    if (fd < 0)
        return fd;
    sink.file = mem_strdup(conf->file);
    sink.fd = fd;
    return 0;
}

int log_reopen(void) {
    if (sink.file == NULL || sink.fd <= 2)
        return -ENOENT;
    int fd = file_open(sink.file);
    if (fd < 0) {
        log_warn("master", "cannot reopen log file %s: %s", sink.file, strerror(-fd));
        return fd;
    }
    log_replace(fd);
    return sink.fd;
}

void log_replace(int fd) {
    pthread_mutex_lock(&sink.lock);
    if (sink.fd > 2)
        dup3(fd, sink.fd, O_CLOEXEC);
    pthread_mutex_unlock(&sink.lock);
    close(fd);
}

/* How many lines of text were not written. */
static uint64_t write_lines(int fd, struct str text) {
    uint64_t left = 0;
    while (text.n > 0) {
        ssize_t w = write(fd, text.p, text.n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            break;
        text = str_from(text, (size_t)w);
    }
    for (size_t i = 0; i < text.n; i++)
        left += text.p[i] == '\n';
    return left;
}

static void line_make(struct sbuf *line, const char *name, const char *service, int prio,
                      const char *text);

/* "postfix/smtpd[17]: text" behind the priority.  The tag is syslog's own, as Postfix's is:
 * fail2ban, pflogsumm and journalctl -t look for it. */
static void syslog_line(struct str line) {
    char tag[128];
    struct str text = str_from(line, 1);
    ptrdiff_t bracket = str_chr(text, '[');
    size_t n = bracket < 0 ? 0 : (size_t)bracket;
    if (n >= sizeof tag)
        n = sizeof tag - 1;
    memcpy(tag, text.p, n);
    tag[n] = '\0';
    while (text.n > 2 && memcmp(text.p, "]: ", 3) != 0)
        text = str_from(text, 1);
    openlog(tag, LOG_NDELAY | LOG_PID, sink.facility);
    syslog(line.p[0], "%.*s", (int)text.n - 3, text.p + 3);
    openlog(NULL, LOG_NDELAY | LOG_PID, sink.facility); /* tag is gone after this */
}

/* Buffered lines are NUL-free text separated by '\n'; for syslog each begins with its priority.
 * lost: how many are missing before them.  Returns how many are missing after them. */
static uint64_t log_emit(struct str lines, uint64_t lost) {
    struct sbuf first = {0};
    struct str line;
    if (lost > 0 && lines.n > 0) {
        char text[100];
        snprintf(text, sizeof text, "warning: %llu log lines were lost", (unsigned long long)lost);
        line_make(&first, NULL, "log", LOG_WARNING, text);
    }
    if (sink.fd >= 0) {
        if (first.n > 0 && write_lines(sink.fd, sbuf_str(&first)) == 0)
            lost = 0;
        lost += write_lines(sink.fd, lines);
    } else {
        if (first.n > 1)
            syslog_line(str_make(first.p, first.n - 1));
        while (str_split(&lines, "\n", &line))
            if (line.n > 1)
                syslog_line(line);
        lost = first.n > 0 ? 0 : lost;
    }
    sbuf_free(&first);
    return lost;
}

/* Where no thread writes, under the lock. */
static void emit_now(void) {
    sink.lost = log_emit(sbuf_str(&sink.buf), sink.lost);
    sbuf_reset(&sink.buf);
}

static void *log_writer_main(void *arg) {
    struct sbuf mine = {0};
    (void)arg;
    pthread_mutex_lock(&sink.lock);
    while (!sink.stopping || sink.buf.n > 0) {
        if (sink.buf.n == 0) {
            pthread_cond_wait(&sink.wake, &sink.lock);
            continue;
        }
        if (!sink.stopping) {
            pthread_mutex_unlock(&sink.lock);
            nanosleep(&(struct timespec){0, LOG_BATCH_NS}, NULL);
            pthread_mutex_lock(&sink.lock);
        }
        struct sbuf full = sink.buf;
        sink.buf = mine;
        mine = full;
        uint64_t lost = sink.lost;
        sink.lost = 0;
        pthread_mutex_unlock(&sink.lock);
        lost = log_emit(sbuf_str(&mine), lost);
        sbuf_reset(&mine);
        pthread_mutex_lock(&sink.lock);
        sink.lost += lost;
    }
    pthread_mutex_unlock(&sink.lock);
    sbuf_free(&mine);
    return NULL;
}

static void note_pid(void) {
    snprintf(sink.pid, sizeof sink.pid, "[%d]: ", getpid());
}

void log_start(void) {
    note_pid();
    sink.stopping = false;
    sink.threaded = pthread_create(&sink.thread, NULL, log_writer_main, NULL) == 0;
}

void log_close(void) {
    if (!sink.threaded)
        return;
    pthread_mutex_lock(&sink.lock);
    sink.stopping = true;
    pthread_cond_signal(&sink.wake);
    pthread_mutex_unlock(&sink.lock);
    pthread_join(sink.thread, NULL);
    pthread_mutex_lock(&sink.lock); /* other threads may go on logging: from now on at once */
    sink.threaded = false;
    emit_now();
    pthread_mutex_unlock(&sink.lock);
}

/* "Nov 22 10:34:26 host ": made once a second by each thread. */
static void stamp_add(struct sbuf *b) {
    static _Thread_local time_t stamp_sec;
    static _Thread_local char stamp[32];
    time_t now = time(NULL);
    if (now != stamp_sec) {
        struct tm tm;
        localtime_r(&now, &tm);
        strftime(stamp, sizeof stamp, "%b %e %H:%M:%S ", &tm);
        stamp_sec = now;
    }
    sbuf_add_c(b, stamp);
    sbuf_add_c(b, sink.host);
    sbuf_add_ch(b, ' ');
}

static void tag_add(struct sbuf *b, const char *name, const char *service) {
    sbuf_add_c(b, name);
    sbuf_add_ch(b, '/');
    sbuf_add_c(b, service);
    sbuf_add_c(b, sink.pid);
}

static void line_json(struct sbuf *b, const char *name, const char *service, const char *text) {
    struct timespec ts;
    struct tm tm;
    char when[40];
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    sbuf_printf(b, "{\"time\":\"%s.%06ldZ\",\"host\":", when, ts.tv_nsec / 1000);
    sbuf_add_json(b, str_of(sink.host));
    sbuf_add_c(b, ",\"program\":");
    struct sbuf prog = {0};
    sbuf_printf(&prog, "%s/%s", name, service);
    sbuf_add_json(b, sbuf_str(&prog));
    sbuf_free(&prog);
    sbuf_printf(b, ",\"pid\":%d,\"message\":", getpid());
    sbuf_add_json(b, str_of(text));
    sbuf_add_ch(b, '}');
}

/* Puts a whole line into the buffer; true if the writer is to be woken. */
static bool line_put(struct str line) {
    pthread_mutex_lock(&sink.lock);
    bool first = sink.buf.n == 0, full = sink.buf.n > LOG_BUF_MAX;
    if (full)
        sink.lost++;
    else
        sbuf_add_str(&sink.buf, line);
    if (!sink.threaded)
        emit_now();
    pthread_mutex_unlock(&sink.lock);
    return first && !full;
}

static void line_make(struct sbuf *line, const char *name, const char *service, int prio,
                      const char *text) {
    if (name == NULL)
        name = sink.name == NULL ? "postfix" : sink.name;
    sbuf_room(line, strlen(text) + 160);
    if (sink.pid[0] == '\0')
        note_pid();
    if (sink.fd >= 0 && sink.json) {
        line_json(line, name, service, text);
    } else {
        if (sink.fd < 0) /* syslog adds time and host of its own */
            sbuf_add_ch(line, (char)prio);
        else
            stamp_add(line);
        tag_add(line, name, service);
        sbuf_add_c(line, text);
    }
    sbuf_add_ch(line, '\n');
}

static void line_add(const char *name, const char *service, int prio, char *text) {
    struct sbuf line = {0};
    str_hide_controls(text, strlen(text));
    if (strlen(text) > LOG_LINE_MAX)
        memcpy(text + LOG_LINE_MAX - 4, " ...", 5);
    line_make(&line, name, service, prio, text);
    if (line_put(sbuf_str(&line)))
        pthread_cond_signal(&sink.wake);
    sbuf_free(&line);
}

static void line_format(const char *name, const char *service, int prio, const char *prefix,
                        const char *fmt, va_list ap) {
    char small[1024];
    size_t plen = strlen(prefix);
    memcpy(small, prefix, plen + 1);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(small + plen, sizeof small - plen, fmt, ap);
    if (n >= 0 && (size_t)n < sizeof small - plen) {
        line_add(name, service, prio, small);
    } else {
        struct sbuf b = {0};
        sbuf_add_c(&b, prefix);
        sbuf_vprintf(&b, fmt, again);
        line_add(name, service, prio, b.p);
        sbuf_free(&b);
    }
    va_end(again);
}

#define LOG_BODY(name, service, prio, prefix)                                                      \
    do {                                                                                           \
        va_list ap;                                                                                \
        va_start(ap, fmt);                                                                         \
        line_format(name, service, prio, prefix, fmt, ap);                                         \
        va_end(ap);                                                                                \
    } while (0)

void log_as(const char *name, const char *service, const char *fmt, ...) {
    LOG_BODY(name, service, LOG_INFO, "");
}

void log_info(const char *service, const char *fmt, ...) {
    LOG_BODY(NULL, service, LOG_INFO, "");
}

void log_warn(const char *service, const char *fmt, ...) {
    LOG_BODY(NULL, service, LOG_WARNING, "warning: ");
}

void log_warn_as(const char *name, const char *service, const char *fmt, ...) {
    LOG_BODY(name, service, LOG_WARNING, "warning: ");
}

void log_error(const char *service, const char *fmt, ...) {
    LOG_BODY(NULL, service, LOG_ERR, "error: ");
}

static void log_as_fatal(const char *service, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void log_as_fatal(const char *service, const char *fmt, ...) {
    LOG_BODY(NULL, service, LOG_CRIT, "fatal: ");
}

static bool (*fatal_taker)(const char *service, const char *text);

void log_on_fatal(bool (*fn)(const char *service, const char *text)) {
    fatal_taker = fn;
}

void log_fatal(const char *service, const char *fmt, ...) {
    struct sbuf text = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    str_hide_controls(text.p, text.n);
    if (fatal_taker == NULL || !fatal_taker(service, text.p))
        log_as_fatal(service, "%s", text.p);
    sbuf_free(&text);
}
