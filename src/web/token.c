/*
 * web/token.c - bearer tokens of limited scope; see session.h
 *
 * A token acts for the administrator that made it, as far as its scopes and its domain go, and as
 * long as that very account is an administrator's.  It is shown once.
 */
#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "util/mem.h"
#include "web/adminlog.h"
#include "web/session.h"
#include "web/token.h"

#define DAYS_MAX   3650
#define TOKENS_OWN 1000 /* of one administrator of some domains */

static void add_token(void *arg, sqlite3_stmt *row) {
    json_array_append_new(arg, json_pack("{s:I, s:o, s:o, s:o, s:o, s:I, s:I, s:I}", "id",
                                         (json_int_t)sqlite3_column_int64(row, 0), "name",
                                         json_text(state_text(row, 1)), "scopes",
                                         json_text(state_text(row, 2)), "domain",
                                         json_text(state_text(row, 3)), "admin",
                                         json_text(state_text(row, 4)), "created",
                                         (json_int_t)sqlite3_column_int64(row, 5), "expires",
                                         (json_int_t)sqlite3_column_int64(row, 6), "used",
                                         (json_int_t)sqlite3_column_int64(row, 7)));
}

void token_list(struct req *r) {
    json_t *list = json_array();
    state_run(r->w->state, add_token, list,
              "SELECT id, name, scopes, domain, admin, created, expires, used FROM token WHERE "
              "admin = ? ORDER BY id",
              "s", r->who.admin);
    reply_data(r, list);
}

/* What is wrong with what is asked for, or NULL. */
static const char *token_check(const char *name, const char *list, const char *domain) {
    struct str rest = str_of(list == NULL ? "" : list), one;
    if (name == NULL || name[0] == '\0' || strlen(name) > 100 || str_has_control(str_of(name)))
        return "A token needs a name of at most 100 characters.";
    if (token_scopes(list == NULL ? "" : list) == 0)
        return "A token needs scopes: read, accounts, relays, queue, test, metrics.";
    while (str_split(&rest, ", ", &one))
        if (scope_named(one) == 0)
            return "Unknown scope: there are read, accounts, relays, queue, test, metrics.";
    if (domain[0] != '\0' && !addr_valid_host(str_of(domain)))
        return "Invalid domain name.";
    return NULL;
}

/* domain: in lower case, as the store has it. */
static void token_make(struct req *r, const char *name, const char *list, const char *domain,
                       int64_t days) {
    char secret[SECRET_TEXT], hash[HASH_TEXT], shown[SECRET_TEXT + 4];
    secret_new(secret);
    snprintf(shown, sizeof shown, "ph_%s", secret);
    secret_hash(shown, hash);
    int rc = state_run(
        r->w->state, NULL, NULL,
        "INSERT INTO token (name, hash, scopes, domain, admin, created, expires, "
        "born) SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE ? OR (SELECT COUNT(*) FROM token WHERE "
        "admin = ?) < ?",
        "sssssiisisi", name, hash, list, domain, r->who.admin, now_s(),
        (int64_t)(days == 0 ? 0 : now_s() + days * 86400), r->who.is.born, (int64_t)r->who.global,
        r->who.admin, (int64_t)TOKENS_OWN);
    if (rc == 0) {
        reply_fail(r, MHD_HTTP_CONFLICT, "You have %d tokens: delete some first.", TOKENS_OWN);
    } else if (rc != 1) {
        reply_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "The token cannot be kept.");
    } else {
        adminlog(r, "create", domain, "Create API token: %s (%s).", name, list);
        reply_data(r, json_pack("{s:s}", "token", shown));
    }
    mem_wipe(secret, sizeof secret);
    mem_wipe(shown, sizeof shown);
}

void token_add(struct req *r) {
    const char *name = req_text(r, "name"), *list = req_text(r, "scopes");
    const char *given = req_text(r, "domain");
    int64_t days = 0; /* for ever */
    char *domain = mem_strdup(given == NULL ? "" : given);
    str_lower(domain, strlen(domain));
    const char *why = token_check(name, list, domain);
    if (why != NULL)
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "%s", why);
    else if (req_integer(r, "days", 0, DAYS_MAX, &days) &&
             (domain[0] == '\0' || session_may(r, domain)))
        token_make(r, name, list, domain, days);
    free(domain);
}

void token_delete(struct req *r) {
    if (state_run(r->w->state, NULL, NULL, "DELETE FROM token WHERE id = ? AND admin = ?", "ss",
                  r->arg, r->who.admin) != 1) {
        reply_fail(r, MHD_HTTP_NOT_FOUND, "There is no such token.");
        return;
    }
    adminlog(r, "delete", "", "Delete API token: %s.", r->arg);
    reply_ok(r);
}
