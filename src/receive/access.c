/*
 * receive/access.c - the restriction lists; see access.h
 *
 * All lists are evaluated at RCPT (smtpd_delay_reject = yes): client, helo, sender, relay,
 * recipient; a list ends at its first permit, everything ends at the first reject.  Each
 * restriction is a row of words[] with the function that tests it.  A test that needs a table waits
 * for the lookup process; access_go is the loop over words and lists, and it is left and entered
 * again there.  A word that Postfix has and Posthouse has not (config/unread.def) is passed over:
 * a service that has one takes no mail at all unless the administrator accepts that.  Any other
 * word refuses with 451 4.3.5.
 */
#include "receive/access.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/unread.h"
#include "mail/address.h"
#include "receive/receive.h"
#include "route/keys.h"
#include "util/log.h"
#include "util/mem.h"

#define DOMAIN_MAX 255U /* bytes */

/* The lists in the order in which they are evaluated: those before LIST_DATA at RCPT. */
enum list { LIST_CLIENT, LIST_HELO, LIST_SENDER, LIST_RELAY, LIST_RECIPIENT, LIST_DATA, LISTS };

/* A list that is read, at a start where it is checked and for a client where it is evaluated. */
struct list_reader {
    enum list list;
    struct str rest; /* its words that are left */
};

struct access_word;

/* A restriction as it stands in a list, with its table. */
struct list_item {
    struct str text;                /* its word */
    const struct access_word *word; /* NULL: Posthouse has none such */
    bool is_unread;                 /* it is one of config/unread.def */
    bool has_no_table;              /* although the word needs one */
    struct str table;
    bool warns; /* warn_if_reject stands before it */
};

/* A run is either in access_go, or waits for tag, or waits for the loop to give its answer. */
struct access_run {
    struct access_facts f;
    access_fn fn;
    void *arg;
    struct later answer;
    enum verdict verdict;           /* VERDICT_UNSET until the run is over */
    unsigned code;                  /* of VERDICT_REJECT: of the reply */
    struct sbuf text;               /* likewise: what follows the code */
    bool unowned_is_free;           /* a sender without an owner may be used by every login */
    struct list_reader reader;      /* the list that is evaluated */
    const struct access_word *word; /* the one that is tested */
    bool warns;                     /* warn_if_reject stands before it */
    uint32_t tag;                   /* the question to the lookup process; 0: none */
    char *table;                    /* of the check_*_access that is being asked */
    struct keys keys;               /* that it is asked for */
};

/* What a test says. */
enum access_step {
    STEP_NEXT = 1, /* nothing: the next word decides */
    STEP_PERMIT,   /* the list is over */
    STEP_REJECT,   /* all is over; the reply is in text */
    STEP_FAIL,     /* likewise, also behind warn_if_reject: what the word asks is not known */
    STEP_WAIT      /* the lookup process has been asked */
};

enum word_kind { WORD_PERMIT, WORD_REJECT, WORD_TEST, WORD_CHECK, WORD_WARN, WORD_SKIP };

typedef enum access_step (*access_test)(struct access_run *a);

struct access_word {
    const char *name;
    enum word_kind kind;
    access_test test; /* of WORD_REJECT and WORD_TEST; of WORD_CHECK: adds the keys to ask for, or
                       * rejects */
};

/* -- rejecting -- */

/* The code and the beginning of a reply; as in Postfix, the class of the enhanced status code
 * follows a code that was configured. */
static void access_code(struct access_run *a, int64_t code, const char *dsn) {
    a->code = (unsigned)code;
    sbuf_printf(&a->text, "%c%s", code < 500 ? '4' : '5', dsn + 1);
}

unsigned access_checked_code(int64_t code, struct sbuf *text) {
    if (code >= 400 && code < 600)
        return (unsigned)code;
    log_warn("smtpd", "response code configuration error: %lld %s", (long long)code, text->p);
    sbuf_reset(text);
    sbuf_add_c(text, "4.7.1 Service unavailable");
    return 450;
}

/* "code dsn <subject>: text". */
static enum access_step access_reject(struct access_run *a, int64_t code, const char *dsn,
                                      struct str address, const char *text) {
    access_code(a, code, dsn);
    sbuf_add_c(&a->text, " <");
    addr_external(&a->text, address);
    sbuf_printf(&a->text, ">: %s", text);
    return STEP_REJECT;
}

static enum access_step access_reject_text(struct access_run *a, unsigned code, const char *text) {
    a->code = code;
    sbuf_add_c(&a->text, text);
    return STEP_REJECT;
}

static enum access_step reject_helo(struct access_run *a, int64_t code, const char *dsn,
                                    const char *why) {
    access_code(a, code, dsn);
    sbuf_printf(&a->text, " <%s>: Helo command rejected: %s", a->f.helo, why);
    return STEP_REJECT;
}

/* " <client.example[192.0.2.1]>: ": what the list that is evaluated is about. */
static void access_list_subject(struct access_run *a) {
    sbuf_add_c(&a->text, " <");
    if (a->reader.list == LIST_DATA)
        sbuf_add_c(&a->text, "DATA");
    else if (a->reader.list == LIST_CLIENT)
        client_text(a->f.client, &a->text);
    else if (a->reader.list == LIST_HELO)
        sbuf_add_c(&a->text, a->f.helo);
    else
        addr_external(&a->text, a->reader.list == LIST_SENDER ? a->f.sender : a->f.rcpt);
    sbuf_add_c(&a->text, ">: ");
}

/* What cannot be decided is no permission, whatever stands before the word. */
static enum access_step access_unknown(struct access_run *a) {
    access_code(a, 451, "4.3.0");
    access_list_subject(a);
    sbuf_add_c(&a->text, "Temporary lookup failure");
    return STEP_FAIL;
}

static enum access_step access_misconfigured(struct access_run *a) {
    access_reject_text(a, 451, "4.3.5 Server configuration error");
    return STEP_FAIL;
}

/* What the list that stands for it refuses, in Postfix's words for each list: log readers know a
 * client, a name or a sender that was refused by them. */
static enum access_step access_list_refuses(struct access_run *a, int64_t code, const char *dsn,
                                            const char *why) {
    static const char *const subjects[LISTS] = {"Client host",       "Helo command",
                                                "Sender address",    "Recipient address",
                                                "Recipient address", "Data command"};
    access_code(a, code, dsn);
    access_list_subject(a);
    sbuf_printf(&a->text, "%s rejected: %s", subjects[a->reader.list], why);
    return STEP_REJECT;
}

static enum access_step test_reject(struct access_run *a) {
    return access_list_refuses(a, a->f.p->reject_code, "5.7.1", "Access denied");
}

static enum access_step test_defer(struct access_run *a) {
    return access_list_refuses(a, a->f.p->defer_code, "4.3.2", "Try again later");
}

/* -- who the client is -- */

static enum access_step permit_if(bool yes) {
    return yes ? STEP_PERMIT : STEP_NEXT;
}

static void access_go(struct access_run *a);
static void access_over(struct access_run *a, enum verdict v);

static void access_add_address(struct sbuf *b, const char *name, struct str addr) {
    sbuf_printf(b, " %s=<", name);
    addr_external(b, addr);
    sbuf_add_ch(b, '>');
}

void access_add_facts(const struct access_facts *f, struct sbuf *b) {
    if (f->qid != NULL)
        access_add_address(b, "from", f->sender);
    if (f->qid != NULL && f->rcpt.n > 0)
        access_add_address(b, "to", f->rcpt);
    sbuf_printf(b, " proto=%s", f->esmtp ? "ESMTP" : "SMTP");
    if (f->helo != NULL)
        sbuf_printf(b, " helo=<%s>", f->helo);
    if (f->sasl_user != NULL)
        sbuf_printf(b, " sasl_method=%s sasl_username=%s", f->sasl_method, f->sasl_user);
    if (f->sasl_sender.n > 0)
        sbuf_printf(b, " sasl_sender=%.*s", STR_FMT(f->sasl_sender));
}

void access_add_head(const struct access_facts *f, const char *what, const char *stage,
                     struct sbuf *b) {
    bool queued = f->qid != NULL && f->qid[0] != '\0';
    sbuf_printf(b, "%s: %s: %s from ", queued ? f->qid : "NOQUEUE", what, stage);
    client_text(f->client, b);
    sbuf_add_c(b, ": ");
}

/* A restriction behind warn_if_reject would have refused the mail. */
static void access_warn(struct access_run *a) {
    struct sbuf b = {0};
    access_add_head(&a->f, "reject_warning", a->reader.list == LIST_DATA ? "DATA" : "RCPT", &b);
    sbuf_printf(&b, "%u %s;", a->code, a->text.p);
    access_add_facts(&a->f, &b);
    log_info("smtpd", "%s", b.p);
    sbuf_free(&b);
    sbuf_reset(&a->text);
}

/* Takes what a word said; true: the next word is looked at. */
static bool access_goes_on(struct access_run *a, enum access_step step) {
    if (step == STEP_REJECT)
        a->code = access_checked_code(a->code, &a->text);
    if (step == STEP_FAIL || (step == STEP_REJECT && !a->warns)) {
        access_over(a, VERDICT_REJECT);
        return false;
    }
    if (step == STEP_REJECT)
        access_warn(a);
    if (step == STEP_PERMIT)
        a->reader.rest = STR_NONE;
    return step != STEP_WAIT;
}

/* An answer of the lookup process has become a step. */
static void access_resume(struct access_run *a, enum access_step step) {
    if (access_goes_on(a, step))
        access_go(a);
}

static enum access_step network_step(struct access_run *a, enum match_rc rc) {
    return rc == MATCH_ERROR ? access_unknown(a) : permit_if(rc == MATCH_YES);
}

static void on_network(void *arg, enum match_rc rc) {
    struct access_run *a = arg;
    a->tag = 0;
    access_resume(a, network_step(a, rc));
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
    access_resume(a, certs_step(a, ans));
}

static enum access_step no_fingerprint(struct access_run *a) {
    log_warn("smtpd", "smtpd_tls_fingerprint_digest: there is no \"%s\"",
             a->f.p->smtpd_tls_fingerprint_digest);
    return access_misconfigured(a);
}

/* A fingerprint says which certificate it is: nothing else has to vouch for it. */
static enum access_step test_clientcerts(struct access_run *a) {
    if (a->f.cert == NULL)
        return STEP_NEXT;
    if (a->f.cert->print == NULL)
        return no_fingerprint(a);
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

/* "user%elsewhere@ours" asks for relaying through us, and through the host that it goes to. */
static bool is_routed(const struct access_run *a) {
    struct str local = addr_local(a->f.rcpt);
    return str_chr(local, '@') >= 0 || str_chr(local, '%') >= 0 || str_chr(local, '!') >= 0;
}

/* A foreign local part is no destination of ours (allow_untrusted_routing = no). */
static bool auth_destination(const struct access_run *a) {
    return a->f.address_class != CLASS_DEFAULT && !is_routed(a);
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

unsigned access_unlisted(const struct access_facts *f, struct sbuf *text) {
    const struct mailerr *why = &f->unlisted->why;
    int64_t code = why->status != MAIL_BOUNCED       ? 450
                   : f->address_class == CLASS_ALIAS ? f->p->unknown_virtual_alias_reject_code
                                                     : 550;
    const char *dsn = f->unlisted->coded ? why->dsn : "5.1.1";
    sbuf_printf(text, "%c%s <", code < 500 ? '4' : '5', dsn + 1);
    addr_external(text, f->rcpt);
    sbuf_printf(text, ">: Recipient address rejected: %s", why->text);
    return access_checked_code(code, text);
}

/* The word says where in the list; smtpd_reject_unlisted_recipient says so of the end of all. */
static enum access_step test_unlisted(struct access_run *a) {
    if (a->f.unlisted == NULL)
        return STEP_NEXT;
    a->code = access_unlisted(&a->f, &a->text);
    return STEP_REJECT;
}

/* Adds the keys of an address in lower case, in which Postfix asks tables of patterns, too: no
 * capital letter takes an address past a row, or past its owner. */
static void keys_of_address(struct keys *keys, const struct access_run *a, struct str address,
                            void (*add)(struct keys *, const struct params *, struct str)) {
    char *lower = str_dup(address);
    str_lower(lower, address.n);
    add(keys, a->f.p, str_make(lower, address.n));
    free(lower);
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
    access_resume(a, owner_step(a, ans));
}

/* Without tables no sender has an owner.  A service without logins asks for none, as with Postfix.
 */
static enum access_step ask_owners(struct access_run *a) {
    static const struct maps_answer no_owner = {.rc = MAP_NOT_FOUND};
    struct keys keys = {.n = 0};
    if (a->f.sender.n == 0 || !a->f.p->smtpd_sasl_auth_enable)
        return STEP_NEXT;
    if (a->f.p->smtpd_sender_login_maps[0] == '\0')
        return owner_step(a, &no_owner);
    keys_of_address(&keys, a, a->f.sender, keys_sender);
    a->tag = lookup_maps(a->f.lookup, "smtpd", a->f.p->smtpd_sender_login_maps, keys.v, keys.n,
                         on_owners, a);
    keys_clear(&keys);
    return STEP_WAIT;
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

/* -- check_*_access: the keys of each (access(5)) -- */

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
static enum access_step check_client(struct access_run *a) {
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

static enum access_step check_helo(struct access_run *a) {
    if (a->f.helo != NULL && a->f.helo[0] != '\0')
        keys_host(a, str_of(a->f.helo));
    return STEP_NEXT;
}

static enum access_step check_sender(struct access_run *a) {
    keys_of_address(&a->keys, a, a->f.sender, keys_access);
    return STEP_NEXT;
}

static enum access_step check_recipient(struct access_run *a) {
    if (a->f.rcpt.n > 0)
        keys_of_address(&a->keys, a, a->f.rcpt, keys_access);
    return STEP_NEXT;
}

static enum access_step check_login(struct access_run *a) {
    if (a->f.sasl_user != NULL && a->f.sasl_user[0] != '\0')
        keys_add(&a->keys, false, "", str_of(a->f.sasl_user), STR_NONE);
    return STEP_NEXT;
}

static enum access_step check_ccert(struct access_run *a) {
    if (a->f.cert == NULL)
        return STEP_NEXT;
    if (a->f.cert->print == NULL)
        return no_fingerprint(a);
    clientcert_keys(a->f.cert, &a->keys);
    return STEP_NEXT;
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
    {"check_ccert_access", WORD_CHECK, check_ccert},
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
    {"reject_unknown_reverse_client_hostname", WORD_TEST, test_reverse_name},
    {"reject_plaintext_session", WORD_TEST, test_plaintext},
    {"reject_multi_recipient_bounce", WORD_TEST, test_multi_bounce},
    {"warn_if_reject", WORD_WARN, NULL},
    {"reject_unauth_pipelining", WORD_SKIP, NULL}, /* the session sees to it */
    {"reject_unlisted_recipient", WORD_TEST, test_unlisted},
    {"check_client_access", WORD_CHECK, check_client},
    {"check_helo_access", WORD_CHECK, check_helo},
    {"check_sender_access", WORD_CHECK, check_sender},
    {"check_recipient_access", WORD_CHECK, check_recipient},
    {"check_sasl_access", WORD_CHECK, check_login},
    {"reject_sender_login_mismatch", WORD_TEST, test_login},
    {"reject_known_sender_login_mismatch", WORD_TEST, test_known_login},
    {"reject_authenticated_sender_login_mismatch", WORD_TEST, test_login_inside},
    {"reject_unauthenticated_sender_login_mismatch", WORD_TEST, test_login_outside},
};

static const struct access_word *word_find(struct str w) {
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (str_ieq_c(w, words[i].name))
            return &words[i];
    return NULL;
}

/* -- what an access table says -- */

/* "<a@x.example>: Sender address rejected: ", in Postfix's words for each kind of table. */
static void add_subject(struct access_run *a, struct sbuf *b) {
    access_test keys = a->word->test;
    if (keys == check_client) {
        sbuf_add_ch(b, '<');
        client_text(a->f.client, b);
        sbuf_add_c(b, ">: Client host rejected: ");
    } else if (keys == check_helo) {
        sbuf_printf(b, "<%s>: Helo command rejected: ", a->f.helo);
    } else if (keys == check_ccert) {
        sbuf_printf(b, "<%s>: Client certificate rejected: ", a->f.cert->name);
    } else if (keys == check_login) {
        sbuf_printf(b, "<%s>: SASL login name rejected: ", a->f.sasl_user);
    } else {
        sbuf_add_ch(b, '<');
        addr_external(b, keys == check_sender ? a->f.sender : a->f.rcpt);
        sbuf_printf(b, ">: %s address rejected: ", keys == check_sender ? "Sender" : "Recipient");
    }
}

/* An enhanced status code at the start of text, or the default. */
static struct str take_dsn(struct str *text, const char *def) {
    struct str dsn = str_make(text->p, dsn_length(*text));
    if (dsn.n == 0 || (dsn.p[0] != '2' && dsn.p[0] != '4' && dsn.p[0] != '5'))
        return str_of(def);
    *text = str_trim(str_from(*text, dsn.n));
    return dsn;
}

/* 5.1.x says what is wrong with a recipient, or with a sender (RFC 3463 section 3.2): it is made to
 * fit what is refused, as Postfix makes it. */
static void dsn_fit(access_test keys, char *dsn) {
    static const char senders[] = "078770778", recipients[] = "012345632";
    const char *details = keys == check_sender ? senders : recipients;
    bool is_address = keys == check_sender || keys == check_recipient;
    if (strncmp(dsn + 1, ".1.", 3) != 0)
        return;
    char detail = dsn[5] == '\0' && dsn[4] < '9' ? details[dsn[4] - '0'] : '0';
    dsn[2] = is_address ? '1' : '0';
    dsn[4] = is_address ? detail : '0';
    dsn[5] = '\0';
}

/* "REJECT text", "DEFER text", "550 5.7.1 text". */
static enum access_step action_refuses(struct access_run *a, int64_t code, struct str text) {
    char *dsn = str_dup(take_dsn(&text, "5.7.1"));
    dsn_fit(a->word->test, dsn);
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
    return a->word->test == check_recipient && is_routed(a) ? STEP_NEXT : STEP_PERMIT;
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
    if (a->word->test != check_ccert || ans->rc != MAP_FOUND || ans->key > 0 || a->keys.n < 2)
        return false;
    keys_clear(&a->keys);
    keys_add(&a->keys, false, "", str_of(a->f.cert->key_print), STR_NONE);
    a->tag = lookup_maps(a->f.lookup, "smtpd", a->table, a->keys.v, a->keys.n, on_table, a);
    return true;
}

static void on_table(void *arg, const struct maps_answer *ans) {
    struct access_run *a = arg;
    a->tag = 0;
    enum access_step step = table_step(a, ans);
    if (step == STEP_NEXT && ask_certificates_key(a, ans))
        return;
    keys_clear(&a->keys);
    access_resume(a, step);
}

static enum access_step ask_table(struct access_run *a, struct str table) {
    enum access_step step = a->word->test(a);
    if (step != STEP_NEXT || a->keys.n == 0)
        return step;
    free(a->table);
    a->table = str_dup(table);
    a->tag = lookup_maps(a->f.lookup, "smtpd", a->table, a->keys.v, a->keys.n, on_table, a);
    return STEP_WAIT;
}

/* -- the words of a list -- */

static const char *const list_names[LISTS] = {
    "smtpd_client_restrictions", "smtpd_helo_restrictions",      "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",  "smtpd_recipient_restrictions", "smtpd_data_restrictions"};

static struct list_reader list_open(const struct params *p, enum list list) {
    const char *const values[LISTS] = {p->smtpd_client_restrictions,    p->smtpd_helo_restrictions,
                                       p->smtpd_sender_restrictions,    p->smtpd_relay_restrictions,
                                       p->smtpd_recipient_restrictions, p->smtpd_data_restrictions};
    return (struct list_reader){list, str_of(values[list])};
}

/* The restriction that a table without one stands for in the list, as in Postfix; NULL: it must
 * have one there. */
static const struct access_word *bare_table_word(enum list list) {
    static const char *const bare[LISTS] = {"check_client_access",    "check_helo_access",
                                            "check_sender_access",    "check_recipient_access",
                                            "check_recipient_access", NULL};
    return bare[list] == NULL ? NULL : word_find(str_of(bare[list]));
}

static bool list_word(struct list_reader *r, struct str *w) {
    return str_split_braces(&r->rest, ", \t\r\n", w);
}

/* The next restriction of a list; false: it is over.  What stands behind warn_if_reject at the end
 * of a list is not the first one of the next list. */
static bool list_item_next(struct list_reader *r, struct list_item *item) {
    *item = (struct list_item){.table = STR_NONE};
    do {
        item->warns = item->word != NULL;
        if (!list_word(r, &item->text))
            return false;
        item->word = word_find(item->text);
    } while (item->word != NULL && item->word->kind == WORD_WARN);
    const struct unread_word *unread = unread_word_find(item->text);
    item->is_unread = unread != NULL;
    if (item->word == NULL && map_looks_like(item->text)) {
        item->word = bare_table_word(r->list);
        item->table = item->text;
    } else if (unread != NULL ? unread->argument
                              : item->word != NULL && item->word->kind == WORD_CHECK) {
        item->has_no_table = !list_word(r, &item->table) || !map_looks_like(item->table);
    }
    return true;
}

/* -- the loop over lists and words -- */

static enum access_step access_item_step(struct access_run *a, const struct list_item *item) {
    a->word = item->word;
    a->warns = item->warns;
    if (item->is_unread)
        return STEP_NEXT;
    if (a->word == NULL) {
        log_warn("smtpd", "unknown smtpd restriction: \"%.*s\"", STR_FMT(item->text));
        return access_misconfigured(a);
    }
    if (item->has_no_table) {
        log_warn("smtpd", "restriction %s: bad argument \"%.*s\": need maptype:mapname",
                 a->word->name, STR_FMT(item->table));
        return access_misconfigured(a);
    }
    if (a->word->kind == WORD_CHECK)
        return ask_table(a, item->table);
    if (a->word->kind == WORD_PERMIT)
        return STEP_PERMIT;
    return a->word->kind == WORD_SKIP ? STEP_NEXT : a->word->test(a);
}

/* A client that has not said its name passes the list about names by, as with Postfix:
 * smtpd_helo_required is for that. */
static void access_open_list(struct access_run *a, enum list list) {
    a->reader = list_open(a->f.p, list);
    if (list == LIST_HELO && a->f.helo == NULL)
        a->reader.rest = STR_NONE;
}

/* The next restriction of the current list or, when that is over, the first one of a later list. */
static bool access_next_item(struct access_run *a, struct list_item *item) {
    while (!list_item_next(&a->reader, item)) {
        if (a->reader.list >= LIST_RECIPIENT)
            return false;
        access_open_list(a, a->reader.list + 1);
    }
    return true;
}

/* Goes on until a word has to wait or the run is over. */
static void access_go(struct access_run *a) {
    struct list_item item;
    while (access_next_item(a, &item))
        if (!access_goes_on(a, access_item_step(a, &item)))
            return;
    access_over(a, VERDICT_ALLOW);
}

static void access_free(struct access_run *a) {
    keys_clear(&a->keys);
    sbuf_free(&a->text);
    free(a->table);
    free(a);
}

/* The loop gives the answer: the run is the callee's no more. */
static void access_give(struct later *t) {
    struct access_run *a = DL_OWNER(t, struct access_run, answer);
    a->fn(a->arg, a->verdict, a->code, a->text.p);
    access_free(a);
}

static void access_over(struct access_run *a, enum verdict v) {
    a->verdict = v;
    a->answer.run = access_give;
    loop_later(a->f.loop, &a->answer);
}

void access_cancel(struct access_run *a) {
    if (a == NULL)
        return;
    lookup_cancel(a->f.lookup, a->tag);
    loop_never(&a->answer);
    access_free(a);
}

struct access_run *access_begin(const struct access_facts *f, enum access_stage stage, access_fn fn,
                                void *arg) {
    struct access_run *a = MEM_NEW(struct access_run);
    a->f = *f;
    a->fn = fn;
    a->arg = arg;
    access_open_list(a, stage == ACCESS_DATA ? LIST_DATA : LIST_CLIENT);
    access_go(a);
    return a;
}

/* -- mistakes in a configuration -- */

/* Does the word refuse whatever a stranger sends elsewhere?  One without its table refuses all. */
static bool item_closes(const struct list_item *item) {
    access_test test = item->word == NULL ? NULL : item->word->test;
    return item->word != NULL && (item->has_no_table || test == test_reject || test == test_defer ||
                                  test == test_reject_unauth || test == test_defer_unauth);
}

/* Does the list end mail for strangers?  What stands behind a permit is never reached, and what
 * stands behind warn_if_reject refuses nothing. */
static bool list_closes(const struct service *svc, enum list list) {
    struct list_reader reader = list_open(&svc->p, list);
    struct list_item item;
    while (list_item_next(&reader, &item)) {
        if (item.word != NULL && item.word->kind == WORD_PERMIT)
            return false;
        if (!item.warns && item_closes(&item))
            return true;
    }
    return false;
}

static bool compares_logins(const struct service *svc, enum list list) {
    struct list_reader reader = list_open(&svc->p, list);
    struct list_item item;
    while (list_item_next(&reader, &item)) {
        access_test test = item.word == NULL ? NULL : item.word->test;
        if (test != NULL && (test == test_login || test == test_known_login ||
                             test == test_login_inside || test == test_login_outside))
            return true;
    }
    return false;
}

static void check_list(const struct service *svc, enum list list, struct diags *d) {
    struct list_reader reader = list_open(&svc->p, list);
    struct list_item item;
    while (list_item_next(&reader, &item)) {
        if (item.word == NULL && !item.is_unread)
            diag_add(d, DIAG_ERROR, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: %s: unknown restriction \"%.*s\"", svc->name, list_names[list],
                     STR_FMT(item.text));
        else if (item.has_no_table && !item.is_unread)
            diag_add(d, DIAG_WARN, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: %s: %s needs a table: mail that comes to it is refused, 451 4.3.5",
                     svc->name, list_names[list], item.word->name);
    }
}

/* A list that compares senders with logins, where there are no logins, or no tables of them. */
static void check_logins(const struct service *svc, enum list list, struct diags *d) {
    const char *why = svc->p.smtpd_sender_login_maps[0] == '\0' ? "smtpd_sender_login_maps is empty"
                      : svc->p.smtpd_sasl_auth_enable
                          ? NULL
                          : "smtpd_sasl_auth_enable is off: it is passed over, as Postfix does";
    if (why != NULL && compares_logins(svc, list))
        diag_add(d, DIAG_WARN, svc->line > 0 ? "master.cf" : NULL, svc->line,
                 "%s: %s compares senders with logins, but %s", svc->name, list_names[list], why);
}

void access_check(const struct service *svc, struct diags *d) {
    for (enum list l = LIST_CLIENT; l < LISTS; l++)
        check_list(svc, l, d);
    for (enum list l = LIST_CLIENT; l < LISTS; l++)
        check_logins(svc, l, d);
    if (!list_closes(svc, LIST_RELAY) && !list_closes(svc, LIST_RECIPIENT) &&
        !list_closes(svc, LIST_CLIENT))
        diag_add(d, DIAG_ERROR, svc->line > 0 ? "master.cf" : NULL, svc->line,
                 "%s: open relay: in parameter smtpd_relay_restrictions or "
                 "smtpd_recipient_restrictions, specify at least one working instance of: "
                 "reject_unauth_destination, defer_unauth_destination, reject or defer",
                 svc->name);
}
