/*
 * cli/submission.c - the SMTP dialogue of sendmail(1) with the daemon; see submission.h
 *
 * Over the daemon's public unix socket.  There is no drop directory: what the daemon does not take
 * is an exit status, 75 (EX_TEMPFAIL) where a later call may succeed.
 */
#include "cli/submission.h"

#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "mail/address.h"
#include "smtp/content.h"
#include "smtp/reply.h"
#include "util/fs.h"
#include "util/mem.h"

#define SUBMIT_SOCKET "public/submit.sock"
/* A daemon that is restarted is back within this time. */
#define SUBMIT_WAIT_MS 5000
#define SUBMIT_STEP_MS 100

struct dialogue {
    int fd;
    struct sbuf in;
    struct smtp_reply r;
};

/* Sends text and waits for the reply; its code, or 0 when the daemon is gone. */
static int dialogue_say(struct dialogue *d, const char *p, size_t n) {
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

/* The reply as a text; the caller frees. */
static char *dialogue_reply(const struct dialogue *d, int code) {
    struct sbuf b = {0};
    if (code == 0)
        sbuf_add_c(&b, "the daemon did not answer");
    else
        smtp_reply_line(&d->r, &b);
    return sbuf_take(&b);
}

static int dialogue_status(int code) {
    return code / 100 == 5 ? EX_UNAVAILABLE_ : EX_TEMPFAIL_;
}

static int dialogue_fatal(const struct dialogue *d, int code) {
    char *text = dialogue_reply(d, code);
    fprintf(stderr, "sendmail: fatal: %s\n", text);
    free(text);
    return dialogue_status(code);
}

/* authorized_submit_users. */
static int user_fatal(void) {
    const struct passwd *pw = getpwuid(getuid());
    fprintf(stderr, "sendmail: fatal: User %s(%ld) is not allowed to submit mail\n",
            pw == NULL ? "unknown" : pw->pw_name, (long)getuid());
    return EX_TEMPFAIL_;
}

/* Waits for a daemon that is being started. */
static int submit_connect(const struct config *cfg) {
    struct timespec step = {0, SUBMIT_STEP_MS * 1000000L};
    int fd = ask_connect(cfg->p.queue_directory, SUBMIT_SOCKET);
    for (int ms = 0; (fd == -ENOENT || fd == -ECONNREFUSED) && ms < SUBMIT_WAIT_MS;
         ms += SUBMIT_STEP_MS) {
        nanosleep(&step, NULL);
        fd = ask_connect(cfg->p.queue_directory, SUBMIT_SOCKET);
    }
    if (fd < 0)
        fprintf(stderr, "sendmail: fatal: %s/" SUBMIT_SOCKET ": %s (is posthoused running?)\n",
                cfg->p.queue_directory, strerror(-fd));
    return fd;
}

/* To the first MAIL; an exit status. */
static int dialogue_open(struct dialogue *d, const struct config *cfg) {
    d->fd = submit_connect(cfg);
    if (d->fd < 0)
        return EX_TEMPFAIL_;
    int code = dialogue_say(d, "", 0);
    if (code == 550)
        return user_fatal();
    if (code / 100 == 2)
        code = dialogue_say(d, "EHLO localhost\r\n", 16);
    return code / 100 == 2 ? EX_OK_ : dialogue_fatal(d, code);
}

static void dialogue_close(struct dialogue *d) {
    if (d->fd >= 0) {
        dialogue_say(d, "QUIT\r\n", 6);
        close(d->fd);
    }
    sbuf_free(&d->in);
    smtp_reply_free(&d->r);
}

/* -- a transaction -- */

static int say_mail(struct dialogue *d, const struct submission *s) {
    struct sbuf b = {0};
    sbuf_add_c(&b, "MAIL FROM:<");
    addr_external(&b, str_of(s->from));
    sbuf_add_c(&b, "> BODY=8BITMIME");
    if (s->envid != NULL) {
        sbuf_add_c(&b, " ENVID=");
        xtext_encode(&b, str_of(s->envid));
    }
    if (s->ret != NULL)
        sbuf_printf(&b, " RET=%s", s->ret);
    if (s->is_remote)
        sbuf_add_c(&b, " REWRITE=REMOTE");
    sbuf_add_c(&b, "\r\n");
    int code = dialogue_say(d, b.p, b.n);
    sbuf_free(&b);
    return code;
}

static int say_rcpt(struct dialogue *d, const struct submission *s, const char *addr) {
    struct sbuf b = {0};
    sbuf_add_c(&b, "RCPT TO:<");
    addr_external(&b, str_of(addr));
    sbuf_add_ch(&b, '>');
    if (s->notify != NULL)
        sbuf_printf(&b, " NOTIFY=%s", s->notify);
    sbuf_add_c(&b, "\r\n");
    int code = dialogue_say(d, b.p, b.n);
    sbuf_free(&b);
    return code;
}

static int say_content(struct dialogue *d, struct str content) {
    struct sbuf crlf = {0}, out = {0};
    struct content_in norm = {0};
    struct content_out stuff = {0};
    int code = dialogue_say(d, "DATA\r\n", 6);
    if (code != 354)
        return code == 0 || code / 100 == 5 ? code : 451;
    content_bdat(&norm, content, &crlf);
    content_bdat_end(&norm, &crlf);
    content_stuff(&stuff, sbuf_str(&crlf), 0, &out);
    sbuf_add_c(&out, ".\r\n");
    code = dialogue_say(d, out.p, out.n);
    sbuf_free(&crlf);
    sbuf_free(&out);
    return code;
}

/* Are there too many recipients for one transaction? */
static bool is_too_many(const struct dialogue *d, int code) {
    return code == 452 && str_istarts(smtp_reply_last(&d->r), "4.5.3");
}

/* The message in one transaction, to the recipients from *at on, or as many of them as the daemon
 * takes at a time: *at becomes the first one that another transaction is for.  What fails has been
 * taken for none of them, and a further try sends no second copy to any.  Returns the code that
 * ended it, 2xx if all is well or no recipient was taken. */
static int submission_transact(struct dialogue *d, struct submission *s, size_t *at) {
    size_t i = *at, taken = 0;
    int code = say_mail(d, s);
    if (code / 100 != 2)
        return code;
    for (; i < s->n_rcpts; i++) {
        struct submission_rcpt *r = &s->rcpts[i];
        code = say_rcpt(d, s, r->addr);
        if (code == 0 || code == 421)
            return code;
        if (taken > 0 && is_too_many(d, code))
            break;
        if (code / 100 == 2)
            taken++;
        else
            r->refused = dialogue_reply(d, code);
    }
    code = taken == 0 ? dialogue_say(d, "RSET\r\n", 6) : say_content(d, sbuf_str(&s->content));
    if (code / 100 == 2)
        *at = i;
    return code;
}

/* Has any of the first n recipients, all of them in transactions that are over, the message? */
static bool submission_is_taken(const struct submission *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s->rcpts[i].refused == NULL)
            return true;
    return false;
}

/* All transactions that it takes; an exit status.  Once others have the message, a failure is only
 * about the recipients that are left. */
static int submission_transact_all(struct dialogue *d, struct submission *s) {
    size_t at = 0;
    int code;
    do
        code = submission_transact(d, s, &at);
    while (code / 100 == 2 && at < s->n_rcpts);
    if (code / 100 != 2 && !submission_is_taken(s, at))
        return dialogue_fatal(d, code);
    for (; at < s->n_rcpts; at++)
        if (s->rcpts[at].refused == NULL)
            s->rcpts[at].refused = dialogue_reply(d, code);
    return EX_OK_;
}

/* -- recipients that were refused -- */

static void add_header_of(struct str content, struct sbuf *out) {
    while (content.n > 0) {
        const char *nl = memchr(content.p, '\n', content.n);
        struct str line =
            str_make(content.p, nl == NULL ? content.n : (size_t)(nl - content.p) + 1);
        if (str_trim(line).n == 0)
            return;
        sbuf_add_str(out, line);
        content = str_from(content, line.n);
    }
}

static void add_refused(const struct submission *s, const char *indent, struct sbuf *out) {
    for (size_t i = 0; i < s->n_rcpts; i++) {
        if (s->rcpts[i].refused == NULL)
            continue;
        sbuf_printf(out, "%s<", indent);
        addr_external(out, str_of(s->rcpts[i].addr));
        sbuf_add_c(out, ">: ");
        sbuf_add_safe(out, str_of(s->rcpts[i].refused));
        sbuf_add_ch(out, '\n');
    }
}

static int refused_status(const struct submission *s) {
    for (size_t i = 0; i < s->n_rcpts; i++)
        if (s->rcpts[i].refused != NULL && s->rcpts[i].refused[0] != '5')
            return EX_TEMPFAIL_;
    return EX_UNAVAILABLE_;
}

/* Others have the message, so the program that sent it does not look at what was refused.  Returns
 * an exit status: EX_TEMPFAIL_ if the sender cannot be told now, EX_UNAVAILABLE_ if it never can.
 */
static int tell_sender(struct dialogue *d, const struct submission *s) {
    struct submission note = {.cfg = s->cfg, .from = mem_strdup("")};
    size_t at = 0;
    int status = EX_OK_;
    if (s->from[0] != '\0') {
        submission_add(&note, str_of(s->from));
        sbuf_printf(&note.content, "From: Mail Delivery System <MAILER-DAEMON@%s>\nTo: <",
                    s->cfg->p.myorigin);
        addr_external(&note.content, str_of(s->from));
        sbuf_add_c(&note.content,
                   ">\nSubject: Undelivered Mail Returned to Sender\n"
                   "Auto-Submitted: auto-replied\n\n"
                   "The message whose header stands below was not taken for these recipients. The\n"
                   "others get it.\n\n");
        add_refused(s, "", &note.content);
        sbuf_add_c(&note.content, "\n--\n");
        add_header_of(sbuf_str(&s->content), &note.content);
        int code = submission_transact(d, &note, &at);
        if (code / 100 != 2)
            status = dialogue_status(code);
        else if (!submission_is_taken(&note, note.n_rcpts))
            status = refused_status(&note);
    }
    submission_free(&note);
    return status;
}

/* All recipients have been named. */
static int submission_end(struct dialogue *d, const struct submission *s) {
    bool taken = submission_is_taken(s, s->n_rcpts);
    struct sbuf text = {0};
    add_refused(s, "sendmail: ", &text);
    if (text.n == 0)
        return EX_OK_;
    int rc = taken ? tell_sender(d, s) : refused_status(s);
    if (taken && rc != EX_TEMPFAIL_) /* a second copy is better than a loss */
        rc = EX_OK_;
    fputs(text.p, stderr);
    if (!taken)
        fputs("sendmail: fatal: no recipient was taken\n", stderr);
    sbuf_free(&text);
    return rc;
}

int submission_send(struct submission *s) {
    struct dialogue d = {.fd = -1};
    int rc = dialogue_open(&d, s->cfg);
    if (rc == EX_OK_)
        rc = submission_transact_all(&d, s);
    if (rc == EX_OK_)
        rc = submission_end(&d, s);
    dialogue_close(&d);
    return rc;
}

int submission_verify(struct submission *s) {
    struct dialogue d = {.fd = -1};
    int rc = dialogue_open(&d, s->cfg);
    int code = rc == EX_OK_ ? say_mail(&d, s) : 0;
    if (rc == EX_OK_ && code / 100 != 2)
        rc = dialogue_fatal(&d, code);
    for (size_t i = 0; rc == EX_OK_ && i < s->n_rcpts; i++) {
        code = say_rcpt(&d, s, s->rcpts[i].addr);
        char *text = dialogue_reply(&d, code);
        struct sbuf addr = {0};
        addr_external(&addr, str_of(s->rcpts[i].addr));
        printf("%s... %s: %s\n", addr.p, code / 100 == 2 ? "deliverable" : "undeliverable", text);
        sbuf_free(&addr);
        free(text);
        if (code == 0)
            rc = EX_TEMPFAIL_;
    }
    dialogue_close(&d);
    return rc;
}

void submission_add(struct submission *s, struct str addr) {
    s->rcpts = mem_realloc(s->rcpts, (s->n_rcpts + 1) * sizeof *s->rcpts);
    s->rcpts[s->n_rcpts++] = (struct submission_rcpt){str_dup(addr), NULL};
}

void submission_free(struct submission *s) {
    for (size_t i = 0; i < s->n_rcpts; i++) {
        free(s->rcpts[i].addr);
        free(s->rcpts[i].refused);
    }
    free(s->rcpts);
    free(s->from);
    sbuf_free(&s->content);
}

/* -- sendmail -bs -- */

/* Copies what is there; false at the end. */
static bool copy_some(int from, int to) {
    char piece[16384];
    ssize_t n = read(from, piece, sizeof piece);
    return n > 0 && fs_write_all(to, piece, (size_t)n) >= 0;
}

int submission_dialogue(const struct config *cfg) {
    int fd = submit_connect(cfg);
    struct pollfd at[2] = {{.fd = 0, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    if (fd < 0)
        return EX_TEMPFAIL_;
    while (poll(at, 2, -1) >= 0 || errno == EINTR) {
        if (at[1].revents != 0 && !copy_some(fd, 1))
            break; /* the daemon has ended the session */
        if (at[0].revents != 0 && !copy_some(0, fd)) {
            at[0].fd = -1;
            shutdown(fd, SHUT_WR);
        }
    }
    close(fd);
    return EX_OK_;
}
