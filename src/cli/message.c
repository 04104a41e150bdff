/*
 * cli/message.c - one queued message, printed as postcat(1) does; see message.h
 */
#include "cli/message.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/listing.h"
#include "mail/envelope.h"
#include "util/clock.h"
#include "util/codec.h"

struct shown {
    unsigned what;
    const char *qid;
    char queue[16];
    json_t *rcpts;    /* those who wait for it, with the reason; NULL: not known */
    struct sbuf line; /* content that has no end of line yet */
    bool in_body;
    bool terminal; /* which would obey control characters; a file or a pipe gets each byte */
};

/* A line with a text that comes from elsewhere. */
static void show_text(const char *name, const char *text) {
    printf("%s: ", name);
    cli_put_safe(text);
    putchar('\n');
}

static void show_attr(const char *name, const char *value) {
    if (value[0] == '\0')
        return;
    printf("named_attribute: %s=", name);
    cli_put_safe(value);
    putchar('\n');
}

static void show_rcpt(json_t *r) {
    long long notify = json_integer_value(json_object_get(r, "notify"));
    const char *orcpt = listing_text(r, "orcpt"), *addr = listing_text(r, "addr");
    const char *orig = listing_text(r, "orig");
    const char *original = orig[0] != '\0'                     ? orig
                           : strncmp(orcpt, "rfc822;", 7) == 0 ? orcpt + 7
                                                               : addr;
    if (notify != 0)
        printf("named_attribute: notify_flags=%lld\n", notify);
    show_attr("dsn_orig_rcpt", orcpt);
    show_text("original_recipient", original);
    show_text(json_is_true(json_object_get(r, "done")) ? "done_recipient" : "recipient", addr);
}

static void show_envelope(const struct shown *s, json_t *o) {
    long long size = json_integer_value(json_object_get(o, "size"));
    long long flags = json_integer_value(json_object_get(o, "flags"));
    size_t i, n = json_array_size(json_object_get(o, "rcpts"));
    json_t *r;
    struct sbuf when = {0};
    clock_add_asctime(&when, json_integer_value(json_object_get(o, "arrival_us")));
    printf("*** ENVELOPE RECORDS %s/%s ***\n", s->queue, s->qid);
    printf("message_size: %15lld %15d %15zu %15d %15lld %15d\n", size, 0, n, 0, size, 0);
    printf("message_arrival_time: %s\ncreate_time: %s\n", when.p, when.p);
    show_attr("log_ident", s->qid);
    show_attr("envelope_id", listing_text(o, "envid"));
    if ((flags & (ENV_RET_FULL | ENV_RET_HDRS)) != 0)
        printf("named_attribute: ret_flags=%d\n", (flags & ENV_RET_FULL) != 0 ? 1 : 2);
    if (listing_text(o, "filter")[0] != '\0')
        show_text("content_filter", listing_text(o, "filter"));
    show_text("sender", listing_text(o, "sender"));
    show_attr("log_message_origin", listing_text(o, "client"));
    show_attr("sasl_username", listing_text(o, "sasl_user"));
    json_array_foreach(json_object_get(o, "rcpts"), i, r) {
        show_rcpt(r);
    }
    sbuf_free(&when);
}

/* Each reason once, before those who wait for it, and the sentence on it once. */
static void show_reasons(const struct shown *s) {
    size_t i;
    json_t *r;
    const char *last = "", *said = "";
    json_array_foreach(s->rcpts, i, r) {
        const char *reason = listing_text(r, "delay_reason");
        const char *advice = ask_advice(listing_text(r, "cause"), listing_text(r, "reply"));
        if (reason[0] != '\0' && strcmp(reason, last) != 0) {
            show_text("delay_reason", reason);
            if (advice != NULL && strcmp(advice, said) != 0)
                printf("advice: %s\n", advice);
            said = advice == NULL ? said : advice;
        }
        last = reason;
        if (reason[0] != '\0')
            show_text("delayed_recipient", listing_text(r, "address"));
    }
}

/* Does the line belong to the header section? */
static bool is_header_line(struct str line) {
    size_t n = 0;
    if (line.n > 0 && (line.p[0] == ' ' || line.p[0] == '\t'))
        return true;
    while (n < line.n && line.p[n] > ' ' && line.p[n] < 0x7f && line.p[n] != ':')
        n++;
    size_t colon = n;
    while (colon < line.n && (line.p[colon] == ' ' || line.p[colon] == '\t'))
        colon++;
    return n > 0 && colon < line.n && line.p[colon] == ':';
}

/* Tabs stay. */
static void show_on_terminal(struct str line) {
    struct sbuf safe = {0};
    for (ptrdiff_t tab; (tab = str_chr(line, '\t')) >= 0; line = str_from(line, (size_t)tab + 1)) {
        sbuf_add_safe(&safe, str_make(line.p, (size_t)tab));
        sbuf_add_ch(&safe, '\t');
    }
    sbuf_add_safe(&safe, line);
    fwrite(safe.p == NULL ? "" : safe.p, 1, safe.n, stdout);
    sbuf_free(&safe);
}

static void show_line(struct shown *s, struct str line) {
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    s->in_body = s->in_body || !is_header_line(line);
    if ((s->what & (s->in_body ? SHOW_BODY : SHOW_HEADER)) == 0)
        return;
    if ((s->what & SHOW_TYPES) != 0)
        fputs("regular_text: ", stdout);
    if (s->terminal)
        show_on_terminal(line);
    else
        fwrite(line.p, 1, line.n, stdout);
    putchar('\n');
}

static void show_content(struct shown *s, const char *base64) {
    const char *nl;
    size_t used = 0;
    base64_decode(&s->line, str_of(base64));
    while ((nl = memchr(s->line.p + used, '\n', s->line.n - used)) != NULL) {
        show_line(s, str_make(s->line.p + used, (size_t)(nl - s->line.p) - used));
        used = (size_t)(nl - s->line.p) + 1;
    }
    sbuf_drop(&s->line, used);
}

static void message_line(void *arg, struct str line) {
    struct shown *s = arg;
    json_t *o = json_loadb(line.p, line.n, 0, NULL);
    const char *content = json_string_value(json_object_get(o, "content"));
    if (content != NULL) {
        show_content(s, content);
    } else if (json_object_get(o, "queue_name") != NULL) {
        snprintf(s->queue, sizeof s->queue, "%s", listing_text(o, "queue_name"));
        s->rcpts = json_incref(json_object_get(o, "recipients"));
    } else if ((s->what & SHOW_ENVELOPE) != 0) {
        show_envelope(s, o);
        if ((s->what & SHOW_REASONS) != 0)
            show_reasons(s);
        printf("*** MESSAGE CONTENTS %s/%s ***\n", s->queue, s->qid);
    }
    json_decref(o);
}

int message_show(const char *who, const struct config *cfg, const char *qid, unsigned what) {
    struct shown s = {.what = what, .qid = qid, .terminal = isatty(1)};
    struct ask_end end = {0};
    json_t *req = json_pack("{s:s, s:s}", "cmd", "queue-read", "id", qid);
    char *text = req == NULL ? NULL : json_dumps(req, 0), *why = NULL;
    json_decref(req);
    int rc = text == NULL ? -1 : cli_ask(who, cfg, text, message_line, &s, &end, &why);
    if (rc == 0 && s.line.n > 0)
        show_line(&s, sbuf_str(&s.line));
    if (rc == 0 && (what & SHOW_ENVELOPE) != 0)
        printf("*** HEADER EXTRACTED %s/%s ***\n*** MESSAGE FILE END %s/%s ***\n", s.queue, qid,
               s.queue, qid);
    if (rc < 0)
        fprintf(stderr, "%s: fatal: open queue file %s: %s\n", who, qid,
                why == NULL ? "Invalid argument" : why);
    json_decref(s.rcpts);
    sbuf_free(&s.line);
    free(text);
    free(why);
    return rc < 0 ? 1 : 0;
}
