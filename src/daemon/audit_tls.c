/*
 * daemon/audit_tls.c - posthouse check: what TLS needs
 *
 * Opens and parses what delivery will: trust anchors, certificate and key, protocol names, the rows
 * of smtp_tls_policy_maps.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/audit.h"
#include "daemon/setting.h"
#include "deliver/policy.h"
#include "deliver/secure.h"
#include "maps/maps.h"
#include "util/tls.h"

struct tls_audit {
    const struct config *c;
    const struct params *p;
    const char *service;       /* that p is of; "": p is main.cf's */
    const struct service *svc; /* NULL: p is main.cf's */
    struct diags *d;
    size_t said;
    bool varies; /* the table that is looked at has rules of patterns */
};

static void tls_say(struct tls_audit *t, enum diag_level level, const char *param,
                    const char *text) {
    struct setting_place at = setting_place(t->c, t->svc, param);
    diag_add(t->d, level, at.file, at.line, "%s%s%s: %s", t->service,
             t->service[0] == '\0' ? "" : ": ", at.name, text);
}

/* Can the files of its tafile= be used? */
static bool policy_anchors_good(struct tls_audit *t, const struct tls_policy *p, struct sbuf *why) {
    const char *param = NULL;
    char *text = NULL;
    bool good = p->anchors == NULL || secure_check(t->c, t->p, p, &param, &text) ||
                strcmp(param, "tafile") != 0;
    if (!good)
        sbuf_printf(why, "tafile: %s", text);
    free(text);
    return good;
}

static int policy_row(void *arg, struct str key, struct str value) {
    struct tls_audit *t = arg;
    struct tls_policy p = {0};
    if (t->varies && str_chr(value, '$') >= 0) /* a part of the key stands in it */
        return 0;
    struct sbuf why = {0}, text = {0};
    bool good = tls_policy_parse(&p, value, &why) && policy_anchors_good(t, &p, &why);
    if (!good && ++t->said <= AUDIT_SHOWN) {
        sbuf_add_c(&text, "the row of \"");
        sbuf_add_safe(&text, key);
        sbuf_printf(&text, "\": %s: mail for it waits (4.7.5)", why.p);
        tls_say(t, DIAG_ERROR, "smtp_tls_policy_maps", text.p);
    }
    tls_policy_clear(&p);
    sbuf_free(&why);
    sbuf_free(&text);
    return 0;
}

static void check_policies(struct tls_audit *t) {
    struct maps *m = maps_open(t->p->smtp_tls_policy_maps, t->c->dir);
    for (size_t i = 0; i < m->n; i++) {
        t->varies = !m->v[i]->fixed;
        map_rows(m->v[i], policy_row, t);
    }
    maps_close(m);
}

/* What would keep sessions of some level from having TLS. */
static void check_levels(struct tls_audit *t) {
    static const enum tls_level levels[] = {LEVEL_MAY, LEVEL_ENCRYPT, LEVEL_SECURE};
    size_t n = t->p->smtp_tls_trust_anchor_file[0] != '\0' ? 3 : 2;
    for (size_t i = 0; i < n; i++) {
        struct tls_policy policy = {.level = levels[i]};
        char *why = NULL;
        const char *param = NULL;
        if (secure_check(t->c, t->p, &policy, &param, &why))
            continue;
        tls_say(t, DIAG_ERROR, param, why);
        free(why);
    }
}

/* As with Postfix, such a handshake fails. */
static void check_versions(struct tls_audit *t, const char *param, const char *value,
                           const char *then) {
    struct sbuf text = {0};
    struct str bad;
    if (!tls_protocols_ok(value, &bad) || tls_protocols_left(value))
        return;
    sbuf_printf(&text, "\"%s\" leaves no version of TLS: %s", value, then);
    tls_say(t, DIAG_ERROR, param, text.p);
    sbuf_free(&text);
}

/* Without the digest there are no fingerprints. */
static void check_fingerprint_digest(struct tls_audit *t) {
    struct sbuf text = {0};
    if (tls_digest_ok(t->p->smtp_tls_fingerprint_digest))
        return;
    sbuf_printf(&text,
                "there is no digest \"%s\": mail that goes by level fingerprint waits (4.7.5)",
                t->p->smtp_tls_fingerprint_digest);
    tls_say(t, DIAG_ERROR, "smtp_tls_fingerprint_digest", text.p);
    sbuf_free(&text);
}

static bool same_tls(const struct params *a, const struct params *b) {
    static const size_t texts[] = {
        offsetof(struct params, smtp_tls_CAfile),
        offsetof(struct params, smtp_tls_CApath),
        offsetof(struct params, smtp_tls_cert_file),
        offsetof(struct params, smtp_tls_chain_files),
        offsetof(struct params, smtp_tls_ciphers),
        offsetof(struct params, smtp_tls_mandatory_ciphers),
        offsetof(struct params, smtp_tls_exclude_ciphers),
        offsetof(struct params, smtp_tls_mandatory_exclude_ciphers),
        offsetof(struct params, smtp_tls_fingerprint_digest),
        offsetof(struct params, smtp_tls_key_file),
        offsetof(struct params, smtp_tls_protocols),
        offsetof(struct params, smtp_tls_mandatory_protocols),
        offsetof(struct params, smtp_tls_policy_maps),
        offsetof(struct params, smtp_tls_trust_anchor_file),
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(params_text_at(a, texts[i]), params_text_at(b, texts[i])) != 0)
            return false;
    return true;
}

static void audit_client(struct tls_audit *t) {
    check_levels(t);
    check_versions(t, "smtp_tls_protocols", t->p->smtp_tls_protocols,
                   "at level may mail goes in clear");
    check_versions(t, "smtp_tls_mandatory_protocols", t->p->smtp_tls_mandatory_protocols,
                   "at level encrypt and above mail waits");
    check_fingerprint_digest(t);
    check_policies(t);
}

void audit_tls(const struct config *c, struct diags *d) {
    struct tls_audit whole = {.c = c, .p = &c->p, .service = "", .d = d};
    audit_client(&whole);
    for (size_t i = 0; i < c->n_services; i++) {
        const struct service *s = c->services[i];
        struct tls_audit own = {.c = c, .p = &s->p, .service = s->name, .svc = s, .d = d};
        if (service_is_client(s) && !same_tls(&s->p, &c->p))
            audit_client(&own);
    }
}
