/*
 * daemon/unread_say.c - see unread_say.h; on the thread of the caller
 */
#include "daemon/unread_say.h"

#include <stdlib.h>
#include <string.h>

#include "config/unread.h"
#include "daemon/setting.h"
#include "mail/address.h"
#include "receive/access.h"
#include "util/str.h"

/* The lists of the services and, last, the one of sendmail's mail. */
static const struct refusals *list_at(const struct config *cfg, size_t i) {
    return i < cfg->n_services ? &cfg->services[i]->refusals : &cfg->refusals;
}

static bool refusal_is_same(const struct refusal *a, const struct refusal *b) {
    return strcmp(a->name, b->name) == 0 && a->line == b->line && a->own == b->own &&
           a->accepted == b->accepted;
}

static bool list_has(const struct refusals *list, const struct refusal *x) {
    for (size_t i = 0; i < list->n; i++)
        if (refusal_is_same(&list->v[i], x))
            return true;
    return false;
}

/* Was it said for an earlier list? */
static bool said_before(const struct config *cfg, size_t list, const struct refusal *x) {
    for (size_t i = 0; i < list; i++)
        if (list_has(list_at(cfg, i), x))
            return true;
    return false;
}

/* "smtp, submission and sendmail": every service that it is about. */
static void add_services(const struct config *cfg, const struct refusal *x, struct sbuf *out) {
    size_t n = 0;
    for (size_t i = 0; i <= cfg->n_services; i++)
        n += list_has(list_at(cfg, i), x);
    for (size_t i = 0; i <= cfg->n_services; i++) {
        if (!list_has(list_at(cfg, i), x))
            continue;
        sbuf_add_c(out, i == cfg->n_services ? "sendmail" : cfg->services[i]->name);
        n--;
        sbuf_add_c(out, n > 1 ? ", " : n == 1 ? " and " : "");
    }
}

static void refusal_say(const struct config *cfg, const struct refusal *x, enum diag_level refused,
                        struct diags *d) {
    struct sbuf services = {0};
    add_services(cfg, x, &services);
    if (x->accepted)
        diag_add(d, DIAG_WARN, x->file, x->line,
                 "not implemented, and accepted by accept_unimplemented: %s%s%s: %s",
                 x->list == NULL ? "" : x->list, x->list == NULL ? "" : ": ", x->name, x->text);
    else if (x->for_good)
        diag_add(d, refused, x->file, x->line, "%s: %s; so mail waits, and none is taken, by %s",
                 x->name, x->text, services.p);
    else
        diag_add(d, refused, x->file, x->line,
                 "not implemented: %s%s%s: %s; so mail waits, and none is taken, by %s; "
                 "\"accept_unimplemented = %s\" lets it pass",
                 x->list == NULL ? "" : x->list, x->list == NULL ? "" : ": ", x->name, x->text,
                 services.p, x->name);
    sbuf_free(&services);
}

static int accepted_line(const struct config *cfg) {
    const struct cfg_entry *e = cfg_file_find(&cfg->main, STR_LIT("accept_unimplemented"));
    return e == NULL ? 0 : e->line;
}

/* A configuration of an older Posthouse may say that it is left out: that is no mistake which keeps
 * the daemon from starting. */
static bool is_known(struct str name) {
    return param_find(name.p, name.n) != NULL || access_has_word(name);
}

static bool is_refused_somewhere(const struct config *cfg, struct str name) {
    for (size_t i = 0; i <= cfg->n_services; i++)
        for (size_t k = 0; k < list_at(cfg, i)->n; k++)
            if (str_eq_c(name, list_at(cfg, i)->v[k].name))
                return true;
    return false;
}

static void say_done(const struct config *cfg, struct diags *d) {
    struct str rest = str_of(cfg->p.accept_unimplemented), w;
    while (str_split(&rest, ", \t\r\n", &w))
        if (is_known(w) && !is_refused_somewhere(cfg, w))
            diag_add(d, DIAG_WARN, cfg->main.path, accepted_line(cfg),
                     "accept_unimplemented: %.*s is not left out any more: Posthouse does what it "
                     "says; take the name away",
                     STR_FMT(w));
}

void unread_say_refused(const struct config *cfg, enum diag_level refused, struct diags *d) {
    for (int accepted = 0; accepted <= 1; accepted++)
        for (size_t i = 0; i <= cfg->n_services; i++)
            for (size_t k = 0; k < list_at(cfg, i)->n; k++) {
                const struct refusal *x = &list_at(cfg, i)->v[k];
                if (x->accepted == (accepted == 1) && !said_before(cfg, i, x))
                    refusal_say(cfg, x, refused, d);
            }
    say_done(cfg, d);
}

void unread_each_refused(const struct config *cfg,
                         void (*fn)(void *arg, const struct refusal *x, const char *services),
                         void *arg) {
    for (size_t i = 0; i <= cfg->n_services; i++)
        for (size_t k = 0; k < list_at(cfg, i)->n; k++) {
            const struct refusal *x = &list_at(cfg, i)->v[k];
            struct sbuf services = {0};
            if (x->accepted || said_before(cfg, i, x))
                continue;
            add_services(cfg, x, &services);
            fn(arg, x, services.p);
            sbuf_free(&services);
        }
}

void unread_check_accepted(const struct config *cfg, struct diags *d) {
    struct str rest = str_of(cfg->p.accept_unimplemented), w;
    while (str_split(&rest, ", \t\r\n", &w))
        if (!refusals_may_have(w) && !is_known(w))
            diag_add(d, DIAG_ERROR, cfg->main.path, accepted_line(cfg),
                     "accept_unimplemented: %.*s is no parameter or restriction that Posthouse "
                     "leaves out",
                     STR_FMT(w));
}

/* -- what does no harm -- */

/* "foo_hosts" belongs to a table "mysql:foo". */
static bool names_table_part(const struct config *c, const char *name) {
    static const char *const types[] = {"mysql:", "pgsql:", "ldap:", "sqlite:"};
    for (const char *u = strchr(name, '_'); u != NULL; u = strchr(u + 1, '_'))
        for (size_t t = 0; t < 4; t++) {
            struct sbuf spec = {0};
            bool found = false;
            sbuf_printf(&spec, "%s%.*s", types[t], (int)(u - name), name);
            for (size_t i = 0; i < c->main.n && !found; i++)
                found = strstr(c->main.v[i].value, spec.p) != NULL;
            sbuf_free(&spec);
            if (found)
                return true;
        }
    return false;
}

/* Why main.cf's entry does no harm; NULL: it is read, refused, or not Postfix's. */
static const char *harmless_reason(const struct config *cfg, const struct cfg_entry *e) {
    const struct unread *u = unread_find(e->name);
    if (e->line == 0 || config_name_used(cfg, e->name) || u == NULL || u->where != UNREAD_NOWHERE)
        return NULL;
    return u->text;
}

/* What main.cf and the services set, one after the other; NULL at the end. */
static const struct cfg_entry *setting_at(const struct config *cfg, size_t at) {
    if (at < cfg->main.n)
        return &cfg->main.v[at];
    at -= cfg->main.n;
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        if (svc->kind == SERVICE_UNUSED)
            continue;
        if (at < svc->overrides.n)
            return &svc->overrides.v[at];
        at -= svc->overrides.n;
    }
    return NULL;
}

/* The names with the reason of the setting at, unless an earlier one had it; each name once. */
static void say_harmless(const struct config *cfg, size_t at, struct diags *d) {
    const char *why = harmless_reason(cfg, setting_at(cfg, at));
    struct sbuf names = {0};
    size_t n = 0;
    const struct cfg_entry *e;
    for (size_t i = 0; why != NULL && (e = setting_at(cfg, i)) != NULL; i++) {
        const char *other = harmless_reason(cfg, e);
        if (other == NULL || strcmp(other, why) != 0)
            continue;
        if (i < at)
            why = NULL;
        if (n > 0 && list_has_word(sbuf_str(&names), e->name))
            continue;
        sbuf_printf(&names, "%s%s", n++ > 0 ? ", " : "", e->name);
    }
    if (why != NULL)
        diag_add(d, DIAG_NOTE, at < cfg->main.n ? cfg->main.path : "master.cf", 0,
                 "harmless (%zu): %s: %s", n, why, names.p);
    sbuf_free(&names);
}

/* Restrictions without which less is permitted, each once. */
static void say_words(const struct config *cfg, const struct service *svc, const char *list,
                      struct sbuf *said, struct diags *d) {
    char *value = config_value(cfg, list, svc);
    for (struct str rest = str_of(value == NULL ? "" : value), w;
         str_split_braces(&rest, ", \t\r\n", &w);) {
        const struct unread_word *u = unread_word_find(w);
        if (u == NULL || u->refused || list_has_word(sbuf_str(said), u->name))
            continue;
        sbuf_printf(said, " %s", u->name);
        diag_add(d, DIAG_NOTE, svc->line > 0 ? "master.cf" : NULL, svc->line,
                 "harmless: %s: %s: %s", list, u->name, u->text);
    }
    free(value);
}

struct slip {
    const char *name;  /* as it is written */
    const char *meant; /* NULL: nothing is that like it */
};

static void slip_of_unread(void *arg, const struct unread_row *row) {
    struct slip *s = arg;
    if (s->meant == NULL && str_is_slip(str_of(s->name), str_of(row->name)))
        s->meant = row->name;
}

/* The parameter that a name which is none was meant for, or NULL. */
static const char *meant_by(const char *name) {
    struct slip s = {name, NULL};
    for (size_t i = 0; i < param_count && s.meant == NULL; i++)
        if (str_is_slip(str_of(name), str_of(param_table[i].name)))
            s.meant = param_table[i].name;
    if (s.meant == NULL)
        unread_each(slip_of_unread, &s);
    return s.meant;
}

/* The name is none. */
static void say_unused(const struct cfg_file *f, const struct cfg_entry *e, struct diags *d) {
    struct sbuf value = {0};
    const char *meant = meant_by(e->name);
    setting_show(e->name, e->value, &value);
    const char *shown = value.p == NULL ? "" : value.p;
    if (meant != NULL)
        diag_add(d, DIAG_WARN, f->path, e->line,
                 "unused parameter: %s=%s: there is none of that name; is %s meant?", e->name,
                 shown, meant);
    else if (!str_is_ascii(str_of(e->name)))
        diag_add(d, DIAG_WARN, f->path, e->line,
                 "unused parameter: %s=%s: its name has characters that no name has, such as "
                 "a byte order mark or a blank that does not break",
                 e->name, shown);
    else
        diag_add(d, DIAG_NOTE, f->path, e->line, "unused parameter: %s=%s", e->name, shown);
    sbuf_free(&value);
}

static void say_unknown(const struct config *cfg, const struct cfg_file *f, struct diags *d) {
    for (size_t i = 0; i < f->n; i++) {
        const struct cfg_entry *e = &f->v[i];
        if (e->line == 0 || config_name_used(cfg, e->name) || names_table_part(cfg, e->name) ||
            unread_find(e->name) != NULL)
            continue;
        say_unused(f, e, d);
    }
}

/* Does the schedule read it, which knows no services?  Postfix's queue manager is as deaf to an -o
 * of a client's line. */
static bool is_of_schedule(const char *name) {
    static const char *const times[] = {"minimal_backoff_time", "maximal_backoff_time",
                                        "queue_run_delay", "delay_warning_time",
                                        "defer_transports"};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        if (strcmp(times[i], name) == 0)
            return true;
    return strstr(name, "_destination_") != NULL;
}

static void say_deaf(const struct service *svc, struct diags *d) {
    for (size_t i = 0; i < svc->overrides.n; i++) {
        const struct cfg_entry *e = &svc->overrides.v[i];
        if (is_of_schedule(e->name))
            diag_add(d, DIAG_WARN, svc->overrides.path, e->line,
                     "%s: %s: the -o changes nothing, as in Postfix: only main.cf says it",
                     svc->name, e->name);
    }
}

void unread_say_rest(const struct config *cfg, struct diags *d) {
    for (size_t i = 0; setting_at(cfg, i) != NULL; i++)
        say_harmless(cfg, i, d);
    say_unknown(cfg, &cfg->main, d);
    struct sbuf said = {0};
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        if (svc->kind != SERVICE_UNUSED) {
            say_deaf(svc, d);
            say_unknown(cfg, &svc->overrides, d);
        }
        for (size_t k = 0; svc->kind == SERVICE_SMTPD && k < REFUSAL_LISTS; k++)
            say_words(cfg, svc, refusal_lists[k], &said, d);
    }
    sbuf_free(&said);
}
