/*
 * cli/sendmail.c - sendmail(1) as Postfix has it: hands a message to the daemon
 *
 * Speaks SMTP over the daemon's public unix socket.  When the daemon does not answer or refuses for
 * the moment, the exit status is 75 (EX_TEMPFAIL): unlike Postfix there is no drop directory.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "mail/address.h"
#include "smtp/content.h"
#include "smtp/reply.h"
#include "util/fs.h"
#include "util/mem.h"

struct mail {
    char *from;
    char *name;       /* -F */
    bool from_header; /* -t */
    bool dot_ends;    /* not -i */
    char **rcpts;
    size_t n_rcpts;
    struct sbuf content;
    const char *envid, *notify, *ret;
};

static void rcpt_add(struct mail *m, struct str a) {
    m->rcpts = mem_realloc(m->rcpts, (m->n_rcpts + 1) * sizeof(char *));
    m->rcpts[m->n_rcpts++] = str_dup(a);
}

/* The addresses of a header field: comments, names and groups are dropped (RFC 5322 section 3.4).
 */
static void addresses(struct mail *m, struct str v) {
    struct sbuf cur = {0};
    int depth = 0;
    bool quoted = false, angle = false;
    for (size_t i = 0; i <= v.n; i++) {
        char c = i < v.n ? v.p[i] : ',';
        if (c == '\\' && i + 1 < v.n && (quoted || depth > 0)) {
            i++;
            if (depth == 0) {
                sbuf_add_ch(&cur, '\\');
                sbuf_add_ch(&cur, v.p[i]);
            }
        } else if (c == '"' && depth == 0) {
            quoted = !quoted;
            sbuf_add_ch(&cur, c);
        } else if (quoted) {
            sbuf_add_ch(&cur, c);
        } else if (c == '(') {
            depth++;
        } else if (c == ')' && depth > 0) {
            depth--;
        } else if (depth > 0) {
            continue;
        } else if (c == '<') {
            sbuf_reset(&cur);
            angle = true;
        } else if (c == '>' && angle) {
            rcpt_add(m, str_trim(sbuf_str(&cur)));
            sbuf_reset(&cur);
            angle = false;
            while (i + 1 < v.n && v.p[i + 1] != ',' && v.p[i + 1] != ';')
                i++;
        } else if (c == ':' && !angle) {
            sbuf_reset(&cur);
        } else if (c == ',' || c == ';') {
            if (str_trim(sbuf_str(&cur)).n > 0)
                rcpt_add(m, str_trim(sbuf_str(&cur)));
            sbuf_reset(&cur);
        } else {
            sbuf_add_ch(&cur, c == '\r' || c == '\n' || c == '\t' ? ' ' : c);
        }
    }
    sbuf_free(&cur);
}

/* -t: recipients from To:, Cc: and Bcc:; Bcc: is removed. */
static void take_header(struct mail *m) {
    struct sbuf out = {0};
    struct str rest = sbuf_str(&m->content);
    while (rest.n > 0) {
        size_t end = 0;
        do { /* a field and its continuation lines */
            const char *nl = memchr(rest.p + end, '\n', rest.n - end);
            end = nl == NULL ? rest.n : (size_t)(nl - rest.p) + 1;
        } while (end < rest.n && (rest.p[end] == ' ' || rest.p[end] == '\t'));
        struct str field = str_make(rest.p, end);
        if (str_trim(field).n == 0)
            break;
        bool bcc = str_istarts(field, "bcc:");
        if (bcc || str_istarts(field, "to:") || str_istarts(field, "cc:"))
            addresses(m, str_from(field, (size_t)str_chr(field, ':') + 1));
        if (!bcc)
            sbuf_add_str(&out, field);
        rest = str_from(rest, end);
    }
    sbuf_add_str(&out, rest);
    sbuf_free(&m->content);
    m->content = out;
}

/* Reads the message; with dot_ends a line with a dot alone ends it. */
static void read_content(struct mail *m) {
    struct sbuf in = {0};
    ssize_t n;
    while ((n = read(0, sbuf_room(&in, 65536), 65536)) > 0)
        sbuf_advance(&in, (size_t)n);
    struct str rest = sbuf_str(&in);
    while (rest.n > 0) {
        const char *nl = memchr(rest.p, '\n', rest.n);
        size_t end = nl == NULL ? rest.n : (size_t)(nl - rest.p) + 1;
        if (m->dot_ends && str_eq_c(str_trim(str_make(rest.p, end)), ".") && rest.p[0] == '.')
            break;
        sbuf_add(&m->content, rest.p, end);
        rest = str_from(rest, end);
    }
    sbuf_free(&in);
}

struct dialogue {
    int fd;
    struct sbuf in;
    struct smtp_reply r;
};

/* Sends text and waits for the reply; its code, or 0 when the daemon is gone. */
static int sendmail_say(struct dialogue *d, const char *p, size_t n) {
    size_t used;
    smtp_reply_reset(&d->r);
    if (n > 0 && fs_write_all(d->fd, p, n) < 0)
        return 0;
    for (;;) {
        enum reply_rc rc = smtp_reply_feed(&d->r, sbuf_str(&d->in), &used);
        sbuf_drop(&d->in, used);
        if (rc != REPLY_MORE)
            return rc == REPLY_DONE ? d->r.code : 0;
        char *at = sbuf_room(&d->in, 4096);
        ssize_t k = read(d->fd, at, 4096);
        if (k <= 0)
            return 0;
        sbuf_advance(&d->in, (size_t)k);
    }
}

static int sendmail_refused(struct dialogue *d, int code) {
    struct sbuf b = {0};
    smtp_reply_line(&d->r, &b);
    fprintf(stderr, "sendmail: fatal: %s\n", code == 0 ? "the daemon did not answer" : b.p);
    sbuf_free(&b);
    return code / 100 == 5 ? EX_UNAVAILABLE_ : EX_TEMPFAIL_;
}

static void add_path(struct sbuf *b, const char *addr) {
    /* Already quoted where it has to be: as the user wrote it. */
    sbuf_printf(b, "<%s>", addr);
}

static int send_envelope(struct dialogue *d, const struct mail *m) {
    struct sbuf b = {0};
    int code;
    sbuf_add_c(&b, "MAIL FROM:");
    add_path(&b, m->from);
    sbuf_add_c(&b, " BODY=8BITMIME");
    if (m->envid != NULL) {
        sbuf_add_c(&b, " ENVID=");
        xtext_encode(&b, str_of(m->envid));
    }
    if (m->ret != NULL)
        sbuf_printf(&b, " RET=%s", m->ret);
    sbuf_add_c(&b, "\r\n");
    code = sendmail_say(d, b.p, b.n);
    for (size_t i = 0; i < m->n_rcpts && code / 100 == 2; i++) {
        sbuf_reset(&b);
        sbuf_add_c(&b, "RCPT TO:");
        add_path(&b, m->rcpts[i]);
        if (m->notify != NULL)
            sbuf_printf(&b, " NOTIFY=%s", m->notify);
        sbuf_add_c(&b, "\r\n");
        code = sendmail_say(d, b.p, b.n);
    }
    sbuf_free(&b);
    return code;
}

static int submit(const struct config *cfg, const struct mail *m) {
    struct dialogue d = {.fd = ask_connect(cfg->p.queue_directory, "public/submit.sock")};
    struct sbuf crlf = {0}, out = {0};
    struct content_in norm = {0};
    struct content_out stuff = {0};
    if (d.fd < 0) {
        fprintf(stderr, "sendmail: fatal: %s/public/submit.sock: %s (is posthoused running?)\n",
                cfg->p.queue_directory, strerror(-d.fd));
        return EX_TEMPFAIL_;
    }
    int code = sendmail_say(&d, "", 0);
    if (code / 100 == 2)
        code = sendmail_say(&d, "EHLO localhost\r\n", 16);
    if (code / 100 == 2)
        code = send_envelope(&d, m);
    if (code / 100 == 2)
        code = sendmail_say(&d, "DATA\r\n", 6);
    if (code != 354)
        return sendmail_refused(&d, code);
    content_bdat(&norm, sbuf_str(&m->content), &crlf);
    content_bdat_end(&norm, &crlf);
    content_stuff(&stuff, sbuf_str(&crlf), 0, &out);
    sbuf_add_c(&out, ".\r\n");
    code = sendmail_say(&d, out.p, out.n);
    if (code / 100 != 2)
        return sendmail_refused(&d, code);
    sendmail_say(&d, "QUIT\r\n", 6);
    close(d.fd);
    return 0;
}

static char *sendmail_own_name(void) {
    struct passwd *pw = getpwuid(getuid());
    return mem_strdup(pw == NULL ? "unknown" : pw->pw_name);
}

/* -F: a From: field with the full name, when there is none. */
static void add_from(struct mail *m) {
    struct str rest = sbuf_str(&m->content), line;
    bool has = false;
    while (rest.n > 0 && !has) {
        const char *nl = memchr(rest.p, '\n', rest.n);
        line = str_make(rest.p, nl == NULL ? rest.n : (size_t)(nl - rest.p) + 1);
        if (str_trim(line).n == 0)
            break;
        has = str_istarts(line, "from:");
        rest = str_from(rest, line.n);
    }
    if (has || m->name == NULL)
        return;
    struct sbuf b = {0};
    sbuf_printf(&b, "From: \"%s\" <%s>\n", m->name, m->from);
    sbuf_add_str(&b, sbuf_str(&m->content));
    sbuf_free(&m->content);
    m->content = b;
}

static int set_flag(struct mail *m, int opt) {
    switch (opt) {
    case 'f':
    case 'r':
        free(m->from);
        m->from = mem_strdup(strcmp(optarg, "<>") == 0 ? "" : optarg);
        break;
    case 'F':
        m->name = mem_strdup(optarg);
        break;
    case 't':
        m->from_header = true;
        break;
    case 'i':
        m->dot_ends = false;
        break;
    case 'o':
        if (optarg[0] == 'i')
            m->dot_ends = false;
        break;
    case 'V':
        m->envid = optarg;
        break;
    case 'N':
        m->notify = optarg;
        break;
    case 'R':
        m->ret = optarg;
        break;
    default:
        break;
    }
    return opt == '?' ? EX_USAGE_ : 0;
}

int cli_sendmail(const char *dir, int argc, char **argv) {
    struct mail m = {.from = sendmail_own_name(), .dot_ends = true};
    const char *mode = "m";
    int opt;
    bool flush = false;
    optind = 1;
    while ((opt = getopt(argc, argv, "A:B:b:C:c:d:e:F:f:Gh:iL:mN:no:O:p:qR:r:tUV:vX:x")) != -1) {
        if (opt == 'b')
            mode = optarg;
        if (opt == 'C' || opt == 'c')
            dir = optarg;
        flush = flush || opt == 'q';
        if (set_flag(&m, opt) != 0)
            return EX_USAGE_;
    }
    struct config *cfg = cli_config("sendmail", dir);
    if (cfg == NULL)
        return EX_SOFTWARE_;
    if (mode[0] == 'p')
        return cli_list_queue("sendmail", cfg);
    if (flush)
        return cli_control("sendmail", cfg, "{\"cmd\": \"queue-flush\"}", NULL, NULL, NULL) < 0
                   ? EX_UNAVAILABLE_
                   : 0;
    if (mode[0] != 'm') {
        fprintf(stderr, "sendmail: fatal: mode -b%s is not implemented\n", mode);
        return EX_USAGE_;
    }
    for (int i = optind; i < argc; i++)
        rcpt_add(&m, str_of(argv[i]));
    read_content(&m);
    if (m.from_header)
        take_header(&m);
    add_from(&m);
    if (m.n_rcpts == 0) {
        fputs(m.from_header
                  ? "sendmail: fatal: No recipient addresses found in message header\n"
                  : "sendmail: fatal: Recipient addresses must be specified on the command line "
                    "or via the -t option\n",
              stderr);
        return EX_USAGE_;
    }
    return submit(cfg, &m);
}
