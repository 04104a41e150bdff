/*
 * receive/commands.c - the SMTP commands, in Postfix's words (RFC 5321, postfix smtpd(8))
 */
#include "receive/commands.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "receive/auth.h"
#include "receive/certificate.h"
#include "receive/forwarded.h"
#include "receive/message.h"
#include "receive/transaction.h"
#include "util/log.h"
#include "util/mem.h"

/* -- HELO and EHLO -- */

/* The name becomes part of a Received: field, of log lines and of replies: like Postfix, without
 * what would end it there, or begin a comment or an address. */
static void set_helo(struct session *s, struct str name) {
    free(s->helo);
    s->helo = str_dup(name);
    for (char *p = s->helo; *p != '\0'; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("<>()\\\";@", *p) != NULL ||
            ((unsigned char)*p > 0x7f && !s->p->smtputf8_enable))
            *p = '?';
}

static enum cmd cmd_helo(struct session *s, struct str name) {
    if (name.n == 0) {
        smtpd_reply(s, false, "501 Syntax: HELO hostname");
        return CMD_DONE;
    }
    transaction_reset(s);
    set_helo(s, name);
    s->esmtp = false;
    smtpd_reply(s, true, "250 %s", s->cfg->p.myhostname);
    return CMD_DONE;
}

/* Can this client begin TLS, and has it not? */
static bool lacks_tls(const struct session *s) {
    return !s->tls_on && !s->client.local;
}

static bool offers_tls(const struct session *s) {
    return s->tls != NULL && server_tls_level(s->p) != SERVER_TLS_NONE && lacks_tls(s) &&
           !smtpd_discards(s, "STARTTLS");
}

static bool must_tls(const struct session *s) {
    return server_tls_level(s->p) == SERVER_TLS_MUST && lacks_tls(s);
}

/* The lines of an EHLO reply. */
struct ehlo {
    struct sbuf text; /* each with a NUL */
    size_t n;         /* lines */
    struct str drop;  /* smtpd_discard_ehlo_keywords */
};

static void ehlo_add(struct ehlo *e, const char *keyword, const char *more) {
    if (list_has_word(e->drop, keyword))
        return;
    sbuf_printf(&e->text, "%s%s", keyword, more);
    sbuf_add_ch(&e->text, '\0');
    e->n++;
}

/* "AUTH PLAIN LOGIN" and, for old clients, "AUTH=PLAIN LOGIN". */
static void ehlo_add_auth(const struct session *s, struct ehlo *e) {
    struct sbuf mechs = {0}, spaced = {0}, equals = {0};
    auth_mechanisms(s, &mechs);
    if (mechs.n > 0) {
        sbuf_printf(&spaced, " %s", mechs.p);
        sbuf_printf(&equals, "=%s", mechs.p);
        ehlo_add(e, "AUTH", spaced.p);
        if (s->p->broken_sasl_auth_clients)
            ehlo_add(e, "AUTH", equals.p);
    }
    sbuf_free(&mechs);
    sbuf_free(&spaced);
    sbuf_free(&equals);
}

/* In Postfix's order. */
static void ehlo_offers(const struct session *s, struct ehlo *e) {
    char size[32] = ""; /* no number: no limit */
    if (s->p->message_size_limit > 0)
        snprintf(size, sizeof size, " %lld", (long long)s->p->message_size_limit);
    ehlo_add(e, "PIPELINING", "");
    ehlo_add(e, "SIZE", size);
    if (!s->p->disable_vrfy_command)
        ehlo_add(e, "VRFY", "");
    if (offers_tls(s))
        ehlo_add(e, "STARTTLS", "");
    ehlo_add_auth(s, e);
    if (forwarded_is_allowed(s))
        ehlo_add(e, "XFORWARD", FORWARDED_OFFER);
    ehlo_add(e, "ENHANCEDSTATUSCODES", "");
    ehlo_add(e, "8BITMIME", "");
    ehlo_add(e, "DSN", "");
    if (s->p->smtputf8_enable)
        ehlo_add(e, "SMTPUTF8", "");
    ehlo_add(e, "CHUNKING", "");
}

/* The mechanisms are known, or it is known that they are not. */
static void ehlo_answer(struct session *s) {
    struct ehlo e = {.drop = str_of(s->p->smtpd_discard_ehlo_keywords)};
    ehlo_offers(s, &e);
    s->total[VERB_EHLO]++;
    s->ok[VERB_EHLO]++;
    smtpd_say(s, "250%c%s", e.n > 0 ? '-' : ' ', s->cfg->p.myhostname);
    const char *line = e.text.p;
    for (size_t i = 1; i <= e.n; i++, line += strlen(line) + 1)
        smtpd_say(s, "250%c%s", i < e.n ? '-' : ' ', line);
    sbuf_free(&e.text);
}

static void ehlo_mechanisms_came(struct session *s) {
    ehlo_answer(s);
    smtpd_answered(s, CMD_DONE);
}

static enum cmd cmd_ehlo(struct session *s, struct str name) {
    if (name.n == 0) {
        smtpd_reply(s, false, "501 Syntax: EHLO hostname");
        return CMD_DONE;
    }
    transaction_reset(s);
    set_helo(s, name);
    s->esmtp = true;
    if (auth_await(s, ehlo_mechanisms_came))
        return CMD_WAIT;
    ehlo_answer(s);
    return CMD_DONE;
}

/* -- the others -- */

static enum cmd cmd_vrfy(struct session *s, struct str args) {
    struct sbuf out = {0};
    size_t len;
    struct addr_opts o = {.utf8 = s->p->smtputf8_enable};
    if (s->p->disable_vrfy_command)
        smtpd_reply(s, false, "502 5.5.1 VRFY command is disabled");
    else if (args.n == 0)
        smtpd_reply(s, false, "501 5.5.4 Syntax: VRFY address%s", o.utf8 ? " [SMTPUTF8]" : "");
    else if (addr_parse(args, &o, &out, &len) != ADDR_OK || len != args.n)
        smtpd_reply(s, false, "501 5.1.3 Bad recipient address syntax");
    else
        smtpd_reply(s, true, "252 2.0.0 %.*s", STR_FMT(args));
    sbuf_free(&out);
    return CMD_DONE;
}

static enum cmd cmd_starttls(struct session *s, struct str args) {
    if (args.n > 0)
        smtpd_reply(s, false, "501 5.5.4 Syntax: STARTTLS");
    else if (s->tls_on)
        smtpd_reply(s, false, "554 5.5.1 Error: TLS already active");
    else if (!offers_tls(s))
        smtpd_reply(s, false, "502 5.5.1 Error: command not implemented");
    else {
        smtpd_reply(s, true, "220 2.0.0 Ready to start TLS");
        transaction_reset(s);
        auth_logout(s); /* what was said in clear is forgotten */
        free(s->helo);
        s->helo = NULL;
        s->esmtp = false;
        return CMD_TLS;
    }
    return CMD_DONE;
}

static enum cmd cmd_rset(struct session *s, struct str args) {
    if (args.n > 0) {
        smtpd_reply(s, false, "501 5.5.4 Syntax: RSET");
        return CMD_DONE;
    }
    transaction_reset(s);
    smtpd_reply(s, true, "250 2.0.0 Ok");
    return CMD_DONE;
}

static enum cmd cmd_noop(struct session *s, struct str args) {
    (void)args;
    smtpd_reply(s, true, "250 2.0.0 Ok");
    return CMD_DONE;
}

static enum cmd cmd_quit(struct session *s, struct str args) {
    (void)args;
    smtpd_reply(s, true, "221 2.0.0 Bye");
    return CMD_CLOSE;
}

static enum cmd cmd_unknown(struct session *s, struct str args) {
    (void)args;
    smtpd_reply(s, false, "500 5.5.2 Error: command not recognized");
    return CMD_DONE;
}

/* -- a line -- */

static const struct {
    enum cmd (*run)(struct session *s, struct str args);
    bool junk;       /* leads nowhere: smtpd_junk_command_limit */
    bool before_tls; /* allowed where TLS must come first */
} commands[VERB_COUNT] = {
    [VERB_UNKNOWN] = {cmd_unknown, false, true},
    [VERB_HELO] = {cmd_helo, true, true},
    [VERB_EHLO] = {cmd_ehlo, true, true},
    [VERB_MAIL] = {transaction_mail, false, false},
    [VERB_RCPT] = {transaction_rcpt, false, false},
    [VERB_DATA] = {message_data, false, false},
    [VERB_BDAT] = {message_bdat, false, false},
    [VERB_RSET] = {cmd_rset, true, false},
    [VERB_NOOP] = {cmd_noop, true, true},
    [VERB_VRFY] = {cmd_vrfy, true, false},
    [VERB_ETRN] = {cmd_unknown, true, false},
    [VERB_AUTH] = {auth_command, false, false},
    [VERB_STARTTLS] = {cmd_starttls, false, true},
    [VERB_QUIT] = {cmd_quit, false, true},
    [VERB_XFORWARD] = {forwarded_command, false, false},
};

/* An SMTP command is text (RFC 5321 section 2.3.8): blanks and TABs divide it, no other control
 * character has a place in any command. */
static bool is_malformed(struct str line) {
    if (str_trim(line).n == 0)
        return true;
    for (size_t i = 0; i < line.n; i++)
        if (line.p[i] != '\t' && is_control(line.p[i]))
            return true;
    return false;
}

static enum cmd refuse_line(struct session *s, enum smtp_verb v, const char *what) {
    if (v != VERB_BDAT)
        s->verb = VERB_UNKNOWN;
    smtpd_reply(s, false, "%s 5.5.2 Error: bad %s", v == VERB_BDAT ? "521" : "500", what);
    return v == VERB_BDAT ? CMD_CLOSE : CMD_DONE; /* a chunk may follow: it would be commands */
}

/* A browser, a header field, or what begins with no letter: the client is no mail client (the
 * default of smtpd_forbidden_commands). */
static bool is_forbidden(struct str line) {
    static const char *const words[] = {"CONNECT", "GET", "POST"};
    struct str rest = line, word = STR_NONE;
    str_split(&rest, " \t", &word);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (str_ieq_c(word, words[i]))
            return true;
    if (word.n > 0 &&
        ((unsigned char)(word.p[0] | 0x20) < 'a' || (unsigned char)(word.p[0] | 0x20) > 'z'))
        return true;
    size_t n = 0;
    while (n < line.n && line.p[n] > ' ' && line.p[n] != ':')
        n++;
    return n > 0 && n < line.n && line.p[n] == ':';
}

static enum cmd cmd_forbidden(struct session *s, struct str line) {
    struct sbuf from = {0};
    log_warn("smtpd", "non-SMTP command from %s: %.*s", client_text(&s->client, &from),
             (int)(line.n > 100 ? 100 : line.n), line.p);
    sbuf_free(&from);
    smtpd_reply(s, false, "221 2.7.0 Error: I can break rules, too. Goodbye.");
    return CMD_CLOSE;
}

enum cmd command_line(struct session *s, struct str line) {
    struct str args;
    enum smtp_verb v = smtp_verb_parse(line, &args);
    s->verb = v;
    if (is_malformed(line))
        return refuse_line(s, v, "syntax");
    if (s->p->smtputf8_enable && !str_is_utf8(line)) /* RFC 6531 section 3.3 */
        return refuse_line(s, v, "UTF-8 syntax");
    if (v == VERB_UNKNOWN && is_forbidden(line))
        return cmd_forbidden(s, line);
    if (must_tls(s) && !commands[v].before_tls) {
        smtpd_reply(s, false, "530 5.7.0 Must issue a STARTTLS command first");
        return CMD_DONE;
    }
    if (commands[v].junk && s->junk++ > s->p->smtpd_junk_command_limit)
        s->errors++;
    return commands[v].run(s, args);
}
