/*
 * receive/forwarded.c - XFORWARD; see forwarded.h
 *
 * The values of one message are in a table that the session owns, until its transaction ends.  They
 * change what is logged and what the next filter is told, and nothing of what the client may do.
 */
#include "receive/forwarded.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "util/codec.h"
#include "util/mem.h"

#define VALUE_MAX 255U

enum {
    SAID_NAME,
    SAID_ADDR,
    SAID_PORT,
    SAID_PROTO,
    SAID_HELO,
    SAID_IDENT,
    SAID_SOURCE,
    SAID_VALUES
};

static const char *const said_names[SAID_VALUES] = {"NAME", "ADDR",  "PORT",  "PROTO",
                                                    "HELO", "IDENT", "SOURCE"};

struct forwarded {
    char *said[SAID_VALUES]; /* NULL: not said, or "[UNAVAILABLE]" */
    bool of_client;          /* one of them is the client's: it has none but those */
};

bool forwarded_is_allowed(const struct session *s) {
    return s->client.may_forward && !s->client.local;
}

void forwarded_end(struct session *s) {
    if (s->forwarded == NULL)
        return;
    for (size_t i = 0; i < SAID_VALUES; i++)
        free(s->forwarded->said[i]);
    free(s->forwarded);
    s->forwarded = NULL;
}

/* It stands in log lines: as Postfix, without what would end it there, or begin an address. */
static void value_neuter(struct sbuf *value) {
    for (size_t i = 0; i < value->n; i++)
        if ((unsigned char)value->p[i] <= ' ' || (unsigned char)value->p[i] >= 0x7f ||
            strchr("<>()\\\";@", value->p[i]) != NULL)
            value->p[i] = '?';
}

static bool value_is_address(struct str value) {
    struct netaddr a;
    bool six = str_istarts(value, "IPV6:");
    return netaddr_parse(&a, six ? str_from(value, 5) : value, 0) &&
           (a.u.sa.sa_family == AF_INET6) == six;
}

static bool value_is_port(struct str value) {
    size_t digits = 0;
    while (digits < value.n && value.p[digits] >= '0' && value.p[digits] <= '9')
        digits++;
    return digits > 0 && digits == value.n && digits <= 5;
}

static bool value_fits(unsigned i, struct str value) {
    switch (i) {
    case SAID_NAME:
        return addr_valid_host(value);
    case SAID_ADDR:
        return value_is_address(value);
    case SAID_PORT:
        return value_is_port(value);
    case SAID_SOURCE:
        return str_ieq_c(value, "LOCAL") || str_ieq_c(value, "REMOTE");
    default:
        return true;
    }
}

/* As Postfix reads xtext here: any character may be hidden, and what is no xtext is as it came. */
static void value_decode(struct str text, struct sbuf *value) {
    for (size_t i = 0; i < text.n; i++) {
        int high = i + 2 < text.n ? hex_digit(text.p[i + 1]) : -1;
        int low = high < 0 ? -1 : hex_digit(text.p[i + 2]);
        if (text.p[i] == '+' && low < 0) {
            sbuf_reset(value);
            sbuf_add_str(value, text);
            return;
        }
        sbuf_add_ch(value, text.p[i] == '+' ? (char)(high * 16 + low) : text.p[i]);
        i += text.p[i] == '+' ? 2 : 0;
    }
}

/* NULL, or what is wrong with the value. */
static const char *said_take(struct session *s, unsigned i, struct str text) {
    struct sbuf value = {0};
    const char *why = NULL;
    if (text.n > VALUE_MAX)
        return "Error: attribute value too long";
    value_decode(text, &value);
    value_neuter(&value);
    bool unknown = str_ieq_c(sbuf_str(&value), "[UNAVAILABLE]");
    if (!unknown && !value_fits(i, sbuf_str(&value))) {
        why = "Error: bad attribute value";
    } else {
        if (s->forwarded == NULL)
            s->forwarded = MEM_NEW(struct forwarded);
        free(s->forwarded->said[i]);
        s->forwarded->said[i] = unknown ? NULL : str_dup(sbuf_str(&value));
        s->forwarded->of_client = s->forwarded->of_client || i <= SAID_HELO;
    }
    sbuf_free(&value);
    return why;
}

static const char *forwarded_take(struct session *s, struct str key, struct str text) {
    if (text.n == 0)
        return "Error: attribute=value expected";
    for (unsigned i = 0; i < SAID_VALUES; i++)
        if (str_ieq_c(key, said_names[i]))
            return said_take(s, i, text);
    return "Error: there is no such attribute";
}

enum cmd forwarded_command(struct session *s, struct str args) {
    struct str key, value;
    const char *why = NULL;
    if (s->tx != NULL) {
        smtpd_reply(s, false, "503 5.5.1 Error: MAIL transaction in progress");
        return CMD_DONE;
    }
    if (args.n == 0) {
        smtpd_reply(s, false, "501 5.5.4 Syntax: XFORWARD attribute=value...");
        return CMD_DONE;
    }
    if (!forwarded_is_allowed(s)) {
        smtpd_reply(s, false, "550 5.7.0 Error: insufficient authorization");
        return CMD_DONE;
    }
    while (why == NULL && smtp_param_next(&args, &key, &value))
        why = forwarded_take(s, key, value);
    if (why == NULL)
        smtpd_reply(s, true, "250 2.0.0 Ok");
    else
        smtpd_reply(s, false, "501 5.5.4 %s", why);
    return CMD_DONE;
}

static struct str said_str(const struct session *s, unsigned i) {
    const char *text = s->forwarded == NULL ? NULL : s->forwarded->said[i];
    return text == NULL ? STR_NONE : str_of(text);
}

static bool has_client(const struct session *s) {
    return s->forwarded != NULL && s->forwarded->of_client;
}

static void origin_client_said(const struct session *s, struct origin *o) {
    o->name = said_str(s, SAID_NAME);
    o->addr = said_str(s, SAID_ADDR);
    o->port = said_str(s, SAID_PORT);
    o->proto = said_str(s, SAID_PROTO);
    o->helo = said_str(s, SAID_HELO);
}

static void origin_client(const struct session *s, struct origin *o, struct sbuf *scratch) {
    const struct client *c = &s->client;
    sbuf_printf(scratch, "%u", netaddr_port(&c->peer));
    size_t port_n = scratch->n;
    sbuf_printf(scratch, "%s%s", strchr(c->addr, ':') != NULL ? "IPV6:" : "", c->addr);
    o->port = str_make(scratch->p, port_n);
    o->addr = str_from(sbuf_str(scratch), port_n);
    o->name = c->name == NULL ? STR_NONE : str_of(c->name);
    o->proto = s->esmtp ? STR_LIT("ESMTP") : STR_LIT("SMTP");
    o->helo = s->helo == NULL ? STR_NONE : str_of(s->helo);
}

bool forwarded_source(const struct session *s, bool *local) {
    struct str source = said_str(s, SAID_SOURCE);
    if (source.n > 0)
        *local = str_ieq_c(source, "LOCAL");
    return source.n > 0;
}

struct origin forwarded_origin(const struct session *s, bool local, struct sbuf *scratch) {
    forwarded_source(s, &local);
    struct origin o = {.ident = said_str(s, SAID_IDENT),
                       .source = local ? STR_LIT("LOCAL") : STR_LIT("REMOTE")};
    if (has_client(s))
        origin_client_said(s, &o);
    else if (!s->client.local)
        origin_client(s, &o, scratch);
    return o;
}

void forwarded_add(const struct session *s, struct sbuf *b) {
    struct str ident = said_str(s, SAID_IDENT), name = said_str(s, SAID_NAME);
    struct str addr = said_str(s, SAID_ADDR);
    if (ident.n > 0)
        sbuf_printf(b, ", orig_queue_id=%.*s", STR_FMT(ident));
    if (!has_client(s))
        return;
    sbuf_printf(b, ", orig_client=%.*s", STR_FMT(name.n > 0 ? name : STR_LIT("unknown")));
    if (addr.n > 0)
        sbuf_printf(b, "[%.*s]", STR_FMT(addr));
}
