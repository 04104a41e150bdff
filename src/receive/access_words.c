/*
 * receive/access_words.c - the restrictions: what each tests
 *
 * The loop's thread.  Each restriction is a row of words[] with the function that tests it.  What a
 * test allocates is the run's.  A test that has to wait asks the lookup process, keeps the tag in
 * the run, and gives its step to a->resume when the answer is there.
 */
#include "receive/access_run.h"

#include "mail/address.h"
#include "route/local.h"

static enum access_step reject_helo(struct access_run *a, int64_t code, const char *dsn,
                                    const char *why) {
    access_code(a, code, dsn);
    sbuf_printf(&a->text, " <%s>: Helo command rejected: %s", a->f.helo, why);
    return STEP_REJECT;
}

static enum access_step test_reject(struct access_run *a) {
    return access_list_refuses(a, a->f.p->reject_code, "5.7.1", "Access denied");
}

static enum access_step test_defer(struct access_run *a) {
    return access_list_refuses(a, a->f.p->defer_code, "4.3.2", "Try again later");
}

/* -- what is known of the client -- */

static enum access_step permit_if(bool yes) {
    return yes ? STEP_PERMIT : STEP_NEXT;
}

static enum access_step network_step(struct access_run *a, enum match_rc rc) {
    return rc == MATCH_ERROR ? access_unknown(a) : permit_if(rc == MATCH_YES);
}

static void on_network(void *arg, enum match_rc rc) {
    struct access_run *a = arg;
    a->tag = 0;
    a->resume(a, network_step(a, rc));
}

/* A local client (sendmail) is always in. */
static enum access_step test_mynetworks(struct access_run *a) {
    enum match_rc now;
    a->tag = client_match_now(a->f.client, a->f.lookup, a->f.p, "mynetworks", a->f.p->mynetworks,
                              &now, on_network, a);
    return a->tag != 0 ? STEP_WAIT : network_step(a, now);
}

static enum access_step test_inet_interfaces(struct access_run *a) {
    return permit_if(a->f.client->local || cfg_is_own_address(a->f.cfg, a->f.client->addr));
}

static enum access_step test_sasl_authenticated(struct access_run *a) {
    return permit_if(a->f.sasl_user != NULL);
}

static enum access_step certs_step(struct access_run *a, const struct maps_answer *ans) {
    return ans->rc == MAP_ERROR ? access_unknown(a) : permit_if(ans->rc == MAP_FOUND);
}

static void on_certs(void *arg, const struct maps_answer *ans) {
    struct access_run *a = arg;
    a->tag = 0;
    a->resume(a, certs_step(a, ans));
}

/* A fingerprint says which certificate it is: nothing else has to vouch for it. */
static enum access_step test_clientcerts(struct access_run *a) {
    if (a->f.cert == NULL)
        return STEP_NEXT;
    if (a->f.cert->print == NULL)
        return access_no_fingerprint(a);
    if (a->f.p->relay_clientcerts[0] == '\0')
        return STEP_NEXT;
    a->tag = clientcert_ask(a->f.cert, a->f.lookup, a->f.p, on_certs, a);
    return STEP_WAIT;
}

static enum access_step test_all_clientcerts(struct access_run *a) {
    return a->f.cert != NULL && a->f.cert->trusted ? STEP_PERMIT : test_clientcerts(a);
}

/* Name servers that fail are no reason to refuse for good, whatever code is configured. */
static enum access_step name_step(struct access_run *a, enum client_naming naming, const char *dsn,
                                  const char *what) {
    if (naming == CLIENT_NAME_FOUND || a->f.client->local)
        return STEP_NEXT;
    access_code(a, naming == CLIENT_NAME_FAILED ? 450 : a->f.p->unknown_client_reject_code, dsn);
    sbuf_printf(&a->text, " Client host rejected: cannot find your %shostname, [%s]", what,
                a->f.client->addr);
    return STEP_REJECT;
}

static enum access_step test_client_name(struct access_run *a) {
    return name_step(a, a->f.client->verified, "4.7.25", "");
}

static enum access_step test_reverse_name(struct access_run *a) {
    return name_step(a, a->f.client->reverse, "4.7.1", "reverse ");
}

static enum access_step test_plaintext(struct access_run *a) {
    if (a->f.encrypted)
        return STEP_NEXT;
    access_code(a, a->f.p->plaintext_reject_code, "4.7.1");
    sbuf_add_c(&a->text, " Session encryption is required");
    return STEP_REJECT;
}

/* -- where the mail goes -- */

/* A foreign local part is no destination of ours (allow_untrusted_routing = no). */
static bool auth_destination(const struct access_run *a) {
    return a->f.address_class != CLASS_DEFAULT && !access_is_routed(a);
}

/* At DATA there is none to decide about where several were accepted. */
static bool no_destination(const struct access_run *a) {
    return a->f.rcpt.n == 0;
}

static enum access_step test_auth_destination(struct access_run *a) {
    return permit_if(!no_destination(a) && auth_destination(a));
}

static enum access_step test_reject_unauth(struct access_run *a) {
    return no_destination(a) || auth_destination(a)
               ? STEP_NEXT
               : access_reject(a, a->f.p->relay_domains_reject_code, "5.7.1", a->f.rcpt,
                               "Relay access denied");
}

static enum access_step test_defer_unauth(struct access_run *a) {
    return no_destination(a) || auth_destination(a)
               ? STEP_NEXT
               : access_reject(a, a->f.p->relay_domains_reject_code - 100, "4.7.1", a->f.rcpt,
                               "Relay access denied");
}

/* -- what it calls itself and its mail -- */

static bool is_fqdn(struct str domain) {
    return domain.n > 0 && (domain.p[0] == '[' || str_chr(domain, '.') > 0);
}

/* What the client calls itself, without a dot at its end; empty: it has not said. */
static struct str helo_name(const struct access_run *a) {
    struct str helo = str_of(a->f.helo == NULL ? "" : a->f.helo);
    if (helo.n > 1 && helo.p[helo.n - 1] == '.')
        helo.n--;
    return helo;
}

static enum access_step test_helo_literal(struct access_run *a, struct str helo) {
    return addr_is_literal(helo) ? STEP_NEXT
                                 : reject_helo(a, a->f.p->invalid_hostname_reject_code, "5.5.2",
                                               "invalid ip address");
}

static enum access_step test_invalid_helo(struct access_run *a) {
    struct str helo = helo_name(a);
    struct netaddr addr;
    if (helo.n > 0 && helo.p[0] == '[')
        return test_helo_literal(a, helo);
    if (helo.n == 0 || addr_is_dns_name(helo) || netaddr_parse(&addr, helo, 0))
        return STEP_NEXT;
    return reject_helo(a, a->f.p->invalid_hostname_reject_code, "5.5.2", "Invalid name");
}

static enum access_step test_fqdn_helo(struct access_run *a) {
    struct str helo = helo_name(a);
    if (helo.n > 0 && helo.p[0] == '[')
        return test_helo_literal(a, helo);
    if (helo.n == 0 || (addr_is_dns_name(helo) && is_fqdn(helo)))
        return STEP_NEXT;
    return reject_helo(a, a->f.p->non_fqdn_reject_code, "5.5.2", "need fully-qualified hostname");
}

static enum access_step test_fqdn_sender(struct access_run *a) {
    if (a->f.sender_said.n == 0 || is_fqdn(addr_domain(a->f.sender_said)))
        return STEP_NEXT;
    return access_reject(a, a->f.p->non_fqdn_reject_code, "5.5.2", a->f.sender_said,
                         "Sender address rejected: need fully-qualified address");
}

static enum access_step test_fqdn_recipient(struct access_run *a) {
    if (a->f.rcpt_said.n == 0 || is_fqdn(addr_domain(a->f.rcpt_said)))
        return STEP_NEXT;
    return access_reject(a, a->f.p->non_fqdn_reject_code, "5.5.2", a->f.rcpt_said,
                         "Recipient address rejected: need fully-qualified address");
}

static enum access_step test_multi_bounce(struct access_run *a) {
    size_t more = a->reader.list == LIST_DATA ? 1 : 0;
    if (a->f.sender.n > 0 || a->f.n_rcpts <= more)
        return STEP_NEXT;
    return access_list_refuses(a, a->f.p->multi_recipient_bounce_reject_code, "5.5.3",
                               "Multi-recipient bounce");
}

/* -- is there such a recipient? -- */

/* The tables that name the recipients of a class, and what is said where they do not. */
struct listing {
    const char *tables; /* "": none says which exist */
    int64_t code;
    const char *what; /* "relay recipient" */
};

static struct listing listing_of(const struct params *p, enum route_class address_class) {
    switch (address_class) {
    case CLASS_LOCAL:
        return (struct listing){p->local_recipient_maps, p->unknown_local_recipient_reject_code,
                                "local recipient"};
    case CLASS_VIRTUAL:
        return (struct listing){p->virtual_mailbox_maps, p->unknown_virtual_mailbox_reject_code,
                                "virtual mailbox"};
    case CLASS_RELAY:
        return (struct listing){p->relay_recipient_maps, p->unknown_relay_recipient_reject_code,
                                "relay recipient"};
    default: /* recipients of virtual_alias_domains have none of their own: see route.c */
        return (struct listing){"", 0, ""};
    }
}

/* A mail system has these, whether a table names them or not (RFC 5321 section 4.5.1). */
static bool is_of_the_system(const struct access_run *a) {
    struct str local = addr_local(a->f.rcpt);
    return a->f.address_class == CLASS_LOCAL &&
           (str_ieq_c(local, "postmaster") || str_ieq_c(local, "mailer-daemon"));
}

static enum access_step listed_fails(struct access_run *a) {
    access_reject(a, 451, "4.3.0", a->f.rcpt, "Temporary lookup failure");
    return STEP_FAIL;
}

static enum access_step listed_step(struct access_run *a, const struct maps_answer *ans) {
    struct listing listing = listing_of(a->f.p, a->f.address_class);
    struct sbuf why = {0};
    if (ans->rc == MAP_FOUND)
        return STEP_NEXT;
    if (ans->rc == MAP_ERROR)
        return listed_fails(a);
    sbuf_add_c(&why, "Recipient address rejected: User unknown");
    if (a->f.p->show_user_unknown_table_name)
        sbuf_printf(&why, " in %s table", listing.what);
    access_reject(a, listing.code, "5.1.1", a->f.rcpt, why.p);
    sbuf_free(&why);
    return STEP_REJECT;
}

static void on_listed(void *arg, const struct maps_answer *ans) {
    struct access_run *a = arg;
    a->tag = 0;
    a->resume(a, listed_step(a, ans));
}

/* A transport "error:" or "retry:" says that there is none; the sender still has the mail, and
 * learns it now. */
static enum access_step reject_unlisted(struct access_run *a) {
    const struct access_facts *f = &a->f;
    const struct mailerr *why = &f->unlisted->why;
    int64_t code = why->status != MAIL_BOUNCED       ? 450
                   : f->address_class == CLASS_ALIAS ? f->p->unknown_virtual_alias_reject_code
                                                     : 550;
    const char *dsn = f->unlisted->coded ? why->dsn : "5.1.1";
    sbuf_printf(&a->text, "%c%s <", code < 500 ? '4' : '5', dsn + 1);
    addr_external(&a->text, f->rcpt);
    sbuf_printf(&a->text, ">: Recipient address rejected: %s", why->text);
    a->code = access_checked_code(code, &a->text);
    return STEP_REJECT;
}

enum access_step access_listed(struct access_run *a) {
    struct listing listing = listing_of(a->f.p, a->f.address_class);
    struct keys keys = {.n = 0};
    a->listed = a->listed || !a->warns; /* a warning lets the end of all ask once more */
    if (keys_has_word(a->f.p->receive_override_options, "no_unknown_recipient_checks"))
        return STEP_NEXT;
    if (a->f.aliased == MATCH_ERROR)
        return listed_fails(a);
    if (a->f.aliased == MATCH_YES)
        return STEP_NEXT;
    if (a->f.unlisted != NULL)
        return reject_unlisted(a);
    if (no_destination(a) || listing.tables[0] == '\0' || is_of_the_system(a))
        return STEP_NEXT;
    access_add_keys(&keys, a, a->f.rcpt,
                    a->f.address_class == CLASS_LOCAL ? keys_local_sender : keys_sender);
    a->tag = lookup_maps(a->f.lookup, "smtpd", listing.tables, VALUES_JOINED, keys.v, keys.n,
                         on_listed, a);
    keys_clear(&keys);
    return STEP_WAIT;
}

/* -- may this login use this sender?  reject_*sender_login_mismatch -- */

static enum access_step owner_step(struct access_run *a, const struct maps_answer *ans) {
    struct sbuf why = {0};
    const char *user = a->f.sasl_user;
    bool found = ans->rc == MAP_FOUND;
    if (ans->rc == MAP_ERROR) {
        access_reject(a, 451, "4.3.0", a->f.sender, "Temporary lookup failure");
        return STEP_FAIL;
    }
    if (user == NULL && found)
        return access_reject(a, 553, "5.7.1", a->f.sender,
                             "Sender address rejected: not logged in");
    if (user == NULL || (!found && a->unowned_is_free) ||
        (found && list_has_word(sbuf_str(&ans->value), user)))
        return STEP_NEXT;
    sbuf_printf(&why, "Sender address rejected: not owned by user %s", user);
    access_reject(a, 553, "5.7.1", a->f.sender, why.p);
    sbuf_free(&why);
    return STEP_REJECT;
}

static void on_owners(void *arg, const struct maps_answer *ans) {
    struct access_run *a = arg;
    a->tag = 0;
    a->resume(a, owner_step(a, ans));
}

/* A local part alone owns its addresses at domains that are local. */
static enum access_step ask_owners_at(struct access_run *a, enum match_rc local) {
    struct keys keys = {.n = 0};
    if (local == MATCH_ERROR)
        return owner_step(a, &(struct maps_answer){.rc = MAP_ERROR});
    access_add_keys(&keys, a, a->f.sender, local == MATCH_YES ? keys_local_sender : keys_sender);
    a->tag = lookup_maps(a->f.lookup, "smtpd", a->f.p->smtpd_sender_login_maps, VALUES_JOINED,
                         keys.v, keys.n, on_owners, a);
    keys_clear(&keys);
    return STEP_WAIT;
}

static void on_owners_domain(void *arg, enum match_rc rc) {
    struct access_run *a = arg;
    a->tag = 0;
    enum access_step step = ask_owners_at(a, rc);
    if (step != STEP_WAIT)
        a->resume(a, step);
}

/* Without tables no sender has an owner.  A service without logins asks for none, as with Postfix.
 */
static enum access_step ask_owners(struct access_run *a) {
    static const struct maps_answer no_owner = {.rc = MAP_NOT_FOUND};
    enum match_rc now;
    if (a->f.sender.n == 0 || !a->f.p->smtpd_sasl_auth_enable)
        return STEP_NEXT;
    if (a->f.p->smtpd_sender_login_maps[0] == '\0')
        return owner_step(a, &no_owner);
    a->tag = local_sender_now(a->f.lookup, "smtpd", a->f.cfg, a->f.p, a->f.sender, &now,
                              on_owners_domain, a);
    return a->tag != 0 ? STEP_WAIT : ask_owners_at(a, now);
}

static enum access_step test_login(struct access_run *a) {
    a->unowned_is_free = false;
    return ask_owners(a);
}

static enum access_step test_known_login(struct access_run *a) {
    a->unowned_is_free = true;
    return ask_owners(a);
}

static enum access_step test_login_inside(struct access_run *a) {
    return a->f.sasl_user != NULL ? test_login(a) : STEP_NEXT;
}

static enum access_step test_login_outside(struct access_run *a) {
    return a->f.sasl_user == NULL ? test_login(a) : STEP_NEXT;
}

/* The restrictions of Postfix 3.7 but for those of config/unread.def. */
static const struct access_word words[] = {
    {"permit", WORD_PERMIT, NULL},
    {"reject", WORD_REJECT, test_reject},
    {"defer", WORD_REJECT, test_defer},
    {"permit_mynetworks", WORD_TEST, test_mynetworks},
    {"permit_sasl_authenticated", WORD_TEST, test_sasl_authenticated},
    {"permit_tls_clientcerts", WORD_TEST, test_clientcerts},
    {"permit_tls_all_clientcerts", WORD_TEST, test_all_clientcerts},
    {"check_ccert_access", WORD_CHECK, access_keys_ccert},
    {"permit_inet_interfaces", WORD_TEST, test_inet_interfaces},
    {"permit_auth_destination", WORD_TEST, test_auth_destination},
    {"reject_unauth_destination", WORD_TEST, test_reject_unauth},
    {"defer_unauth_destination", WORD_TEST, test_defer_unauth},
    {"reject_non_fqdn_sender", WORD_TEST, test_fqdn_sender},
    {"reject_non_fqdn_recipient", WORD_TEST, test_fqdn_recipient},
    {"reject_non_fqdn_helo_hostname", WORD_TEST, test_fqdn_helo},
    {"reject_non_fqdn_hostname", WORD_TEST, test_fqdn_helo},
    {"reject_invalid_helo_hostname", WORD_TEST, test_invalid_helo},
    {"reject_invalid_hostname", WORD_TEST, test_invalid_helo},
    {"reject_unknown_client_hostname", WORD_TEST, test_client_name},
    {"reject_unknown_client", WORD_TEST, test_client_name},
    {"reject_unknown_reverse_client_hostname", WORD_TEST, test_reverse_name},
    {"reject_plaintext_session", WORD_TEST, test_plaintext},
    {"reject_multi_recipient_bounce", WORD_TEST, test_multi_bounce},
    {"warn_if_reject", WORD_WARN, NULL},
    {"reject_unauth_pipelining", WORD_SKIP, NULL}, /* the session sees to it */
    {"reject_unlisted_recipient", WORD_TEST, access_listed},
    {"check_policy_service", WORD_POLICY, NULL},
    {"check_client_access", WORD_CHECK, access_keys_client},
    {"check_helo_access", WORD_CHECK, access_keys_helo},
    {"check_sender_access", WORD_CHECK, access_keys_sender},
    {"check_recipient_access", WORD_CHECK, access_keys_recipient},
    {"check_sasl_access", WORD_CHECK, access_keys_login},
    {"reject_sender_login_mismatch", WORD_TEST, test_login},
    {"reject_known_sender_login_mismatch", WORD_TEST, test_known_login},
    {"reject_authenticated_sender_login_mismatch", WORD_TEST, test_login_inside},
    {"reject_unauthenticated_sender_login_mismatch", WORD_TEST, test_login_outside},
};

const struct access_word *access_word_find(struct str w) {
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (str_ieq_c(w, words[i].name))
            return &words[i];
    return NULL;
}

bool access_has_word(struct str name) {
    return access_word_find(name) != NULL;
}

bool access_word_closes(const struct access_word *word) {
    return word->test == test_reject || word->test == test_defer ||
           word->test == test_reject_unauth || word->test == test_defer_unauth;
}

bool access_word_compares_logins(const struct access_word *word) {
    return word->test == test_login || word->test == test_known_login ||
           word->test == test_login_inside || word->test == test_login_outside;
}
