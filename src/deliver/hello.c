/*
 * deliver/hello.c - the stages greeting, EHLO and STARTTLS of a delivery session
 */
#include <stdlib.h>
#include <string.h>

#include "deliver/origin.h"
#include "deliver/session.h"
#include "util/idn.h"
#include "util/log.h"
#include "util/mem.h"

enum step greeting_begin(struct dsess *s) {
    session_deadline(s, s->p->smtp_helo_timeout);
    return STEP_WAIT;
}

enum step greeting_reply(struct dsess *s) {
    if (s->reply.code / 100 != 2)
        return host_refused(s, "refused to talk to me:");
    struct sbuf said = {0};
    smtp_reply_line(&s->reply, &said);
    watch_ok(s, "greeting", "%s", said.p);
    sbuf_free(&said);
    return STEP_DONE;
}

/* An internationalised name goes in A-labels: before EHLO, SMTPUTF8 has not been offered (RFC 6531
 * section 3.7.1). */
static enum step send_ehlo(struct dsess *s, bool helo) {
    const char *why;
    s->helo = helo;
    sbuf_add_c(&s->line, session_is_lmtp(s) ? "LHLO " : helo ? "HELO " : "EHLO ");
    if (!idn_to_ascii(str_of(s->p->smtp_helo_name), s->p->enable_idna2003_compatibility, &s->line,
                      &why)) {
        sbuf_reset(&s->line);
        return host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.3.5", "smtp_helo_name = %s: %s",
                           s->p->smtp_helo_name, why);
    }
    if (!session_say(s))
        return host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.3.5",
                           "smtp_helo_name has a control character");
    session_deadline(s, s->p->smtp_helo_timeout);
    return STEP_WAIT;
}

enum step ehlo_begin(struct dsess *s) {
    return send_ehlo(s, s->p->smtp_never_send_ehlo && !session_is_lmtp(s));
}

enum step ehlo_secure_begin(struct dsess *s) {
    return s->tls_agreed ? send_ehlo(s, false)
                         : STEP_DONE; /* what was said in clear is forgotten */
}

static const struct {
    const char *word;
    unsigned cap;
} keywords[] = {
    {"PIPELINING", CAP_PIPELINING}, {"SIZE", CAP_SIZE}, {"8BITMIME", CAP_8BITMIME},
    {"SMTPUTF8", CAP_SMTPUTF8},     {"DSN", CAP_DSN},   {"CHUNKING", CAP_CHUNKING},
    {"STARTTLS", CAP_STARTTLS},     {"AUTH", CAP_AUTH}, {"ENHANCEDSTATUSCODES", CAP_CODES},
    {"XFORWARD", CAP_XFORWARD}};

static bool keyword_discarded(const struct dsess *s, const char *word) {
    struct str rest = str_of(s->p->smtp_discard_ehlo_keywords), w;
    while (str_split(&rest, ", \t", &w))
        if (str_ieq_c(w, word))
            return true;
    return false;
}

static void add_mechs(struct dsess *s, struct str list) {
    struct sbuf b = {0};
    if (s->mechs != NULL)
        sbuf_printf(&b, "%s ", s->mechs);
    sbuf_add_str(&b, str_trim(list));
    free(s->mechs);
    s->mechs = sbuf_take(&b);
}

/* Does it end a keyword?  An offer counts whatever stands around it: where a control character
 * behind STARTTLS hid that, a password would go in clear. */
static bool ends_keyword(char c) {
    return (unsigned char)c <= ' ' || c == '=';
}

/* What the host offers with that word; 0: nothing that is used here. */
static unsigned keyword_cap(const struct dsess *s, struct str word) {
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
        if (str_ieq_c(word, keywords[i].word))
            return keyword_discarded(s, keywords[i].word) ? 0 : keywords[i].cap;
    return 0;
}

static void ehlo_keyword(struct dsess *s, struct str line) {
    struct str word;
    size_t n = 0;
    while (line.n > 0 && ends_keyword(line.p[0]))
        line = str_from(line, 1);
    while (n < line.n && !ends_keyword(line.p[n]))
        n++;
    struct str rest = str_trim(str_from(line, n + 1));
    unsigned cap = keyword_cap(s, str_make(line.p, n));
    s->caps |= cap;
    if (cap == CAP_SIZE && str_split(&rest, " \t", &word))
        str_u64(word, &s->size_limit);
    if (cap == CAP_AUTH)
        add_mechs(s, rest);
    if (cap == CAP_XFORWARD)
        s->origin_wanted |= origin_wanted(rest);
}

static void parse_caps(struct dsess *s) {
    struct str rest = sbuf_str(&s->reply.text), line;
    bool first = true;
    s->caps = 0;
    s->size_limit = 0;
    s->origin_wanted = 0;
    free(s->mechs);
    s->mechs = NULL;
    while (str_split(&rest, "\n", &line)) {
        if (!first && !s->helo)
            ehlo_keyword(s, line);
        first = false;
    }
}

/* A server that greets us by our own name on port 25 is ourselves. */
static bool has_own_name(struct dsess *s) {
    struct str rest = sbuf_str(&s->reply.text), word;
    const struct target *t = session_target(s);
    if (netaddr_port(&t->addr) != 25 || !str_split(&rest, " \n", &word) ||
        !str_ieq_c(word, s->cfg->p.myhostname))
        return false;
    log_warn("smtp", "host %s replied to HELO/EHLO with my own hostname %s", s->relay,
             s->cfg->p.myhostname);
    session_note(s, t->own_mx ? MAIL_BOUNCED : MAIL_DEFERRED, BLAME_SITE, CAUSE_LOOP,
                 t->own_mx ? "5.4.6" : "4.3.5", "mail for %s loops back to myself", t->dest);
    return true;
}

/* The extensions, as the remote lists them. */
static void show_ehlo(struct dsess *s) {
    struct sbuf b = {0};
    struct str rest = sbuf_str(&s->reply.text), line;
    if (s->watch == NULL)
        return;
    while (str_split(&rest, "\n", &line))
        sbuf_printf(&b, "%s%.*s", b.n > 0 ? ", " : "", STR_FMT(line));
    watch_ok(s, "ehlo", "%s", b.p == NULL ? "" : b.p);
    sbuf_free(&b);
}

static bool wants_starttls(const struct dsess *s) {
    return !s->tls_on && (s->caps & CAP_STARTTLS) != 0 && s->policy.level >= LEVEL_MAY &&
           !s->plain_retry;
}

enum step ehlo_reply(struct dsess *s) {
    bool refused = s->reply.code / 100 != 2;
    if (refused && !s->helo && !s->tls_on && !session_is_lmtp(s))
        return send_ehlo(s, true);
    if (refused)
        return host_refused(s, "refused to talk to me:");
    parse_caps(s);
    show_ehlo(s);
    if (has_own_name(s))
        return STEP_HOST_FAILED;
    if (!s->tls_on && (s->caps & CAP_STARTTLS) != 0 && s->policy.level == LEVEL_NONE &&
        s->p->smtp_tls_note_starttls_offer)
        log_as(s->svc->log_name, session_program(s), "Host offered STARTTLS: [%s]",
               session_target(s)->host);
    if (!s->tls_on && s->policy.level >= LEVEL_ENCRYPT && !wants_starttls(s))
        return host_failed(s, BLAME_SITE, CAUSE_TLS_MISSING, "4.7.4",
                           "TLS is required, but was not offered by host %s", s->where);
    return STEP_DONE;
}

enum step starttls_begin(struct dsess *s) {
    if (!wants_starttls(s))
        return STEP_DONE;
    sbuf_add_c(&s->line, "STARTTLS");
    session_say(s);
    session_deadline(s, s->p->smtp_starttls_timeout);
    return STEP_WAIT;
}

enum step starttls_reply(struct dsess *s) {
    s->tls_agreed = s->reply.code / 100 == 2;
    if (s->tls_agreed || secure_clear_is_left(s, false))
        return STEP_DONE;
    session_note_reply(s, MAIL_DEFERRED, BLAME_SITE, "4.7.4",
                       s->policy.level >= LEVEL_ENCRYPT
                           ? "TLS is required, but host %s refused to start TLS:"
                           : "the relay record's login does not go in clear, and host %s refused "
                             "to start TLS:",
                       s->where);
    return STEP_HOST_FAILED;
}
