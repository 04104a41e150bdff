/*
 * receive/access_policy.c - check_policy_service: what a service is asked, and what its answer does
 *
 * The loop's thread.  The attributes are those of Postfix 3.7, in its order (SMTPD_POLICY_README).
 * A service that does not answer has smtpd_policy_service_default_action counted for its own, which
 * puts the mail off unless it says something else.
 */
#include "receive/access_run.h"

#include <stdlib.h>
#include <string.h>

#include "receive/policyd.h"
#include "util/log.h"

/* What stands beside the server between braces: its settings. */
struct policy_word {
    struct policy_how how;
    struct str action;  /* default_action */
    struct str context; /* policy_context */
    const char *bad;    /* NULL: nothing is wrong with it */
};

static struct str word_unbraced(struct str word) {
    word = str_trim(word);
    if (word.n >= 2 && word.p[0] == '{' && word.p[word.n - 1] == '}')
        word = str_trim(str_make(word.p + 1, word.n - 2));
    return word;
}

/* "1000s", "3h"; without a unit: seconds. */
static const char *word_time(struct str value, int64_t *seconds) {
    return config_time(value, 's', seconds) && *seconds > 0 ? NULL : "a time is none";
}

static const char *word_count(struct str value, int64_t least, int64_t *count) {
    uint64_t n;
    if (!str_u64(value, &n) || n < (uint64_t)least || n > 1000000)
        return "a number is none";
    *count = (int64_t)n;
    return NULL;
}

static const char *take_setting(struct policy_word *w, struct str name, struct str value) {
    const struct {
        const char *name;
        int64_t *at;
        bool time;
        int64_t least;
    } numbers[] = {{"timeout", &w->how.timeout_s, true, 1},
                   {"max_idle", &w->how.max_idle_s, true, 1},
                   {"max_ttl", &w->how.max_ttl_s, true, 1},
                   {"retry_delay", &w->how.retry_delay_s, true, 1},
                   {"request_limit", &w->how.request_limit, false, 0},
                   {"try_limit", &w->how.try_limit, false, 1}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (str_eq_c(name, numbers[i].name))
            return numbers[i].time ? word_time(value, numbers[i].at)
                                   : word_count(value, numbers[i].least, numbers[i].at);
    if (str_eq_c(name, "default_action"))
        w->action = value;
    else if (str_eq_c(name, "policy_context"))
        w->context = value;
    else
        return "it has a setting that there is not";
    return NULL;
}

/* p NULL: its own settings are left as they are. */
static void word_parse(struct policy_word *w, const struct params *p, struct str word) {
    struct str rest = word_unbraced(word), one;
    *w = (struct policy_word){.bad = NULL};
    if (p != NULL) {
        w->how = (struct policy_how){.timeout_s = p->smtpd_policy_service_timeout,
                                     .max_idle_s = p->smtpd_policy_service_max_idle,
                                     .max_ttl_s = p->smtpd_policy_service_max_ttl,
                                     .request_limit = p->smtpd_policy_service_request_limit,
                                     .try_limit = p->smtpd_policy_service_try_limit,
                                     .retry_delay_s = p->smtpd_policy_service_retry_delay};
        w->action = str_of(p->smtpd_policy_service_default_action);
        w->context = str_of(p->smtpd_policy_service_policy_context);
    }
    if (!str_split_braces(&rest, ", \t\r\n", &w->how.where)) {
        w->bad = "no service is named";
        return;
    }
    w->bad = policyd_where_bad(w->how.where);
    while (w->bad == NULL && str_split_braces(&rest, ", \t\r\n", &one)) {
        struct str setting = word_unbraced(one);
        ptrdiff_t eq = str_chr(setting, '=');
        w->bad = eq < 0 ? "a setting has no value"
                        : take_setting(w, str_trim(str_make(setting.p, (size_t)eq)),
                                       str_trim(str_from(setting, (size_t)eq + 1)));
    }
}

const char *access_policy_bad(struct str server) {
    struct policy_word w;
    word_parse(&w, NULL, server);
    return w.bad;
}

struct str access_policy_where(struct str server) {
    struct policy_word w;
    word_parse(&w, NULL, server);
    return w.how.where;
}

struct str access_policy_action(const struct params *p, struct str server) {
    struct policy_word w;
    word_parse(&w, p, server);
    return w.action;
}

/* -- the request -- */

static void put_text(struct sbuf *b, const char *name, const char *value) {
    sbuf_printf(b, "%s=", name);
    sbuf_add_safe(b, str_of(value == NULL ? "" : value));
    sbuf_add_ch(b, '\n');
}

static void put_str(struct sbuf *b, const char *name, struct str value) {
    sbuf_printf(b, "%s=", name);
    sbuf_add_safe(b, value);
    sbuf_add_ch(b, '\n');
}

static void put_number(struct sbuf *b, const char *name, uint64_t value) {
    sbuf_printf(b, "%s=%llu\n", name, (unsigned long long)value);
}

/* The end of the connection that is here. */
static void put_server(struct sbuf *b, const struct access_facts *f) {
    char ip[INET6_ADDRSTRLEN] = "";
    struct netaddr a = {0};
    socklen_t n = sizeof a.u;
    bool known = f->fd >= 0 && !f->client->local && getsockname(f->fd, &a.u.sa, &n) == 0;
    if (known)
        netaddr_unmap(&a);
    put_text(b, "server_address", known ? netaddr_text(&a, ip) : "");
    put_number(b, "server_port", known ? netaddr_port(&a) : 0);
}

static void put_client(struct sbuf *b, const struct access_facts *f) {
    const struct client *c = f->client;
    put_text(b, "protocol_name", f->esmtp ? "ESMTP" : "SMTP");
    put_text(b, "client_address", c->addr);
    put_text(b, "client_name", client_name(c));
    put_number(b, "client_port", c->local ? 0 : netaddr_port(&c->peer));
    put_text(b, "reverse_client_name", c->reverse_name != NULL ? c->reverse_name : "unknown");
    put_server(b, f);
    put_text(b, "helo_name", f->helo);
}

static void put_certificate(struct sbuf *b, const struct access_facts *f) {
    const struct clientcert *c = f->cert != NULL && f->cert->trusted ? f->cert : NULL;
    put_text(b, "ccert_subject", c == NULL ? "" : c->name);
    put_text(b, "ccert_issuer", c == NULL ? "" : c->issuer);
    put_text(b, "ccert_fingerprint", f->cert == NULL ? "" : f->cert->print);
    put_text(b, "ccert_pubkey_fingerprint", f->cert == NULL ? "" : f->cert->key_print);
}

static void put_tls(struct sbuf *b, const struct access_facts *f) {
    const SSL_CIPHER *cipher = f->ssl == NULL ? NULL : SSL_get_current_cipher(f->ssl);
    put_text(b, "encryption_protocol", f->ssl == NULL ? "" : SSL_get_version(f->ssl));
    put_text(b, "encryption_cipher", cipher == NULL ? "" : SSL_CIPHER_get_name(cipher));
    put_number(b, "encryption_keysize",
               cipher == NULL ? 0 : (uint64_t)SSL_CIPHER_get_bits(cipher, NULL));
}

static void add_request(const struct access_run *a, struct str context, struct sbuf *b) {
    const struct access_facts *f = &a->f;
    bool content = a->reader.list >= LIST_DATA;
    put_text(b, "request", "smtpd_access_policy");
    put_text(b, "protocol_state", access_stage_name(a));
    put_client(b, f);
    put_str(b, "sender", f->sender_said);
    put_str(b, "recipient", f->rcpt_said);
    put_number(b, "recipient_count", content ? f->n_rcpts : 0);
    put_text(b, "queue_id", f->qid);
    put_text(b, "instance", f->instance);
    put_number(b, "size", f->size);
    put_text(b, "etrn_domain", "");
    put_text(b, "stress", "");
    put_text(b, "sasl_method", f->sasl_method);
    put_text(b, "sasl_username", f->sasl_user);
    put_str(b, "sasl_sender", f->sasl_sender);
    put_certificate(b, f);
    put_tls(b, f);
    put_str(b, "policy_context", context);
    sbuf_add_ch(b, '\n');
}

/* -- the answer -- */

/* It speaks of what its list is about, as with Postfix. */
static enum access_step answer_step(struct access_run *a, struct str action) {
    enum list list = a->reader.list;
    struct access_source src = {.row = action,
                                .sender = list == LIST_SENDER,
                                .recipient = list == LIST_RELAY || list == LIST_RECIPIENT};
    sbuf_printf(&src.whence, "policy service %s: answer", a->policy_server);
    access_add_name(a, &src.name);
    src.kind = access_kind(a);
    enum access_step step = access_act(a, &src, action);
    sbuf_free(&src.whence);
    sbuf_free(&src.name);
    return step;
}

static void on_policyd(void *arg, struct str action) {
    struct access_run *a = arg;
    a->policy = NULL;
    a->resume(a, answer_step(a, action.p != NULL ? action : str_of(a->policy_default)));
}

enum access_step access_ask_policy(struct access_run *a, struct str server) {
    struct policy_word w;
    struct sbuf request = {0};
    word_parse(&w, a->f.p, server);
    if (w.bad != NULL) {
        log_warn("smtpd", "check_policy_service %.*s: %s", STR_FMT(server), w.bad);
        return access_misconfigured(a);
    }
    free(a->policy_server);
    free(a->policy_default);
    a->policy_server = str_dup(w.how.where);
    a->policy_default = str_dup(w.action);
    add_request(a, w.context, &request);
    a->policy = policyd_ask(a->f.policies, a->f.cfg, &w.how, sbuf_str(&request), a->f.client->addr,
                            on_policyd, a);
    sbuf_free(&request);
    return STEP_WAIT;
}
