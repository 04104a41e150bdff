/*
 * web/routes.c - paths and permissions; see routes.h
 *
 * web/openapi.json describes every route under /api; tests/web keeps the two equal.
 */
#include "web/routes.h"

#include <stdlib.h>
#include <string.h>

#include "util/mem.h"
#include "web/accounts.h"
#include "web/adminlog.h"
#include "web/assets.h"
#include "web/crowd.h"
#include "web/dashboard.h"
#include "web/queue.h"
#include "web/relays.h"
#include "web/runs.h"
#include "web/session.h"

static void openapi_show(struct req *r) {
    asset_reply(r, "/openapi.json");
}

static const struct route_entry {
    const char *method;
    const char *path; /* "{…}" at its end stands for the rest; see may_see */
    enum scope scope; /* what a token needs */
    bool global;      /* for administrators of everything only */
    void (*handler)(struct req *r);
} table[] = {
    {"GET", "/healthz", SCOPE_PUBLIC, false, health_show},
    {"GET", "/metrics", SCOPE_PUBLIC, false, metrics_show},
    {"GET", "/api/openapi.json", SCOPE_PUBLIC, false, openapi_show},
    {"POST", "/api/login", SCOPE_PUBLIC, false, session_login},
    {"POST", "/api/welcome", SCOPE_PUBLIC, false, session_welcome},
    {"POST", "/api/logout", SCOPE_ADMIN, false, session_logout},
    {"GET", "/api/session", SCOPE_READ, false, session_show},
    {"GET", "/api/domains", SCOPE_READ, false, domains_list},
    {"GET", "/api/domain/{domain}", SCOPE_READ, false, domain_show},
    {"PUT", "/api/domain/{domain}", SCOPE_ACCOUNTS, false, domain_change},
    {"GET", "/api/users/{domain}", SCOPE_READ, false, users_list},
    {"PUT", "/api/users/{domain}", SCOPE_ACCOUNTS, false, users_change},
    {"GET", "/api/user/{mail}", SCOPE_READ, false, user_show},
    {"PUT", "/api/user/{mail}", SCOPE_ACCOUNTS, false, user_change},
    {"GET", "/api/search", SCOPE_READ, false, accounts_search},
    {"GET", "/api/validate", SCOPE_READ, false, value_check},
    {"GET", "/api/effective", SCOPE_READ, false, relay_effective},
    {"GET", "/api/relays", SCOPE_READ, false, relays_list},
    {"GET", "/api/relay/{name}", SCOPE_READ, false, relay_show},
    {"PUT", "/api/relay/{name}", SCOPE_RELAYS, false, relay_change},
    {"DELETE", "/api/relay/{name}", SCOPE_RELAYS, false, relay_delete},
    {"GET", "/api/presets", SCOPE_READ, false, presets_list},
    {"POST", "/api/runs", SCOPE_TEST, false, run_start},
    {"GET", "/api/run/{id}", SCOPE_TEST, false, run_show},
    {"GET", "/api/queue", SCOPE_QUEUE, true, queue_list},
    {"GET", "/api/queue/counts", SCOPE_QUEUE, true, queue_counts},
    {"POST", "/api/queue/{action}", SCOPE_QUEUE, true, queue_act},
    {"GET", "/api/message/{id}", SCOPE_QUEUE, true, queue_show},
    {"GET", "/api/dashboard", SCOPE_READ, true, dashboard_show},
    {"GET", "/api/check", SCOPE_READ, true, check_show},
    {"GET", "/api/log", SCOPE_ADMIN, true, adminlog_list},
    {"GET", "/api/tokens", SCOPE_ADMIN, false, token_list},
    {"POST", "/api/tokens", SCOPE_ADMIN, false, token_add},
    {"DELETE", "/api/token/{id}", SCOPE_ADMIN, false, token_delete},
};

/* Does path fit the pattern?  *arg: what stands at its {…}, or NULL. */
static bool route_fits(const char *pattern, const char *path, const char **arg) {
    size_t fixed = strcspn(pattern, "{");
    *arg = NULL;
    if (pattern[fixed] == '\0')
        return strcmp(pattern, path) == 0;
    if (strncmp(pattern, path, fixed) != 0 || path[fixed] == '\0')
        return false;
    *arg = path + fixed;
    return true;
}

/* NULL after a reply. */
static const struct route_entry *route_find(struct req *r) {
    bool other = false;
    const char *arg;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (!route_fits(table[i].path, r->path, &arg))
            continue;
        other = true;
        if (strcmp(table[i].method, r->method) != 0)
            continue;
        if (arg != NULL)
            r->arg = mem_strdup(arg);
        return &table[i];
    }
    if (!other && strcmp(r->method, "GET") == 0 &&
        asset_reply(r, strcmp(r->path, "/") == 0 ? "/index.html" : r->path))
        return NULL;
    if (other)
        reply_fail(r, MHD_HTTP_METHOD_NOT_ALLOWED, "%s does not have the method %s.", r->path,
                   r->method);
    else
        reply_fail(r, MHD_HTTP_NOT_FOUND, "There is nothing here.");
    return NULL;
}

static bool route_allowed(struct req *r, const struct route_entry *e, bool changes) {
    if (e->scope == SCOPE_PUBLIC)
        return true;
    if (!session_identify(r) || (changes && !session_csrf_ok(r)))
        return false;
    if ((r->who.scopes & e->scope) != 0 && (r->who.global || !e->global))
        return true;
    reply_fail(r, MHD_HTTP_FORBIDDEN, "Permission denied.");
    return false;
}

/* The account in the path, {domain} or {mail}: whatever the handler does, its domain is one of the
 * administrator's, and what changes how it relays needs the Relay tab. */
static bool may_see(struct req *r, const struct route_entry *e) {
    bool domain = strstr(e->path, "{domain}") != NULL, mail = strstr(e->path, "{mail}") != NULL;
    bool of_domain = strncmp(e->path, "/api/domain/", 12) == 0;
    if (!domain && !mail)
        return true;
    return accounts_named(r, mail) && (e->scope != SCOPE_ACCOUNTS || accounts_tab(r, !of_domain));
}

static void refuse_crowd(struct req *r) {
    reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "You have too many requests at a time: try again.");
}

/* Does the handler read all relay records, or look through accounts?  Records may have megabytes; a
 * directory gives all users that fit, and is asked by mail, too. */
static bool route_is_large(const struct route_entry *e) {
    return e->handler == relays_list || e->handler == relay_show || e->handler == relay_change ||
           e->handler == relay_delete || e->handler == domains_list || e->handler == users_list ||
           e->handler == accounts_search;
}

/* For administrators of some domains. */
static void route_serve_bounded(struct req *r, const struct route_entry *e) {
    r->turn = route_is_large(e);
    if (r->turn)
        crowd_turn_begin(r->who.admin);
    if (may_see(r, e))
        e->handler(r);
    if (r->turn)
        crowd_turn_end(r->who.admin);
    if (r->reply_bytes <= CROWD_SMALL)
        return;
    if (crowd_answer(r->who.admin, r->reply_bytes))
        r->counted = r->reply_bytes;
    else
        refuse_crowd(r);
}

/* Administrators of some domains have their requests answered so many at a time. */
static void route_serve(struct req *r, const struct route_entry *e) {
    if (e->scope == SCOPE_PUBLIC || r->who.global) {
        if (may_see(r, e))
            e->handler(r);
    } else if (crowd_enter(r->who.admin)) {
        route_serve_bounded(r, e);
        crowd_leave(r->who.admin);
    } else {
        refuse_crowd(r);
    }
}

void routes_dispatch(struct req *r) {
    bool changes = strcmp(r->method, "GET") != 0;
    const struct route_entry *e = route_find(r);
    if (e != NULL && (!changes || session_origin_ok(r)) && route_allowed(r, e, changes))
        route_serve(r, e);
}
