/*
 * deliver/policy.c - the stage tls policy of a delivery session: which level is asked for, and what
 * goes with it
 *
 * The level is the relay record's, or a row's of smtp_tls_policy_maps, or smtp_tls_security_level.
 * The session owns the policy; each begin of the stage makes it anew.
 */
#include "deliver/policy.h"

#include <stdio.h>
#include <stdlib.h>

#include "deliver/session.h"
#include "mail/address.h"
#include "route/keys.h"
#include "util/idn.h"
#include "util/tls.h"

static const struct {
    const char *name;
    enum tls_level level;
} levels[] = {{"none", LEVEL_NONE},       {"may", LEVEL_MAY},
              {"encrypt", LEVEL_ENCRYPT}, {"fingerprint", LEVEL_FINGERPRINT},
              {"verify", LEVEL_VERIFY},   {"secure", LEVEL_SECURE}};

bool tls_level_parse(struct str s, enum tls_level *level) {
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++)
        if (str_ieq_c(s, levels[i].name)) {
            *level = levels[i].level;
            return true;
        }
    return false;
}

const char *tls_level_name(enum tls_level level) {
    return levels[level].name;
}

void tls_fate_name(struct tls_fate fate, char out[24]) {
    static const struct {
        const char *before, *after;
    } forms[] = {
        [TLS_FATE_MET] = {"", ""},
        [TLS_FATE_CLEAR] = {"", ""},
        [TLS_FATE_DISABLED] = {"(disabled:", ")"},
        [TLS_FATE_REFUSED] = {"!", ""},
        [TLS_FATE_UNDECIDED] = {"", "?"},
    };
    out[0] = '\0';
    if (fate.what == TLS_FATE_UNSET)
        return;
    snprintf(out, 24, "%s%s%s", forms[fate.what].before,
             fate.what == TLS_FATE_CLEAR ? "none" : tls_level_name(fate.level),
             forms[fate.what].after);
}

void tls_policy_clear(struct tls_policy *p) {
    free(p->match);
    free(p->servername);
    free(p->protocols);
    free(p->grade);
    free(p->exclude);
    free(p->anchors);
    *p = (struct tls_policy){.level = LEVEL_NONE};
}

static bool match_add(struct tls_policy *p, struct str value, struct sbuf *why) {
    struct sbuf names = {0};
    if (value.n == 0)
        sbuf_add_c(why, "match is empty");
    else if (p->level < LEVEL_FINGERPRINT)
        sbuf_printf(why, "match is not for level %s", tls_level_name(p->level));
    if (why->n > 0)
        return false;
    if (p->match != NULL)
        sbuf_printf(&names, "%s%c", p->match, p->level == LEVEL_FINGERPRINT ? '|' : ':');
    sbuf_add_str(&names, value);
    free(p->match);
    p->match = sbuf_take(&names);
    return true;
}

static bool anchors_add(struct tls_policy *p, struct str value, struct sbuf *why) {
    struct sbuf files = {0};
    if (value.n == 0)
        sbuf_add_c(why, "tafile is empty");
    else if (p->level < LEVEL_VERIFY)
        sbuf_printf(why, "tafile is not for level %s", tls_level_name(p->level));
    if (why->n > 0)
        return false;
    if (p->anchors != NULL)
        sbuf_printf(&files, "%s,", p->anchors);
    sbuf_add_str(&files, value);
    free(p->anchors);
    p->anchors = sbuf_take(&files);
    return true;
}

bool server_name_ok(struct str name) {
    return str_is_ascii(name) ? addr_is_dns_name(name) : addr_valid_host(name);
}

static bool servername_set(struct tls_policy *p, struct str value, struct sbuf *why) {
    if (p->servername != NULL)
        sbuf_add_c(why, "servername is given twice");
    else if (!server_name_ok(value))
        sbuf_printf(why, "servername=%.*s is no host name", STR_FMT(value));
    else
        p->servername = str_dup(value);
    return why->n == 0;
}

static bool reuse_set(struct tls_policy *p, struct str value, struct sbuf *why) {
    p->alone = str_ieq_c(value, "no");
    if (!p->alone && !str_ieq_c(value, "yes"))
        sbuf_printf(why, "connection_reuse=%.*s is neither yes nor no", STR_FMT(value));
    return why->n == 0;
}

/* Keeps the text of an attribute that stands once. */
static bool text_set(char **to, const char *name, struct str value, struct sbuf *why) {
    if (*to != NULL)
        sbuf_printf(why, "%s is given twice", name);
    else
        *to = str_dup(value);
    return why->n == 0;
}

static bool protocols_set(struct tls_policy *p, struct str value, struct sbuf *why) {
    struct str bad;
    if (text_set(&p->protocols, "protocols", value, why) && !tls_protocols_ok(p->protocols, &bad))
        sbuf_printf(why, "there is no TLS protocol \"%.*s\"", STR_FMT(bad));
    return why->n == 0;
}

/* Grade and exclusions are looked at by what makes OpenSSL's list of them. */
static bool ciphers_set(struct tls_policy *p, char **to, const char *name, struct str value,
                        struct sbuf *why) {
    struct sbuf list = {0};
    struct str bad;
    if (text_set(to, name, value, why) &&
        !tls_ciphers(&list, p->grade == NULL ? "medium" : p->grade, "", "",
                     p->exclude == NULL ? "" : p->exclude, &bad))
        sbuf_printf(why, "%s=%.*s: there is no \"%.*s\"", name, STR_FMT(value), STR_FMT(bad));
    sbuf_free(&list);
    return why->n == 0;
}

static bool attribute_take(struct tls_policy *p, struct str word, struct sbuf *why) {
    ptrdiff_t eq = str_chr(word, '=');
    struct str name = str_make(word.p, eq < 0 ? 0 : (size_t)eq);
    struct str value = str_from(word, (size_t)(eq + 1));
    if (name.n == 0) {
        sbuf_printf(why, "\"%.*s\" is no attribute=value", STR_FMT(word));
        return false;
    }
    if (str_ieq_c(name, "match"))
        return match_add(p, value, why);
    if (str_ieq_c(name, "tafile"))
        return anchors_add(p, value, why);
    if (str_ieq_c(name, "servername"))
        return servername_set(p, value, why);
    if (str_ieq_c(name, "connection_reuse"))
        return reuse_set(p, value, why);
    if (str_ieq_c(name, "protocols"))
        return protocols_set(p, value, why);
    if (str_ieq_c(name, "ciphers"))
        return ciphers_set(p, &p->grade, "ciphers", value, why);
    if (str_ieq_c(name, "exclude"))
        return ciphers_set(p, &p->exclude, "exclude", value, why);
    sbuf_printf(why, "the attribute %.*s is not known", STR_FMT(name));
    return false;
}

bool tls_policy_parse(struct tls_policy *p, struct str row, struct sbuf *why) {
    struct str word;
    tls_policy_clear(p);
    if (!str_split(&row, ", \t\r\n", &word)) {
        sbuf_add_c(why, "it is empty");
        return false;
    }
    if (!tls_level_parse(word, &p->level)) {
        sbuf_printf(why, "there is no level \"%.*s\"", STR_FMT(word));
        return false;
    }
    while (p->level > LEVEL_NONE && str_split(&row, ", \t\r\n", &word))
        if (!attribute_take(p, word, why))
            return false;
    return true;
}

/* A socket of this machine is private: as in Postfix, TLS that may be left out is left out there.
 */
static bool level_is_spared(struct dsess *s) {
    bool spared = s->policy.level == LEVEL_MAY && netaddr_is_unix(&session_target(s)->addr);
    if (spared)
        s->policy.level = LEVEL_NONE;
    return spared;
}

static void note_level(struct dsess *s, const struct maps_answer *a, const char *from) {
    json_t *o = watch_step(s, "tls policy", true);
    if (o != NULL && a != NULL)
        trace_asked(o, a->trace);
    const char *more = level_is_spared(s)   ? " (may, which is none on a socket of this machine)"
                       : session_wrapped(s) ? "; TLS from the first byte, so at least encrypt"
                                            : "";
    trace_setf(o, "result", "%s, from %s%s", tls_level_name(s->policy.level), from, more);
    watch_end_step(s, o);
}

static enum step row_apply(struct dsess *s, const struct maps_answer *a) {
    struct sbuf why = {0};
    enum step step = STEP_DONE;
    if (tls_policy_parse(&s->policy, sbuf_str(&a->value), &why))
        note_level(s, a, "smtp_tls_policy_maps");
    else
        step = host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.7.5",
                           "client TLS configuration problem: invalid TLS policy for %s: %s",
                           session_target(s)->dest, why.p);
    sbuf_free(&why);
    return step;
}

static void on_policy(void *arg, const struct maps_answer *a) {
    struct dsess *s = arg;
    enum step step = STEP_DONE;
    s->tag = 0;
    s->policy_mark = answer_mark(a);
    if (a->rc == MAP_ERROR)
        step = lookup_failed(s, BLAME_OURSELVES, a, "TLS policy lookup error for",
                             session_target(s)->dest);
    else if (a->rc == MAP_FOUND)
        step = row_apply(s, a);
    else
        note_level(s, a, "smtp_tls_security_level");
    s->resume(s, step);
}

/* With a relay record its TLS mode is the level; policy tables are not asked. */
static enum step record_policy(struct dsess *s) {
    if (!tls_level_parse(str_of(s->rec.tls), &s->policy.level))
        return host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.7.5",
                           "relay record \"%s\": unknown TLS mode %s", s->rec.name, s->rec.tls);
    note_level(s, NULL, "the relay record");
    return STEP_DONE;
}

/* The destination; its parents (".example.com"), for every kind of table, only if it is a plain
 * domain; each with its labels as people write them. */
static void policy_keys(const struct dsess *s, struct keys *keys) {
    struct sbuf other = {0};
    struct str key = str_of(session_target(s)->dest);
    bool plain = addr_is_dns_name(key);
    keys_other_spelling(s->p, key, &other);
    struct str written = sbuf_str(&other);
    for (ptrdiff_t dot = 0; dot >= 0;) {
        keys_add(keys, false, "", key, STR_NONE);
        if (written.n > 0)
            keys_add(keys, false, "", written, STR_NONE);
        dot = plain ? str_chr(str_from(key, 1), '.') : -1;
        key = str_from(key, (size_t)(dot + 1));
        ptrdiff_t next = str_chr(str_from(written, 1), '.');
        written = next < 0 ? STR_NONE : str_from(written, (size_t)next + 1);
    }
    sbuf_free(&other);
}

void policy_ask(struct dsess *s, lookup_maps_fn fn) {
    struct keys keys = {.n = 0};
    policy_keys(s, &keys);
    watch_ask(s, s->p->smtp_tls_policy_maps, &keys, fn);
    keys_clear(&keys);
}

/* Do the mail's author's wishes count, in place of what is configured? */
static bool is_relaxed(const struct dsess *s) {
    return s->tls_optional && session_target(s)->own_mx;
}

bool policy_is_asked(const struct dsess *s) {
    return !session_uses_record(s) && !is_relaxed(s) && s->p->smtp_tls_policy_maps[0] != '\0';
}

/* The mail's author wants it to arrive, whatever is asked of the recipient's own exchangers (RFC
 * 8689 section 5).  As Postfix: level may, and no table is asked. */
static enum step relaxed_policy(struct dsess *s) {
    enum tls_level *level = &s->policy.level;
    bool known = tls_level_parse(str_of(s->p->smtp_tls_security_level), level);
    s->tls_relaxed = !known || *level > LEVEL_MAY || s->p->smtp_tls_policy_maps[0] != '\0';
    if (!known || *level > LEVEL_MAY)
        *level = LEVEL_MAY;
    return STEP_DONE;
}

enum step policy_begin(struct dsess *s) {
    tls_policy_clear(&s->policy);
    s->tls_relaxed = false;
    if (session_uses_record(s))
        return record_policy(s);
    if (is_relaxed(s))
        return relaxed_policy(s);
    if (!tls_level_parse(str_of(s->p->smtp_tls_security_level), &s->policy.level))
        return host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.7.5",
                           "client TLS configuration problem: smtp_tls_security_level = %s",
                           s->p->smtp_tls_security_level);
    if (policy_is_asked(s)) {
        policy_ask(s, on_policy);
        return STEP_WAIT;
    }
    note_level(s, NULL, "smtp_tls_security_level");
    return STEP_DONE;
}
