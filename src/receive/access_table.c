/*
 * receive/access_table.c - check_*_access: the keys that a table is asked, and what its rows say
 *
 * The loop's thread.  What is allocated here is the run's (access_run.h).  A table that fails
 * refuses for now.
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

/* What the table is about, in Postfix's words for each kind of table. */
static void add_subject(const struct access_run *a, struct access_source *src) {
    access_test keys = a->word->test;
    sbuf_add_ch(&src->name, '<');
    if (keys == access_keys_client) {
        client_text(a->f.client, &src->name);
        src->kind = "Client host";
    } else if (keys == access_keys_helo) {
        sbuf_add_c(&src->name, a->f.helo);
        src->kind = "Helo command";
    } else if (keys == access_keys_ccert) {
        sbuf_add_c(&src->name, a->f.cert->name);
        src->kind = "Client certificate";
    } else if (keys == access_keys_login) {
        sbuf_add_c(&src->name, a->f.sasl_user);
        src->kind = "SASL login name";
    } else {
        addr_external(&src->name, src->sender ? a->f.sender : a->f.rcpt);
        src->kind = src->sender ? "Sender address" : "Recipient address";
    }
    sbuf_add_ch(&src->name, '>');
}

/* The value of an entry; key: which one it is.  A row permits, but not a recipient that is routed
 * through us, as with Postfix; that of a certificate names no restrictions: the row of its key
 * would have to wait for them. */
static enum access_step action_step(struct access_run *a, struct str key, struct str value) {
    bool recipient = a->word->test == access_keys_recipient;
    struct access_source src = {.row = key,
                                .sender = a->word->test == access_keys_sender,
                                .recipient = recipient,
                                .permits_nothing = recipient && access_is_routed(a),
                                .is_plain = a->word->test == access_keys_ccert};
    sbuf_printf(&src.whence, "access table %s: entry", a->table);
    add_subject(a, &src);
    enum access_step step = access_act(a, &src, value);
    sbuf_free(&src.whence);
    sbuf_free(&src.name);
    return step;
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
