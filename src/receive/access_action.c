/*
 * receive/access_action.c - the actions of access(5): what a row of a table, or the answer of a
 * policy service, does
 *
 * The loop's thread.  What is allocated here is the run's (access_run.h) or the transaction's
 * (struct access_acts).  An action that Posthouse does not have, and one that says what cannot be
 * carried out, refuse for now: mail is never taken without what was asked for.
 */
#include "receive/access_run.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "mail/addrlist.h"
#include "route/aliased.h"
#include "util/log.h"
#include "util/mem.h"

/* Rows that name restrictions whose rows name restrictions, and so on. */
#define INNER_MAX 100U

/* -- refusals -- */

/* Without the blanks before it; those behind it are as the service said them, as with Postfix. */
static struct str text_begun(struct str text) {
    while (text.n > 0 && (text.p[0] == ' ' || text.p[0] == '\t'))
        text = str_from(text, 1);
    return text;
}

/* An enhanced status code at the start of text, or the default. */
static struct str action_dsn(struct str *text, const char *def) {
    struct str dsn = str_make(text->p, dsn_length(*text));
    if (dsn.n == 0 || (dsn.p[0] != '2' && dsn.p[0] != '4' && dsn.p[0] != '5'))
        return str_of(def);
    *text = text_begun(str_from(*text, dsn.n));
    return dsn;
}

/* 5.1.x says what is wrong with a recipient, or with a sender (RFC 3463 section 3.2): it is made to
 * fit what is refused, as Postfix makes it. */
static void fit_dsn(char *dsn, bool sender, bool recipient) {
    static const char senders[] = "078770778", recipients[] = "012345632";
    const char *details = sender ? senders : recipients;
    if (strncmp(dsn + 1, ".1.", 3) != 0)
        return;
    char detail = dsn[5] == '\0' && dsn[4] < '9' ? details[dsn[4] - '0'] : '0';
    dsn[2] = sender || recipient ? '1' : '0';
    dsn[4] = sender || recipient ? detail : '0';
    dsn[5] = '\0';
}

/* "5.7.1 <a@x.example>: Sender address rejected: text". */
static void add_refusal(const struct access_source *src, int64_t code, struct str text,
                        const char *def, struct sbuf *out) {
    char *dsn = str_dup(action_dsn(&text, "5.7.1"));
    fit_dsn(dsn, src->sender, src->recipient);
    sbuf_printf(out, "%c%s %s: %s rejected: ", code < 500 ? '4' : '5', dsn + 1, src->name.p,
                src->kind);
    sbuf_add_safe(out, text.n > 0 ? text : str_of(def));
    free(dsn);
}

/* "REJECT text", "DEFER text", "550 5.7.1 text". */
static enum access_step action_refuses(struct access_run *a, const struct access_source *src,
                                       int64_t code, struct str text) {
    a->code = (unsigned)code;
    add_refusal(src, code, text, "Access denied", &a->text);
    return STEP_REJECT;
}

/* DEFER_IF_PERMIT, DEFER_IF_REJECT: the first of each counts, as with Postfix, where a warning
 * stands for the former alone. */
static enum access_step action_defers(struct access_run *a, const struct access_source *src,
                                      struct access_later *later, struct str text) {
    int64_t code = a->f.p->access_map_defer_code;
    if (a->warns && later == &a->if_permit) {
        a->code = (unsigned)code;
        add_refusal(src, code, text, "Service unavailable", &a->text);
        return STEP_REJECT;
    }
    if (later->code == 0) {
        later->code = (unsigned)code;
        add_refusal(src, code, text, "Service unavailable", &later->text);
    }
    return STEP_NEXT;
}

/* -- what is done with the message -- */

static enum access_step action_impossible(struct access_run *a, const struct access_source *src,
                                          const char *why) {
    struct sbuf row = {0};
    sbuf_add_safe(&row, src->row);
    log_warn("smtpd", "%s \"%s\" %s", src->whence.p, row.p, why);
    sbuf_free(&row);
    return access_misconfigured(a);
}

/* Logs "what: RCPT from …: <a@x.example>: Sender address text". */
static void action_noted(const struct access_run *a, const struct access_source *src,
                         const char *what, struct str text) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s: %s ", src->name.p, src->kind);
    sbuf_add_safe(&b, text);
    access_note(a, what, b.p);
    sbuf_free(&b);
}

static void action_noted_or(const struct access_run *a, const struct access_source *src,
                            const char *what, struct str text, const char *def) {
    action_noted(a, src, what, text.n > 0 ? text : str_of(def));
}

static enum access_step action_tells(struct access_run *a, const char *what, struct str text) {
    struct sbuf b = {0};
    sbuf_add_safe(&b, text);
    access_note(a, what, b.p == NULL ? "" : b.p);
    sbuf_free(&b);
    return STEP_NEXT;
}

static enum access_step action_holds(struct access_run *a, const struct access_source *src,
                                     struct str text) {
    if (!a->f.acts->hold)
        action_noted_or(a, src, "hold", text, "triggers HOLD action");
    a->f.acts->hold = true;
    return STEP_NEXT;
}

static enum access_step action_discards(struct access_run *a, const struct access_source *src,
                                        struct str text) {
    action_noted_or(a, src, "discard", text, "triggers DISCARD action");
    a->f.acts->discard = true;
    return STEP_PERMIT;
}

/* The address that an action names, in its internal form; false: it is none. */
static bool action_address(const struct access_run *a, struct str text, struct sbuf *out) {
    struct addrlist_item item = {.addr = str_trim(text), .has_domain = true};
    return str_chr(text, '@') >= 0 && aliased_address(&a->f.cfg->p, &item, STR_NONE, out);
}

static void noted_address(const struct access_run *a, const struct access_source *src,
                          const char *what, const char *word, struct str text) {
    struct sbuf b = {0};
    sbuf_printf(&b, "triggers %s %.*s", word, STR_FMT(text));
    action_noted(a, src, what, sbuf_str(&b));
    sbuf_free(&b);
}

/* The last one counts, as with Postfix. */
static enum access_step action_redirects(struct access_run *a, const struct access_source *src,
                                         struct str text) {
    struct sbuf addr = {0};
    if (!action_address(a, text, &addr)) {
        sbuf_free(&addr);
        return action_impossible(a, src, "redirects to what is no user@domain");
    }
    noted_address(a, src, "redirect", "REDIRECT", text);
    sbuf_free(&a->f.acts->redirect);
    a->f.acts->redirect = addr;
    return STEP_NEXT;
}

/* Is it transport:destination? */
static bool filter_is_good(struct str text) {
    return str_chr(text, ':') > 0 && !str_has_control(text);
}

/* Likewise the last one counts. */
static enum access_step action_filters(struct access_run *a, const struct access_source *src,
                                       struct str text) {
    if (!filter_is_good(text))
        return action_impossible(a, src, "has no transport:destination behind FILTER");
    noted_address(a, src, "filter", "FILTER", text);
    sbuf_reset(&a->f.acts->filter);
    sbuf_add_str(&a->f.acts->filter, text);
    return STEP_NEXT;
}

/* Each address once: several recipients meet the same row. */
static void acts_copy(struct access_acts *acts, struct str addr) {
    struct str rest = sbuf_str(&acts->copies), one;
    while (str_split(&rest, "\n", &one))
        if (str_eq(one, addr))
            return;
    sbuf_add_str(&acts->copies, addr);
    sbuf_add_ch(&acts->copies, '\n');
    acts->n_copies++;
}

static enum access_step action_copies(struct access_run *a, const struct access_source *src,
                                      struct str text) {
    struct sbuf addr = {0};
    bool good = action_address(a, text, &addr) && str_chr(sbuf_str(&addr), '\n') < 0;
    if (good) {
        noted_address(a, src, "bcc", "BCC", text);
        acts_copy(a->f.acts, sbuf_str(&addr));
    }
    sbuf_free(&addr);
    return good ? STEP_NEXT : action_impossible(a, src, "copies to what is no user@domain");
}

/* "Name: text", with blanks before the colon, perhaps. */
static bool action_is_field(struct str text) {
    size_t n = 0;
    while (n < text.n && isgraph((unsigned char)text.p[n]) && text.p[n] != ':')
        n++;
    size_t colon = n;
    while (colon < text.n && (text.p[colon] == ' ' || text.p[colon] == '\t'))
        colon++;
    return n > 0 && colon < text.n && text.p[colon] == ':';
}

/* What would end the line is no part of it; a tab is. */
static void action_add_line(struct sbuf *b, struct str text) {
    size_t at = b->n;
    sbuf_add_safe(b, text);
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] == '\t')
            b->p[at + i] = '\t';
    sbuf_add_c(b, "\r\n");
}

static enum access_step action_prepends(struct access_run *a, const struct access_source *src,
                                        struct str text) {
    if (a->reader.list == LIST_END) { /* as with Postfix: the content has its head by then */
        log_warn("smtpd", "%s \"%.*s\": PREPEND is too late in smtpd_end_of_data_restrictions",
                 src->whence.p, STR_FMT(src->row));
        return STEP_NEXT;
    }
    if (!action_is_field(text))
        return action_impossible(a, src, "has no header field behind PREPEND");
    action_add_line(&a->f.acts->prepend, text);
    return STEP_NEXT;
}

void access_acts_free(struct access_acts *acts) {
    sbuf_free(&acts->redirect);
    sbuf_free(&acts->filter);
    sbuf_free(&acts->copies);
    sbuf_free(&acts->prepend);
}

/* -- restrictions in the place of an action -- */

static enum access_step action_opens(struct access_run *a, const struct access_source *src,
                                     struct str value) {
    if (a->n_inner >= INNER_MAX)
        return action_impossible(a, src, "names restrictions that lead back to it");
    if (value.n > ACCESS_INNER_MAX)
        return action_impossible(a, src, "names too many restrictions");
    struct access_inner *in = MEM_NEW(struct access_inner);
    in->text = str_dup(value);
    in->reader = (struct access_reader){a->reader.list, str_of(in->text)};
    sbuf_add_str(&in->name, sbuf_str(&src->name));
    in->kind = src->kind;
    in->warns = a->warns;
    in->permits_nothing = src->permits_nothing;
    in->outer = a->inner;
    a->inner = in;
    a->n_inner++;
    return STEP_INNER;
}

/* -- what is asked for -- */

enum action {
    ACTION_NONE, /* restrictions, or nothing that there is */
    ACTION_NEXT,
    ACTION_PERMIT,
    ACTION_REJECT,
    ACTION_DEFER,
    ACTION_CODE,
    ACTION_IF_PERMIT,
    ACTION_IF_REJECT,
    ACTION_HOLD,
    ACTION_DISCARD,
    ACTION_REDIRECT,
    ACTION_COPY,
    ACTION_PREPEND,
    ACTION_INFO,
    ACTION_WARN,
    ACTION_FILTER
};

/* What a value of access(5) asks for; *word is its first word, *text what stands behind it, *code
 * that of ACTION_CODE. */
static enum action action_of(struct str value, struct str *word, struct str *text, uint64_t *code) {
    static const struct {
        const char *word;
        enum action action;
    } actions[] = {{"DUNNO", ACTION_NEXT},
                   {"OK", ACTION_PERMIT},
                   {"RELAY", ACTION_PERMIT},
                   {"permit", ACTION_PERMIT},
                   {"REJECT", ACTION_REJECT},
                   {"DEFER", ACTION_DEFER},
                   {"DEFER_IF_PERMIT", ACTION_IF_PERMIT},
                   {"DEFER_IF_REJECT", ACTION_IF_REJECT},
                   {"HOLD", ACTION_HOLD},
                   {"DISCARD", ACTION_DISCARD},
                   {"REDIRECT", ACTION_REDIRECT},
                   {"BCC", ACTION_COPY},
                   {"PREPEND", ACTION_PREPEND},
                   {"INFO", ACTION_INFO},
                   {"WARN", ACTION_WARN},
                   {"FILTER", ACTION_FILTER}};
    *text = value;
    *word = STR_NONE;
    /* Behind a blank no action is known, as with Postfix. */
    if (text_begun(value).n < value.n || !str_split(text, " \t", word))
        return ACTION_NONE;
    *text = text_begun(*text);
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (str_ieq_c(*word, actions[i].word))
            return actions[i].action;
    bool number = str_u64(*word, code);
    if (number && word->n == value.n)
        return ACTION_PERMIT;
    bool refuses = number && word->n == 3 && (word->p[0] == '4' || word->p[0] == '5');
    return refuses ? ACTION_CODE : ACTION_NONE;
}

bool access_action_is_one(struct str value) {
    struct str word, text;
    uint64_t code;
    enum action action = action_of(value, &word, &text, &code);
    return action != ACTION_NONE && (action != ACTION_FILTER || filter_is_good(text));
}

/* The actions that concern the message as a whole. */
static enum access_step act_on_message(struct access_run *a, const struct access_source *src,
                                       enum action action, struct str text) {
    if (a->f.acts == NULL)
        return action_impossible(a, src, "asks for something to be done with mail: there is none");
    switch (action) {
    case ACTION_HOLD:
        return action_holds(a, src, text);
    case ACTION_DISCARD:
        return action_discards(a, src, text);
    case ACTION_REDIRECT:
        return action_redirects(a, src, text);
    case ACTION_COPY:
        return action_copies(a, src, text);
    case ACTION_FILTER:
        return action_filters(a, src, text);
    default:
        return action_prepends(a, src, text);
    }
}

enum access_step access_act(struct access_run *a, const struct access_source *src,
                            struct str value) {
    struct str word, text;
    uint64_t code = 0;
    enum action action = action_of(value, &word, &text, &code);
    switch (action) {
    case ACTION_NEXT:
        return STEP_NEXT;
    case ACTION_PERMIT:
        return src->permits_nothing ? STEP_NEXT : STEP_PERMIT;
    case ACTION_REJECT:
        return action_refuses(a, src, a->f.p->access_map_reject_code, text);
    case ACTION_DEFER:
        return action_refuses(a, src, a->f.p->access_map_defer_code, text);
    case ACTION_CODE:
        return action_refuses(a, src, (int64_t)code, text);
    case ACTION_IF_PERMIT:
        return action_defers(a, src, &a->if_permit, text);
    case ACTION_IF_REJECT:
        return action_defers(a, src, &a->if_reject, text);
    case ACTION_INFO:
        return action_tells(a, "info", text);
    case ACTION_WARN:
        return action_tells(a, "warn", text);
    case ACTION_NONE:
        return src->is_plain || str_trim(value).n == 0
                   ? action_impossible(a, src, "has an action that Posthouse does not have")
                   : action_opens(a, src, value);
    default:
        return act_on_message(a, src, action, text);
    }
}
