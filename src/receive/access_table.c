/*
 * receive/access_table.c - check_*_access: the keys that a table is asked, and what its rows say
 *
 * The loop's thread.  What is allocated here is the run's (access_run.h).  A table that fails, and
 * a row with an action that Posthouse does not have, refuse for now: neither permits.
 */
#include "receive/access_run.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "util/log.h"

#define DOMAIN_MAX 255U /* bytes */

/* -- the keys of each (access(5)) -- */

void access_add_keys(struct keys *keys, const struct access_run *a, struct str address,
                     void (*add)(struct keys *, const struct params *, struct str)) {
    char *lower = str_dup(address);
    str_lower(lower, address.n);
    add(keys, a->f.p, str_make(lower, address.n));
    free(lower);
}

/* Without the first labels of a name that is longer than a domain can be (RFC 1035 section 2.3.4),
 * which only a HELO is: its parents are asked for all the same. */
static struct str domain_end(struct str domain) {
    while (domain.n > DOMAIN_MAX) {
        ptrdiff_t dot = str_chr(domain, '.');
        domain = dot < 0 ? STR_NONE : str_from(domain, (size_t)dot + 1);
    }
    return domain;
}

/* A whole name is a key for tables of patterns, too. */
static void keys_host(struct access_run *a, struct str name) {
    keys_add(&a->keys, false, "", name, STR_NONE);
    keys_domain(&a->keys, a->f.p, domain_end(name));
}

/* HOST NAME/ADDRESS PATTERNS. */
enum access_step access_keys_client(struct access_run *a) {
    struct str ip = str_of(a->f.client->addr);
    char sep = str_chr(ip, ':') >= 0 ? ':' : '.';
    keys_host(a, str_of(client_name(a->f.client)));
    keys_add(&a->keys, false, "", ip, STR_NONE);
    for (ptrdiff_t dot; (dot = str_rchr(ip, sep)) > 0;) {
        ip.n = (size_t)dot;
        keys_add(&a->keys, true, "", ip, STR_NONE);
    }
    return STEP_NEXT;
}

enum access_step access_keys_helo(struct access_run *a) {
    if (a->f.helo != NULL && a->f.helo[0] != '\0')
        keys_host(a, str_of(a->f.helo));
    return STEP_NEXT;
}

enum access_step access_keys_sender(struct access_run *a) {
    access_add_keys(&a->keys, a, a->f.sender, keys_access);
    return STEP_NEXT;
}

enum access_step access_keys_recipient(struct access_run *a) {
    if (a->f.rcpt.n > 0)
        access_add_keys(&a->keys, a, a->f.rcpt, keys_access);
    return STEP_NEXT;
}

enum access_step access_keys_login(struct access_run *a) {
    if (a->f.sasl_user != NULL && a->f.sasl_user[0] != '\0')
        keys_add(&a->keys, false, "", str_of(a->f.sasl_user), STR_NONE);
    return STEP_NEXT;
}

enum access_step access_keys_ccert(struct access_run *a) {
    if (a->f.cert == NULL)
        return STEP_NEXT;
    if (a->f.cert->print == NULL)
        return access_no_fingerprint(a);
    clientcert_keys(a->f.cert, &a->keys);
    return STEP_NEXT;
}

/* -- what a table says -- */

bool access_is_routed(const struct access_run *a) {
    struct str local = addr_local(a->f.rcpt);
    return str_chr(local, '@') >= 0 || str_chr(local, '%') >= 0 || str_chr(local, '!') >= 0;
}

/* "<a@x.example>: Sender address rejected: ", in Postfix's words for each kind of table. */
static void add_subject(struct access_run *a, struct sbuf *b) {
    access_test keys = a->word->test;
    if (keys == access_keys_client) {
        sbuf_add_ch(b, '<');
        client_text(a->f.client, b);
        sbuf_add_c(b, ">: Client host rejected: ");
    } else if (keys == access_keys_helo) {
        sbuf_printf(b, "<%s>: Helo command rejected: ", a->f.helo);
    } else if (keys == access_keys_ccert) {
        sbuf_printf(b, "<%s>: Client certificate rejected: ", a->f.cert->name);
    } else if (keys == access_keys_login) {
        sbuf_printf(b, "<%s>: SASL login name rejected: ", a->f.sasl_user);
    } else {
        sbuf_add_ch(b, '<');
        addr_external(b, keys == access_keys_sender ? a->f.sender : a->f.rcpt);
        sbuf_printf(
            b, ">: %s address rejected: ", keys == access_keys_sender ? "Sender" : "Recipient");
    }
}

struct str access_take_dsn(struct str *text, const char *def) {
    struct str dsn = str_make(text->p, dsn_length(*text));
    if (dsn.n == 0 || (dsn.p[0] != '2' && dsn.p[0] != '4' && dsn.p[0] != '5'))
        return str_of(def);
    *text = str_trim(str_from(*text, dsn.n));
    return dsn;
}

void access_fit_dsn(char *dsn, bool sender, bool recipient) {
    static const char senders[] = "078770778", recipients[] = "012345632";
    const char *details = sender ? senders : recipients;
    if (strncmp(dsn + 1, ".1.", 3) != 0)
        return;
    char detail = dsn[5] == '\0' && dsn[4] < '9' ? details[dsn[4] - '0'] : '0';
    dsn[2] = sender || recipient ? '1' : '0';
    dsn[4] = sender || recipient ? detail : '0';
    dsn[5] = '\0';
}

/* "REJECT text", "DEFER text", "550 5.7.1 text". */
static enum access_step action_refuses(struct access_run *a, int64_t code, struct str text) {
    char *dsn = str_dup(access_take_dsn(&text, "5.7.1"));
    access_fit_dsn(dsn, a->word->test == access_keys_sender,
                   a->word->test == access_keys_recipient);
    access_code(a, code, dsn);
    free(dsn);
    sbuf_add_ch(&a->text, ' ');
    add_subject(a, &a->text);
    sbuf_add_safe(&a->text, text.n > 0 ? text : STR_LIT("Access denied"));
    return STEP_REJECT;
}

enum action {
    ACTION_UNKNOWN,
    ACTION_NEXT,
    ACTION_PERMIT,
    ACTION_REJECT,
    ACTION_DEFER,
    ACTION_CODE
};

/* What a value of access(5) asks for; *word is its first word, *text what stands behind it, *code
 * that of ACTION_CODE. */
static enum action action_of(struct str value, struct str *word, struct str *text, uint64_t *code) {
    *text = value;
    *word = STR_NONE;
    if (!str_split(text, " \t", word))
        return ACTION_UNKNOWN;
    *text = str_trim(*text);
    bool number = str_u64(*word, code);
    if (str_ieq_c(*word, "DUNNO"))
        return ACTION_NEXT;
    if (str_ieq_c(*word, "OK") || str_ieq_c(*word, "permit") || (number && text->n == 0))
        return ACTION_PERMIT;
    if (str_ieq_c(*word, "REJECT"))
        return ACTION_REJECT;
    if (str_ieq_c(*word, "DEFER"))
        return ACTION_DEFER;
    bool refuses = number && word->n == 3 && (word->p[0] == '4' || word->p[0] == '5');
    return refuses ? ACTION_CODE : ACTION_UNKNOWN;
}

struct str access_action_unknown(struct str value) {
    struct str word, text;
    uint64_t code;
    return action_of(value, &word, &text, &code) == ACTION_UNKNOWN ? word : STR_NONE;
}

/* A row permits: but not a recipient that is routed through us, as with Postfix. */
static enum access_step action_permits(const struct access_run *a) {
    return a->word->test == access_keys_recipient && access_is_routed(a) ? STEP_NEXT : STEP_PERMIT;
}

/* The value of an entry; key: which one it is. */
static enum access_step action_step(struct access_run *a, struct str key, struct str value) {
    struct str word, text;
    uint64_t code = 0;
    switch (action_of(value, &word, &text, &code)) {
    case ACTION_NEXT:
        return STEP_NEXT;
    case ACTION_PERMIT:
        return action_permits(a);
    case ACTION_REJECT:
        return action_refuses(a, a->f.p->access_map_reject_code, text);
    case ACTION_DEFER:
        return action_refuses(a, a->f.p->access_map_defer_code, text);
    case ACTION_CODE:
        return action_refuses(a, (int64_t)code, text);
    case ACTION_UNKNOWN:
        break;
    }
    log_warn("smtpd", "access table %s: entry \"%.*s\" has an action that Posthouse does not have",
             a->table, STR_FMT(key));
    return access_misconfigured(a);
}

static enum access_step table_step(struct access_run *a, const struct maps_answer *ans) {
    if (ans->rc == MAP_NOT_FOUND)
        return STEP_NEXT;
    if (ans->rc == MAP_FOUND && ans->key < a->keys.n)
        return action_step(a, a->keys.v[ans->key].key, str_trim(sbuf_str(&ans->value)));
    if (ans->rc == MAP_FOUND) /* an answer is from another process: it may be anything */
        log_warn("smtpd", "access table %s: the answer is of a key that was not asked for",
                 a->table);
    return access_reject_text(a, 451, "4.3.0 Temporary lookup failure");
}

static void on_table(void *arg, const struct maps_answer *ans);

/* A row of a certificate that says nothing leaves it to that of its key. */
static bool ask_certificates_key(struct access_run *a, const struct maps_answer *ans) {
    if (a->word->test != access_keys_ccert || ans->rc != MAP_FOUND || ans->key > 0 || a->keys.n < 2)
        return false;
    keys_clear(&a->keys);
    keys_add(&a->keys, false, "", str_of(a->f.cert->key_print), STR_NONE);
    a->tag = lookup_maps(a->f.lookup, "smtpd", a->table, VALUES_JOINED, a->keys.v, a->keys.n,
                         on_table, a);
    return true;
}

static void on_table(void *arg, const struct maps_answer *ans) {
    struct access_run *a = arg;
    a->tag = 0;
    enum access_step step = table_step(a, ans);
    if (step == STEP_NEXT && ask_certificates_key(a, ans))
        return;
    keys_clear(&a->keys);
    a->resume(a, step);
}

enum access_step access_ask_table(struct access_run *a, struct str table) {
    enum access_step step = a->word->test(a);
    if (step != STEP_NEXT || a->keys.n == 0)
        return step;
    free(a->table);
    a->table = str_dup(table);
    a->tag = lookup_maps(a->f.lookup, "smtpd", a->table, VALUES_JOINED, a->keys.v, a->keys.n,
                         on_table, a);
    return STEP_WAIT;
}
