/*
 * receive/access.c - may this client send that mail?  smtpd_*_restrictions (postconf(5))
 *
 * All lists are evaluated at RCPT (smtpd_delay_reject = yes): client, helo, sender, relay,
 * recipient; a list ends at its first permit or reject.  A restriction that needs a table waits for
 * the lookup process.  In the relay list, a word we do not know refuses with 451 4.3.5; in the
 * other lists a word that Postfix has and we do not is passed over, and `posthouse check` says so.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "receive/certificate.h"
#include "receive/session.h"
#include "route/keys.h"
#include "util/log.h"
#include "util/mem.h"

#define LISTS     5
#define LIST_SEPS ", \t\r\n"

struct access_run {
    struct session *s;
    bool at_data;
    const char *name; /* of the list */
    size_t list;      /* its place in rcpt_lists */
    struct str rest;  /* what is left of it */
    uint32_t tag;
    const char *check; /* check_sender_access, … */
    char *table;       /* of the check_*_access that is being asked */
    bool unknown_ok;   /* a sender whom nobody owns may be used by whoever is logged in */
    char *keys_text[KEYS_MAX];
    struct maps_key keys[KEYS_MAX];
    size_t n_keys;
};

enum word_kind { WORD_PERMIT, WORD_REJECT, WORD_TEST, WORD_CHECK, WORD_SKIP };

struct word {
    const char *name;
    enum word_kind kind;
    bool supported;
};

/* Every restriction of Postfix 3.7; those that are not supported are passed over with a remark. */
static const struct word words[] = {
    {"permit", WORD_PERMIT, true},
    {"reject", WORD_REJECT, true},
    {"defer", WORD_REJECT, true},
    {"permit_mynetworks", WORD_TEST, true},
    {"permit_sasl_authenticated", WORD_TEST, true},
    {"permit_inet_interfaces", WORD_TEST, true},
    {"permit_auth_destination", WORD_TEST, true},
    {"reject_unauth_destination", WORD_TEST, true},
    {"defer_unauth_destination", WORD_TEST, true},
    {"reject_non_fqdn_sender", WORD_TEST, true},
    {"reject_non_fqdn_recipient", WORD_TEST, true},
    {"reject_non_fqdn_helo_hostname", WORD_TEST, true},
    {"reject_non_fqdn_hostname", WORD_TEST, true},
    {"reject_invalid_helo_hostname", WORD_TEST, true},
    {"reject_invalid_hostname", WORD_TEST, true},
    {"reject_unknown_client_hostname", WORD_TEST, true},
    {"reject_unknown_reverse_client_hostname", WORD_TEST, true},
    {"reject_plaintext_session", WORD_TEST, true},
    {"reject_multi_recipient_bounce", WORD_TEST, true},
    {"reject_unauth_pipelining", WORD_SKIP, true},  /* the session sees to it */
    {"reject_unlisted_recipient", WORD_SKIP, true}, /* no mailboxes here: nothing to list */
    {"reject_unlisted_sender", WORD_SKIP, true},
    {"check_client_access", WORD_CHECK, true},
    {"check_helo_access", WORD_CHECK, true},
    {"check_sender_access", WORD_CHECK, true},
    {"check_recipient_access", WORD_CHECK, true},
    {"check_policy_service", WORD_CHECK, false},
    {"check_sender_mx_access", WORD_CHECK, false},
    {"check_sender_ns_access", WORD_CHECK, false},
    {"check_sender_a_access", WORD_CHECK, false},
    {"check_recipient_mx_access", WORD_CHECK, false},
    {"check_recipient_ns_access", WORD_CHECK, false},
    {"check_recipient_a_access", WORD_CHECK, false},
    {"check_helo_mx_access", WORD_CHECK, false},
    {"check_helo_ns_access", WORD_CHECK, false},
    {"check_helo_a_access", WORD_CHECK, false},
    {"check_client_mx_access", WORD_CHECK, false},
    {"check_client_ns_access", WORD_CHECK, false},
    {"check_client_a_access", WORD_CHECK, false},
    {"check_reverse_client_hostname_access", WORD_CHECK, false},
    {"check_ccert_access", WORD_CHECK, false},
    {"check_sasl_access", WORD_CHECK, true},
    {"check_etrn_access", WORD_CHECK, false},
    {"reject_rbl_client", WORD_CHECK, false},
    {"reject_rhsbl_client", WORD_CHECK, false},
    {"reject_rhsbl_sender", WORD_CHECK, false},
    {"reject_rhsbl_recipient", WORD_CHECK, false},
    {"reject_rhsbl_helo", WORD_CHECK, false},
    {"reject_rhsbl_reverse_client", WORD_CHECK, false},
    {"permit_dnswl_client", WORD_CHECK, false},
    {"permit_rhswl_client", WORD_CHECK, false},
    {"permit_mx_backup", WORD_SKIP, false},
    {"permit_tls_clientcerts", WORD_SKIP, false},
    {"permit_tls_all_clientcerts", WORD_SKIP, false},
    {"permit_naked_ip_address", WORD_SKIP, false},
    {"reject_unknown_sender_domain", WORD_SKIP, false},
    {"reject_unknown_recipient_domain", WORD_SKIP, false},
    {"reject_unknown_address", WORD_SKIP, false},
    {"reject_unknown_helo_hostname", WORD_SKIP, false},
    {"reject_unknown_hostname", WORD_SKIP, false},
    {"reject_unknown_forward_client_hostname", WORD_SKIP, false},
    {"reject_unverified_sender", WORD_SKIP, false},
    {"reject_unverified_recipient", WORD_SKIP, false},
    {"reject_sender_login_mismatch", WORD_TEST, true},
    {"reject_known_sender_login_mismatch", WORD_TEST, true},
    {"reject_authenticated_sender_login_mismatch", WORD_TEST, true},
    {"reject_unauthenticated_sender_login_mismatch", WORD_TEST, true},
    {"defer_if_permit", WORD_SKIP, false},
    {"defer_if_reject", WORD_SKIP, false},
    {"warn_if_reject", WORD_SKIP, false},
    {"sleep", WORD_CHECK, false},
};

static const struct word *word_find(struct str w) {
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (str_ieq_c(w, words[i].name))
            return &words[i];
    return NULL;
}

static void run(struct access_run *a);

static void run_free(struct access_run *a) {
    for (size_t i = 0; i < a->n_keys; i++)
        free(a->keys_text[i]);
    free(a->table);
    free(a);
}

static void begin_list(struct session *s, const char *name, const char *value, size_t list);
static const char *const rcpt_lists[LISTS];
static const char *list_value(const struct params *p, size_t i);

/* A list that permits or says nothing hands over to the next one; a reject ends it all. */
static void finish(struct access_run *a, enum verdict v, const char *text) {
    struct session *s = a->s;
    size_t next = a->list + 1;
    s->access = NULL;
    run_free(a);
    if (v != VERDICT_REJECT && next < LISTS)
        begin_list(s, rcpt_lists[next], list_value(s->p, next), next);
    else
        access_done(s, v, text);
}

void access_cancel(struct session *s) {
    if (s->access == NULL)
        return;
    lookup_cancel(s->r->lookup, s->access->tag);
    run_free(s->access);
    s->access = NULL;
}

static struct str rcpt_of(const struct session *s) {
    return str_make(s->texts.p + s->pending.addr_at, s->pending.addr_n);
}

static void reject_rcpt(struct access_run *a, const char *code, const char *why) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s <", code);
    addr_external(&b, rcpt_of(a->s));
    sbuf_printf(&b, ">: %s", why);
    finish(a, VERDICT_REJECT, b.p);
    sbuf_free(&b);
}

static void reject_sender(struct access_run *a, const char *code, const char *why) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s <", code);
    addr_external(&b, command_sender(a->s));
    sbuf_printf(&b, ">: Sender address rejected: %s", why);
    finish(a, VERDICT_REJECT, b.p);
    sbuf_free(&b);
}

static void reject_helo(struct access_run *a, const char *code, const char *why) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s <%s>: Helo command rejected: %s", code,
                a->s->helo == NULL ? "" : a->s->helo, why);
    finish(a, VERDICT_REJECT, b.p);
    sbuf_free(&b);
}

/* Relaying through us by way of a foreign local part ("user%elsewhere@ours") is no destination of
 * ours (allow_untrusted_routing = no). */
static bool auth_destination(const struct session *s) {
    struct str local = addr_local(rcpt_of(s));
    if (s->route_class == CLASS_DEFAULT)
        return false;
    return str_chr(local, '@') < 0 && str_chr(local, '%') < 0 && str_chr(local, '!') < 0;
}

static bool fqdn(struct str domain) {
    return domain.n > 0 && (domain.p[0] == '[' || str_chr(domain, '.') > 0);
}

static void on_network(void *arg, enum match_rc rc) {
    struct access_run *a = arg;
    a->tag = 0;
    if (rc == MATCH_ERROR)
        finish(a, VERDICT_REJECT, "451 4.3.0 Temporary lookup failure");
    else if (rc == MATCH_YES)
        finish(a, VERDICT_PERMIT, NULL);
    else
        run(a);
}

/* permit_mynetworks; a local client (sendmail) is always in. */
static void test_networks(struct access_run *a) {
    struct session *s = a->s;
    if (s->local) {
        on_network(a, MATCH_YES);
        return;
    }
    uint32_t tag = lookup_match(s->r->lookup, "smtpd", s->p->mynetworks, MATCH_NETWORK, false,
                                str_of(s->addr), on_network, a);
    if (tag != 0)
        a->tag = tag;
}

bool access_is_ours(struct session *s, const char *networks) {
    char *err;
    if (s->local)
        return true;
    if (matchlist_has_tables(networks))
        return false;
    struct matchlist *l = matchlist_open(networks, NULL, MATCH_NETWORK, false);
    bool yes = matchlist_has(l, str_of(s->addr), &err) == MATCH_YES;
    matchlist_close(l);
    return yes;
}

static bool own_interface(const struct session *s) {
    struct str own = str_of(cfg_source_fact(s->cfg->source, "system_addresses")), w;
    while (str_split(&own, " ", &w))
        if (str_eq_c(w, s->addr))
            return true;
    return s->local;
}

/* Tests about destinations; true if the word was one of them. */
static bool test_destination(struct access_run *a, const char *w) {
    bool mine = auth_destination(a->s);
    if (strcmp(w, "permit_auth_destination") == 0) {
        if (mine)
            finish(a, VERDICT_PERMIT, NULL);
        else
            run(a);
    } else if (strcmp(w, "reject_unauth_destination") == 0) {
        if (mine)
            run(a);
        else
            reject_rcpt(a, "554 5.7.1", "Relay access denied");
    } else if (strcmp(w, "defer_unauth_destination") == 0) {
        if (mine)
            run(a);
        else
            reject_rcpt(a, "454 4.7.1", "Relay access denied");
    } else {
        return false;
    }
    return true;
}

static bool test_helo(struct access_run *a, const char *w) {
    struct str helo = str_of(a->s->helo == NULL ? "" : a->s->helo);
    bool literal = helo.n > 0 && helo.p[0] == '[';
    bool valid = literal || addr_valid_host(helo);
    if (strncmp(w, "reject_invalid_h", 16) == 0) {
        if (!valid && helo.n > 0)
            reject_helo(a, "501 5.5.2", "Invalid name");
        else
            run(a);
    } else if (strcmp(w, "reject_non_fqdn_helo_hostname") == 0 ||
               strcmp(w, "reject_non_fqdn_hostname") == 0) {
        if (helo.n > 0 && !fqdn(helo))
            reject_helo(a, "504 5.5.2", "need fully-qualified hostname");
        else
            run(a);
    } else {
        return false;
    }
    return true;
}

static void test_client_name(struct access_run *a) {
    struct sbuf b = {0};
    if (strcmp(a->s->name, "unknown") != 0) {
        run(a);
        return;
    }
    sbuf_printf(&b, "450 4.7.25 Client host rejected: cannot find your hostname, [%s]", a->s->addr);
    finish(a, VERDICT_REJECT, b.p);
    sbuf_free(&b);
}

static bool owns(struct str owners, const char *user) {
    struct str one;
    while (str_split(&owners, LIST_SEPS, &one))
        if (str_ieq_c(one, user))
            return true;
    return false;
}

static void on_owners(void *arg, const struct maps_answer *ans) {
    struct access_run *a = arg;
    struct session *s = a->s;
    struct sbuf b = {0};
    bool found = ans->rc == MAP_FOUND;
    a->tag = 0;
    if (ans->rc == MAP_ERROR) {
        sbuf_add_c(&b, "451 4.3.0 <");
        addr_external(&b, command_sender(s));
        sbuf_add_c(&b, ">: Temporary lookup failure");
        finish(a, VERDICT_REJECT, b.p);
    } else if (s->sasl_user == NULL && found) {
        reject_sender(a, "553 5.7.1", "not logged in");
    } else if (s->sasl_user == NULL || (!found && a->unknown_ok) ||
               (found && owns(sbuf_str(&ans->value), s->sasl_user))) {
        run(a);
    } else {
        sbuf_printf(&b, "not owned by user %s", s->sasl_user);
        reject_sender(a, "553 5.7.1", b.p);
    }
    sbuf_free(&b);
}

/* reject_…sender_login_mismatch: may this login use this sender (smtpd_sender_login_maps)?  True if
 * the word was one of them. */
static bool test_login(struct access_run *a, const char *w) {
    struct session *s = a->s;
    struct keys keys = {.n = 0};
    bool in = s->sasl_user != NULL;
    if (strstr(w, "sender_login_mismatch") == NULL)
        return false;
    bool other =
        (in && strncmp(w, "reject_unauth", 13) == 0) || (!in && strncmp(w, "reject_auth", 11) == 0);
    keys_sender(&keys, &s->cfg->p, command_sender(s));
    if (other || keys.n == 0 || s->p->smtpd_sender_login_maps[0] == '\0') {
        run(a);
    } else {
        a->unknown_ok = strncmp(w, "reject_known", 12) == 0;
        a->tag = lookup_maps(s->r->lookup, "smtpd", s->p->smtpd_sender_login_maps, keys.v, keys.n,
                             on_owners, a);
    }
    keys_clear(&keys);
    return true;
}

static void test(struct access_run *a, const char *w) {
    struct session *s = a->s;
    struct str sender = command_sender(s);
    if (strcmp(w, "permit_mynetworks") == 0)
        test_networks(a);
    else if (strcmp(w, "permit_inet_interfaces") == 0)
        on_network(a, own_interface(s) ? MATCH_YES : MATCH_NO);
    else if (strcmp(w, "permit_sasl_authenticated") == 0)
        on_network(a, s->sasl_user != NULL ? MATCH_YES : MATCH_NO);
    else if (test_destination(a, w) || test_helo(a, w) || test_login(a, w))
        return;
    else if (strcmp(w, "reject_non_fqdn_sender") == 0 && sender.n > 0 && !fqdn(addr_domain(sender)))
        reject_sender(a, "504 5.5.2", "need fully-qualified address");
    else if (strcmp(w, "reject_non_fqdn_recipient") == 0 && !fqdn(addr_domain(rcpt_of(s))))
        reject_rcpt(a, "504 5.5.2", "Recipient address rejected: need fully-qualified address");
    else if (strncmp(w, "reject_unknown_", 15) == 0)
        test_client_name(a);
    else if (strcmp(w, "reject_plaintext_session") == 0 && !s->tls_on)
        finish(a, VERDICT_REJECT, "450 4.7.1 Session encryption is required");
    else if (strcmp(w, "reject_multi_recipient_bounce") == 0 && sender.n == 0 && s->n_rcpts > 0)
        finish(a, VERDICT_REJECT, "550 5.5.3 Multi-recipient bounce");
    else
        run(a);
}

static void key_add(struct access_run *a, bool partial, struct str k, struct str tail) {
    struct sbuf b = {0};
    if (a->n_keys == KEYS_MAX || k.n + tail.n == 0)
        return;
    sbuf_printf(&b, "%.*s%.*s", STR_FMT(k), STR_FMT(tail));
    a->keys_text[a->n_keys] = sbuf_take(&b);
    a->keys[a->n_keys] = (struct maps_key){str_of(a->keys_text[a->n_keys]), partial};
    a->n_keys++;
}

static void keys_domain(struct access_run *a, struct str domain) {
    bool bare = session_word(a->s->p->parent_domain_matches_subdomains, "smtpd_access_maps");
    key_add(a, true, domain, STR_NONE);
    for (ptrdiff_t dot; (dot = str_chr(domain, '.')) >= 0;) {
        domain = str_from(domain, (size_t)dot + 1);
        key_add(a, true, bare ? STR_LIT("") : STR_LIT("."), domain);
    }
}

/* access(5), EMAIL ADDRESS PATTERNS. */
static void keys_address(struct access_run *a, struct str addr) {
    struct str local = addr_local(addr);
    if (addr.n == 0) {
        key_add(a, false, STR_LIT("<>"), STR_NONE);
        return;
    }
    key_add(a, false, addr, STR_NONE);
    keys_domain(a, addr_domain(addr));
    key_add(a, true, local, STR_LIT("@"));
}

/* access(5), HOST NAME/ADDRESS PATTERNS. */
static void keys_client(struct access_run *a) {
    struct str ip = str_of(a->s->addr);
    char sep = str_chr(ip, ':') >= 0 ? ':' : '.';
    if (strcmp(a->s->name, "unknown") != 0) {
        key_add(a, false, str_of(a->s->name), STR_NONE);
        keys_domain(a, str_of(a->s->name));
    }
    key_add(a, false, ip, STR_NONE);
    for (ptrdiff_t dot; (dot = str_rchr(ip, sep)) > 0;) {
        ip.n = (size_t)dot;
        key_add(a, true, ip, STR_NONE);
    }
}

/* "<a@x.example>: Sender address rejected: text", in Postfix's words for each kind of table. */
static void add_subject(struct access_run *a, struct sbuf *b) {
    if (strcmp(a->check, "check_sender_access") == 0) {
        sbuf_add_ch(b, '<');
        addr_external(b, command_sender(a->s));
        sbuf_add_c(b, ">: Sender address rejected: ");
    } else if (strcmp(a->check, "check_client_access") == 0) {
        sbuf_printf(b, "<%s[%s]>: Client host rejected: ", a->s->name, a->s->addr);
    } else if (strcmp(a->check, "check_helo_access") == 0) {
        sbuf_printf(b, "<%s>: Helo command rejected: ", a->s->helo);
    } else if (strcmp(a->check, "check_sasl_access") == 0) {
        sbuf_printf(b, "<%s>: SASL login name rejected: ", a->s->sasl_user);
    } else {
        sbuf_add_ch(b, '<');
        addr_external(b, rcpt_of(a->s));
        sbuf_add_c(b, ">: Recipient address rejected: ");
    }
}

/* An enhanced status code at the start of text, or the default. */
static struct str take_dsn(struct str *text, const char *def) {
    struct str rest = *text, w;
    uint64_t v;
    if (str_split(&rest, " ", &w) && w.n >= 5 && w.p[1] == '.' && str_u64(str_make(w.p, 1), &v)) {
        *text = str_trim(rest);
        return w;
    }
    return str_of(def);
}

/* A line of an access table: "REJECT text", "550 5.7.1 text", "OK", …; false if not understood. */
static bool apply_action(struct access_run *a, struct str v) {
    struct str word, text;
    struct sbuf b = {0};
    uint64_t code;
    text = v;
    if (!str_split(&text, " \t", &word))
        return false;
    text = str_trim(text);
    bool number = str_u64(word, &code);
    if (str_ieq_c(word, "DUNNO")) {
        run(a);
        return true;
    }
    if (str_ieq_c(word, "OK") || str_ieq_c(word, "permit") || (number && word.n != 3)) {
        finish(a, VERDICT_PERMIT, NULL);
        return true;
    }
    bool reject = str_ieq_c(word, "REJECT"), defer = str_ieq_c(word, "DEFER");
    if (!reject && !defer && !(number && (code / 100 == 4 || code / 100 == 5)))
        return false;
    bool soft = defer || (number && code / 100 == 4);
    struct str dsn = take_dsn(&text, soft ? "4.7.1" : "5.7.1");
    sbuf_add_str(&b, number ? word : reject ? STR_LIT("554") : STR_LIT("450"));
    sbuf_printf(&b, " %.*s ", STR_FMT(dsn));
    add_subject(a, &b);
    sbuf_add_str(&b, text.n > 0 ? text : STR_LIT("Access denied"));
    finish(a, VERDICT_REJECT, b.p);
    sbuf_free(&b);
    return true;
}

static void on_table(void *arg, const struct maps_answer *ans) {
    struct access_run *a = arg;
    a->tag = 0;
    char *key = ans->rc == MAP_FOUND ? str_dup(a->keys[ans->key].key) : NULL;
    for (size_t i = 0; i < a->n_keys; i++)
        free(a->keys_text[i]);
    a->n_keys = 0;
    if (ans->rc == MAP_ERROR) {
        finish(a, VERDICT_REJECT, "451 4.3.0 Temporary lookup failure");
    } else if (ans->rc == MAP_NOT_FOUND) {
        run(a);
    } else if (!apply_action(a, str_trim(sbuf_str(&ans->value)))) {
        log_warn("smtpd",
                 "access table %s: entry \"%s\" has an action that Posthouse does not have",
                 a->table, key);
        finish(a, VERDICT_REJECT, "451 4.3.5 Server configuration error");
    }
    free(key);
}

static void check_table(struct access_run *a, const char *w, struct str table) {
    free(a->table);
    a->table = str_dup(table);
    a->check = w;
    if (strcmp(w, "check_client_access") == 0)
        keys_client(a);
    else if (strcmp(w, "check_sender_access") == 0)
        keys_address(a, command_sender(a->s));
    else if (strcmp(w, "check_recipient_access") == 0)
        keys_address(a, rcpt_of(a->s));
    else if (strcmp(w, "check_sasl_access") == 0)
        key_add(a, false, str_of(a->s->sasl_user == NULL ? "" : a->s->sasl_user), STR_NONE);
    else if (a->s->helo != NULL) {
        key_add(a, false, str_of(a->s->helo), STR_NONE);
        keys_domain(a, str_of(a->s->helo));
    }
    if (a->n_keys == 0) {
        run(a);
        return;
    }
    a->tag = lookup_maps(a->s->r->lookup, "smtpd", a->table, a->keys, a->n_keys, on_table, a);
}

static void deny(struct access_run *a, const char *w) {
    if (a->at_data)
        finish(a, VERDICT_REJECT, "554 5.7.1 <DATA>: Data command rejected: Access denied");
    else if (strcmp(w, "defer") == 0)
        reject_rcpt(a, "450 4.3.2", "Recipient address rejected: Try again later");
    else
        reject_rcpt(a, "554 5.7.1", "Recipient address rejected: Access denied");
}

static void run(struct access_run *a) {
    struct str w, table;
    if (!str_split_braces(&a->rest, LIST_SEPS, &w)) {
        finish(a, VERDICT_DUNNO, NULL);
        return;
    }
    const struct word *k = word_find(w);
    bool relay = strcmp(a->name, "smtpd_relay_restrictions") == 0;
    bool with_table =
        k != NULL && k->kind == WORD_CHECK && str_split_braces(&a->rest, LIST_SEPS, &table);
    if (k == NULL && map_looks_like(w) && !relay) {
        check_table(a, "check_recipient_access", w); /* a bare table, as Postfix allows */
    } else if (k == NULL || (relay && !k->supported)) {
        log_warn("smtpd", "unknown smtpd restriction: \"%.*s\"", STR_FMT(w));
        finish(a, VERDICT_REJECT, "451 4.3.5 Server configuration error");
    } else if (!k->supported || k->kind == WORD_SKIP) {
        run(a);
    } else if (k->kind == WORD_PERMIT) {
        finish(a, VERDICT_PERMIT, NULL);
    } else if (k->kind == WORD_REJECT) {
        deny(a, k->name);
    } else if (with_table) {
        check_table(a, k->name, table);
    } else {
        test(a, k->name);
    }
}

static const char *const rcpt_lists[LISTS] = {
    "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions",
    "smtpd_relay_restrictions", "smtpd_recipient_restrictions"};

static const char *list_value(const struct params *p, size_t i) {
    const char *values[LISTS] = {p->smtpd_client_restrictions, p->smtpd_helo_restrictions,
                                 p->smtpd_sender_restrictions, p->smtpd_relay_restrictions,
                                 p->smtpd_recipient_restrictions};
    return values[i];
}

static void begin_list(struct session *s, const char *name, const char *value, size_t list) {
    struct access_run *a = MEM_NEW(struct access_run);
    a->s = s;
    a->at_data = list == LISTS;
    a->name = name;
    a->list = list;
    a->rest = str_of(value);
    s->access = a;
    run(a);
}

void access_begin(struct session *s, bool at_data) {
    if (at_data)
        begin_list(s, "smtpd_data_restrictions", s->p->smtpd_data_restrictions, LISTS);
    else
        begin_list(s, rcpt_lists[0], list_value(s->p, 0), 0);
}

/* Does the list end mail for strangers? */
static bool list_closes(const char *list) {
    static const char *closers[] = {"reject_unauth_destination", "defer_unauth_destination",
                                    "reject", "defer"};
    for (size_t i = 0; i < sizeof closers / sizeof closers[0]; i++)
        if (session_word(list, closers[i]))
            return true;
    return false;
}

static void check_list(const struct service *svc, const char *name, const char *value,
                       struct diags *d) {
    struct str rest = str_of(value), w;
    bool relay = strcmp(name, "smtpd_relay_restrictions") == 0;
    while (str_split_braces(&rest, LIST_SEPS, &w)) {
        const struct word *k = word_find(w);
        if (k != NULL && k->kind == WORD_CHECK) {
            struct str skip;
            str_split_braces(&rest, LIST_SEPS, &skip);
        }
        if (k == NULL && !map_looks_like(w))
            diag_add(d, DIAG_ERROR, "master.cf", svc->line, "%s: %s: unknown restriction \"%.*s\"",
                     svc->name, name, STR_FMT(w));
        else if (k != NULL && !k->supported)
            diag_add(d, relay ? DIAG_ERROR : DIAG_WARN, svc->line > 0 ? "master.cf" : NULL,
                     svc->line, "%s: %s: Posthouse does not have the restriction %s: %s", svc->name,
                     name, k->name,
                     relay ? "mail would be refused with 451 4.3.5" : "it is passed over");
    }
}

void receive_check(const struct config *cfg, struct diags *d) {
    certificate_check(cfg, d);
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        if (svc->kind != SERVICE_SMTPD)
            continue;
        for (size_t l = 0; l < LISTS; l++)
            check_list(svc, rcpt_lists[l], list_value(&svc->p, l), d);
        for (size_t l = 0; l < LISTS; l++)
            if (strstr(list_value(&svc->p, l), "sender_login_mismatch") != NULL &&
                svc->p.smtpd_sender_login_maps[0] == '\0')
                diag_add(
                    d, DIAG_WARN, svc->line > 0 ? "master.cf" : NULL, svc->line,
                    "%s: %s compares senders with logins, but smtpd_sender_login_maps is empty",
                    svc->name, rcpt_lists[l]);
        if (!list_closes(svc->p.smtpd_relay_restrictions) &&
            !list_closes(svc->p.smtpd_recipient_restrictions) &&
            !list_closes(svc->p.smtpd_client_restrictions))
            diag_add(d, DIAG_ERROR, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: open relay: in parameter smtpd_relay_restrictions or "
                     "smtpd_recipient_restrictions, specify at least one working instance of: "
                     "reject_unauth_destination, defer_unauth_destination, reject or defer",
                     svc->name);
    }
}
