/*
 * receive/access_list.c - the lists of restrictions: how one is read, and mistakes in them
 *
 * Any thread.  A list is read by the same code when the configuration is checked and when a client
 * is judged (access.c), so that the check sees what a run sees.  Nothing is allocated: what is read
 * points into the parameters.
 */
#include "receive/access_run.h"

#include "config/unread.h"

/* -- the words of a list -- */

_Static_assert((int)LISTS == (int)REFUSAL_LISTS, "each list of config/refusal.h is read");

struct access_reader access_list_open(const struct params *p, enum list list) {
    const char *const values[LISTS] = {
        p->smtpd_client_restrictions,     p->smtpd_helo_restrictions,
        p->smtpd_sender_restrictions,     p->smtpd_relay_restrictions,
        p->smtpd_recipient_restrictions,  p->smtpd_data_restrictions,
        p->smtpd_end_of_data_restrictions};
    return (struct access_reader){list, str_of(values[list])};
}

/* The restriction that a table without one stands for in the list, as in Postfix; NULL: it must
 * have one there. */
static const struct access_word *bare_table_word(enum list list) {
    static const char *const bare[LISTS] = {"check_client_access",
                                            "check_helo_access",
                                            "check_sender_access",
                                            "check_recipient_access",
                                            "check_recipient_access",
                                            NULL,
                                            NULL};
    return bare[list] == NULL ? NULL : access_word_find(str_of(bare[list]));
}

static bool list_word(struct access_reader *r, struct str *w) {
    return str_split_braces(&r->rest, ", \t\r\n", w);
}

bool access_item_next(struct access_reader *r, struct access_item *item) {
    *item = (struct access_item){.table = STR_NONE};
    do {
        item->warns = item->word != NULL;
        if (!list_word(r, &item->text))
            return false;
        item->word = access_word_find(item->text);
    } while (item->word != NULL && item->word->kind == WORD_WARN);
    const struct unread_word *unread = item->word == NULL ? unread_word_find(item->text) : NULL;
    item->is_unread = unread != NULL;
    if (item->word == NULL && map_looks_like(item->text)) {
        item->word = bare_table_word(r->list);
        item->table = item->text;
    } else if (item->word != NULL && item->word->kind == WORD_POLICY) {
        item->has_no_table = !list_word(r, &item->table);
    } else if (item->word != NULL ? item->word->kind == WORD_CHECK
                                  : unread != NULL && unread->argument) {
        item->has_no_table = !list_word(r, &item->table) || !map_looks_like(item->table);
    }
    return true;
}

bool access_may_be_inner(const struct access_item *item) {
    return item->word != NULL && item->table.n == 0 && !item->has_no_table &&
           item->word->kind != WORD_CHECK && item->word->kind != WORD_POLICY;
}

/* -- mistakes in a configuration -- */

struct str access_action_unknown(struct str value) {
    struct access_reader reader = {LIST_RECIPIENT, value};
    struct access_item item;
    struct str word = value, first = STR_NONE;
    if (access_action_is_one(value))
        return STR_NONE;
    if (value.n > ACCESS_INNER_MAX) {
        str_split(&word, " \t", &first);
        return first;
    }
    while (access_item_next(&reader, &item))
        if (!access_may_be_inner(&item))
            return item.text;
    return STR_NONE;
}

/* One without its table refuses all. */
static bool item_closes(const struct access_item *item) {
    return item->word != NULL && (item->has_no_table || access_word_closes(item->word));
}

/* Does the list end mail for strangers?  What stands behind a permit is never reached, and what
 * stands behind warn_if_reject refuses nothing. */
static bool list_closes(const struct service *svc, enum list list) {
    struct access_reader reader = access_list_open(&svc->p, list);
    struct access_item item;
    while (access_item_next(&reader, &item)) {
        if (item.word != NULL && item.word->kind == WORD_PERMIT)
            return false;
        if (!item.warns && item_closes(&item))
            return true;
    }
    return false;
}

static bool compares_logins(const struct service *svc, enum list list) {
    struct access_reader reader = access_list_open(&svc->p, list);
    struct access_item item;
    while (access_item_next(&reader, &item))
        if (item.word != NULL && access_word_compares_logins(item.word))
            return true;
    return false;
}

/* A service at the socket of a line of master.cf whose program Posthouse does not start (spawn). */
static void check_spawned(const struct config *cfg, const struct service *svc, enum list list,
                          struct str where, struct diags *d) {
    static const char private[] = "unix:private/";
    if (!str_istarts(where, private))
        return;
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *s = cfg->services[i];
        if (s->kind == SERVICE_UNUSED && !s->inet &&
            str_eq_c(str_from(where, sizeof private - 1), s->name))
            diag_add(
                d, DIAG_WARN, cfg->master_path, s->line,
                "%s: %s: check_policy_service %.*s: Posthouse has no \"%s\" and does not start "
                "that program: while nothing else has started it there, mail is put off, as "
                "smtpd_policy_service_default_action says",
                svc->name, refusal_lists[list], STR_FMT(where), s->command);
    }
}

/* What counts in place of an answer is an action as one is. */
static void check_default_action(const struct service *svc, enum list list, struct str server,
                                 struct diags *d) {
    struct str word = access_action_unknown(str_trim(access_policy_action(&svc->p, server)));
    if (word.n > 0)
        diag_add(
            d, DIAG_WARN, svc->line > 0 ? "master.cf" : NULL, svc->line,
            "%s: %s: check_policy_service %.*s: Posthouse has no action \"%.*s\", which counts "
            "where the service does not answer: mail is refused then, 451 4.3.5",
            svc->name, refusal_lists[list], STR_FMT(access_policy_where(server)), STR_FMT(word));
}

static void check_list(const struct config *cfg, const struct service *svc, enum list list,
                       enum diag_level waits, struct diags *d) {
    struct access_reader reader = access_list_open(&svc->p, list);
    struct access_item item;
    while (access_item_next(&reader, &item)) {
        if (item.is_unread) /* check names it, and its consequence, in another place */
            continue;
        if (item.word == NULL && item.table.n > 0)
            diag_add(d, DIAG_WARN, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: %s: a table needs a restriction before it: mail that comes to it is "
                     "refused, 451 4.3.5",
                     svc->name, refusal_lists[list]);
        else if (item.word == NULL)
            diag_add(d, waits, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: %s: unknown restriction \"%.*s\": mail that comes to it is refused, "
                     "451 4.3.5",
                     svc->name, refusal_lists[list], STR_FMT(item.text));
        else if (item.has_no_table)
            diag_add(d, DIAG_WARN, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: %s: %s needs a table: mail that comes to it is refused, 451 4.3.5",
                     svc->name, refusal_lists[list], item.word->name);
        else if (item.word->kind == WORD_POLICY && access_policy_bad(item.table) != NULL)
            diag_add(d, DIAG_WARN, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: %s: check_policy_service %.*s: %s: mail that comes to it is refused, "
                     "451 4.3.5",
                     svc->name, refusal_lists[list], STR_FMT(item.table),
                     access_policy_bad(item.table));
        else if (item.word->kind == WORD_POLICY) {
            check_spawned(cfg, svc, list, access_policy_where(item.table), d);
            check_default_action(svc, list, item.table, d);
        }
    }
}

void access_each_policy(const struct service *svc, void (*fn)(void *arg, struct str where),
                        void *arg) {
    struct access_item item;
    for (enum list list = LIST_CLIENT; list < LISTS; list++) {
        struct access_reader reader = access_list_open(&svc->p, list);
        while (access_item_next(&reader, &item))
            if (item.word != NULL && item.word->kind == WORD_POLICY && item.table.n > 0)
                fn(arg, access_policy_where(item.table));
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
                 "%s: %s compares senders with logins, but %s", svc->name, refusal_lists[list],
                 why);
}

void access_check(const struct config *cfg, const struct service *svc, enum diag_level waits,
                  struct diags *d) {
    for (enum list l = LIST_CLIENT; l < LISTS; l++)
        check_list(cfg, svc, l, waits, d);
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
