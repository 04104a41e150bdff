/*
 * mail/edit.c - see edit.h
 */
#include "mail/edit.h"

#include <string.h>

#include "mail/addrlist.h"
#include "mail/header.h"

/* What waits is looked at again when it has grown by this part of itself. */
#define WAIT_PART 16

/* Fields of addresses, as Postfix's cleanup(8) rewrites them. */
static const char *const address_fields[] = {"from",
                                             "sender",
                                             "reply-to",
                                             "to",
                                             "cc",
                                             "bcc",
                                             "resent-from",
                                             "resent-sender",
                                             "resent-to",
                                             "resent-cc",
                                             "resent-bcc",
                                             "errors-to",
                                             "apparently-to",
                                             "return-path",
                                             "resent-reply-to",
                                             "mail-followup-to",
                                             "return-receipt-to",
                                             "disposition-notification-to"};

static bool is_address_field(struct str name) {
    for (size_t i = 0; i < sizeof address_fields / sizeof address_fields[0]; i++)
        if (str_ieq_c(name, address_fields[i]))
            return true;
    return false;
}

static bool is_dropped(const struct edit_rules *rules, struct str name) {
    char text[64];
    if (name.n >= sizeof text)
        return false;
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    return list_has_word(str_of(rules->drop), text);
}

/* -- addresses get their domain -- */

struct completion {
    const struct edit_rules *rules;
    struct str body;
    size_t done;     /* of body, is in out */
    size_t last_end; /* of body, behind the address before; 0: there is none */
    bool changed;    /* an address was */
    struct sbuf *out;
};

/* Leaves the bytes of the field from at to end out. */
static void field_cut(struct completion *c, size_t at, size_t end) {
    sbuf_add(c->out, c->body.p + c->done, at - c->done);
    c->done = end;
}

/* Two addresses with blanks alone between them get a comma. */
static void addresses_part(struct completion *c, const struct addrlist_item *item) {
    size_t n = c->last_end;
    while (n < item->route && (unsigned char)c->body.p[n] <= ' ')
        n++;
    if (c->last_end > 0 && n == item->route) {
        field_cut(c, c->last_end, c->last_end);
        sbuf_add_ch(c->out, ',');
    }
    c->last_end = item->end;
}

/* The route goes (RFC 5322 section 4.4), and so does a dot at the domain's end. */
static void address_complete(void *arg, const struct addrlist_item *item) {
    struct completion *c = arg;
    addresses_part(c, item);
    if (item->route < item->at) {
        field_cut(c, item->route, item->at);
        c->changed = true;
    }
    ptrdiff_t at = str_rchr(item->addr, '@');
    struct str domain = at < 0 ? STR_NONE : str_from(item->addr, (size_t)at + 1);
    const char *more = NULL;
    if (item->addr.n > 0 && !item->has_domain)
        more = c->rules->origin;
    else if (domain.n > 0 && domain.p[0] != '[' && str_chr(domain, '.') < 0)
        more = c->rules->domain;
    bool dot = domain.n > 1 && domain.p[domain.n - 1] == '.';
    c->changed = c->changed || dot || more != NULL;
    if (dot) {
        field_cut(c, item->end - 1, item->end);
    } else if (more != NULL) {
        field_cut(c, item->end, item->end);
        sbuf_printf(c->out, "%s%c%s", item->is_open ? "\"" : "", item->has_domain ? '.' : '@',
                    more);
    }
}

/* The whole field, which stays as it is where no address is changed.  Its line's end belongs to no
 * address, not even to one that is not closed. */
static void field_complete(const struct edit_rules *rules, struct str field, struct sbuf *out) {
    size_t colon = (size_t)str_chr(field, ':') + 1, end = field.n;
    while (end > colon && (field.p[end - 1] == '\n' || field.p[end - 1] == '\r'))
        end--;
    struct sbuf edited = {0};
    struct completion c = {
        .rules = rules, .body = str_make(field.p + colon, end - colon), .out = &edited};
    addrlist_each(c.body, address_complete, &c);
    if (c.changed) {
        sbuf_add(out, field.p, colon);
        sbuf_add_str(out, sbuf_str(&edited));
        field = str_from(field, colon + c.done);
    }
    sbuf_add_str(out, field);
    sbuf_free(&edited);
}

/* The length of the field at the start of rest with the lines that continue it; 0: its end has not
 * come, or it is too long to be looked at as a whole. */
static size_t whole_field(struct str rest, bool last) {
    size_t end = 0;
    do {
        const char *nl = memchr(rest.p + end, '\n', rest.n - end);
        if (nl == NULL)
            return last && rest.n < HEADER_LINE_MAX ? rest.n : 0;
        end = (size_t)(nl - rest.p) + 1;
        if (end == rest.n && !last)
            return 0;
    } while (end < rest.n && (rest.p[end] == ' ' || rest.p[end] == '\t'));
    return end < HEADER_LINE_MAX ? end : 0;
}

/* -- lines -- */

/* What becomes of a line that begins a field; the bytes that were used, 0: the rest is awaited. */
static size_t edit_field(struct header_edit *e, const struct edit_rules *rules, struct str name,
                         struct str rest, size_t line, bool last, struct sbuf *out) {
    e->dropping = is_dropped(rules, name);
    bool complete = !e->dropping && rules->origin != NULL && is_address_field(name);
    size_t field = complete ? whole_field(rest, last) : 0;
    if (complete && field == 0 && !last && rest.n < HEADER_LINE_MAX)
        return 0;
    e->begun = true;
    if (field > 0)
        field_complete(rules, str_make(rest.p, field), out);
    else if (!e->dropping)
        sbuf_add(out, rest.p, line);
    return field > 0 ? field : line;
}

/* The next line, or the part of it that is there; the bytes that were used, 0: none, because the
 * section is over or the rest is awaited. */
static size_t edit_line(struct header_edit *e, const struct edit_rules *rules, struct str rest,
                        bool last, struct sbuf *out) {
    const char *nl = memchr(rest.p, '\n', rest.n);
    size_t line = nl == NULL ? rest.n : (size_t)(nl - rest.p) + 1;
    bool continues = e->mid_line || (e->begun && (rest.p[0] == ' ' || rest.p[0] == '\t'));
    if (nl == NULL && !last && !e->mid_line && line < HEADER_LINE_MAX)
        return 0;
    struct str name = header_field_name(str_make(rest.p, line));
    bool mbox = !e->begun && !continues && header_is_mbox_line(str_make(rest.p, line));
    size_t used = line;
    if (!continues && name.n > 0 && !mbox) {
        used = edit_field(e, rules, name, rest, line, last, out);
    } else if (continues || mbox) {
        if (mbox && !e->mid_line)
            sbuf_add_c(out, "X-Mailbox-Line: ");
        e->dropping = e->dropping && !mbox;
        e->mbox = e->mbox || mbox;
        if (!e->dropping)
            sbuf_add(out, rest.p, line);
    } else {
        e->ended = true;
        if (e->mbox && !e->begun && (rest.p[0] == ' ' || rest.p[0] == '\t'))
            sbuf_add_c(out, "\r\n"); /* it is the body's, and continues no X-Mailbox-Line: */
        used = 0;
    }
    if (used == line)
        e->mid_line = nl == NULL;
    return used;
}

size_t header_edit(struct header_edit *e, const struct edit_rules *rules, struct sbuf *raw,
                   bool last, struct sbuf *out) {
    size_t at = 0, before = out->n;
    if (raw->n < e->due_n && !last)
        return 0;
    while (!e->ended && at < raw->n) {
        size_t used = edit_line(e, rules, str_from(sbuf_str(raw), at), last, out);
        if (used == 0)
            break;
        at += used;
    }
    size_t added = out->n - before;
    e->ended = e->ended || last;
    if (e->ended) {
        sbuf_add_str(out, str_from(sbuf_str(raw), at));
        sbuf_free(raw);
    } else {
        sbuf_drop(raw, at);
        e->due_n = raw->n + raw->n / WAIT_PART;
    }
    return added;
}
