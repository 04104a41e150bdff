/*
 * web/accounts.c - domains and users; see accounts.h
 *
 * PUT takes iRedAdmin-Pro's documented parameters that touch relaying (outboundRelay, transport,
 * is_backupmx, primarymx) and writes the rows or attributes that it writes.
 */
#include "web/accounts.h"

#include <stdlib.h>
#include <string.h>

#include "accounts/values.h"
#include "mail/address.h"
#include "route/nexthop.h"
#include "util/log.h"
#include "util/mem.h"
#include "web/adminlog.h"
#include "web/changing.h"
#include "web/daemon.h"
#include "web/owners.h"
#include "web/relays.h"
#include "web/session.h"
#include "web/steps.h"

#define PAGE     50U
#define PAGE_MAX 500U
#define FOUND    20U

#define IS_BACKUP_MX "This domain is a backup MX, can not set custom relay."

/* -- reading -- */

static void take_copy(void *arg, const struct account *a) {
    account_copy(arg, a);
}

/* False after a reply: there is none, or the store does not answer. */
static bool get(struct req *r, const char *name, struct account *c) {
    char *why = NULL;
    *c = (struct account){0};
    enum store_rc rc = store_account(r->w->store, name, take_copy, c, &why);
    if (rc == STORE_ERROR)
        reply_store_failed(r, why);
    else if (rc == STORE_NO)
        reply_fail(r, MHD_HTTP_NOT_FOUND, "Account does not exist.");
    return rc == STORE_YES;
}

static const char *domain_of(const char *account) {
    const char *at = strrchr(account, '@');
    return at == NULL ? account : at + 1;
}

bool accounts_named(struct req *r, bool user) {
    str_lower(r->arg, strlen(r->arg));
    struct str s = str_of(r->arg), domain = user ? addr_domain(s) : s;
    if (addr_valid_host(domain) && s.n <= VALUE_MAX && (!user || addr_local(s).n > 0))
        return session_may(r, domain_of(r->arg));
    reply_fail(r, MHD_HTTP_BAD_REQUEST, user ? "Invalid mail address." : "Invalid domain name.");
    return false;
}

/* False after a reply. */
static bool tab_may(struct req *r, const char *domain, bool users) {
    struct account dom;
    if (r->who.global)
        return true;
    if (!get(r, domain, &dom))
        return false;
    bool shown = owners_tab_shown(r, &dom, users);
    account_free(&dom);
    if (!shown)
        reply_fail(r, MHD_HTTP_FORBIDDEN, "Permission denied.");
    return shown;
}

bool accounts_tab(struct req *r, bool users) {
    return tab_may(r, domain_of(r->arg), users);
}

bool accounts_may(struct req *r, const char *account) {
    return r->who.global || (session_may(r, domain_of(account)) &&
                             tab_may(r, domain_of(account), strchr(account, '@') != NULL));
}

/* -- lists -- */

struct listing {
    json_t *list;
    unsigned limit;
    bool more, names_only;
    const struct req *r;
    const char *inherited; /* the domain's relay host, or NULL */
    bool hide_relay;       /* nothing of the Relay tab is in the rows */
    bool own_only;         /* inherited values are left out: the account's domain is not loaded */
};

/* What decides where its mail goes, as far as the store and relayhost say; the daemon's own word is
 * GET /api/effective. */
static json_t *relay_of(const struct listing *l, const struct account *a) {
    const char *everybody = l->r->w->cfg->p.relayhost;
    const char *value = a->relayhost, *from = "own";
    if (value == NULL && l->inherited != NULL) {
        value = l->inherited;
        from = "domain";
    } else if (value == NULL && everybody[0] != '\0') {
        value = everybody;
        from = "everybody";
    } else if (value == NULL) {
        value = "";
        from = "direct";
    }
    json_t *o = json_object();
    json_object_set_new(o, "value", json_text(value));
    json_object_set_new(o, "from", json_string(from));
    return o;
}

/* What the Relay tab has. */
static void row_add_relay(const struct listing *l, const struct account *a, json_t *o, bool user) {
    json_object_set_new(o, "transport", json_text(a->transport));
    if (!user)
        json_object_set_new(o, "is_backupmx", json_boolean(a->backup_mx));
    if (!l->own_only || a->relayhost != NULL)
        json_object_set_new(o, "relay", relay_of(l, a));
}

static void add_row(void *arg, const struct account *a) {
    struct listing *l = arg;
    if (json_array_size(l->list) >= l->limit) {
        l->more = true;
        return;
    }
    if (l->names_only) {
        json_array_append_new(l->list, json_text(a->name));
        return;
    }
    bool user = strchr(a->name, '@') != NULL;
    json_t *o = json_object(); /* not packed: a list has many */
    json_object_set_new(o, "name", json_text(a->name));
    json_object_set_new(o, "title", json_text(a->title));
    json_object_set_new(o, "active", json_boolean(a->active));
    if (!l->hide_relay && (user || owners_tab_shown(l->r, a, false)))
        row_add_relay(l, a, o, user);
    if (user)
        json_object_set_new(o, "admin", json_boolean(a->admin));
    if (a->users >= 0)
        json_object_set_new(o, "users", json_integer(a->users));
    json_array_append_new(l->list, o);
}

/* What a list is asked for (the limit is known); the caller frees *text. */
static struct browse browse_of(struct req *r, struct listing *l, char **text) {
    l->names_only = strcmp(req_query(r, "name_only"), "yes") == 0;
    l->list = json_array();
    l->r = r;
    *text = mem_strdup(req_query(r, "search"));
    str_lower(*text, strlen(*text));
    return (struct browse){.text = *text,
                           .after = req_query(r, "after"),
                           .limit = l->limit + 1,
                           .disabled_only = strcmp(req_query(r, "disabled_only"), "yes") == 0};
}

static void reply_list(struct req *r, struct listing *l, enum store_rc rc, char *why,
                       const char *name) {
    if (rc != STORE_ERROR) {
        reply_data(r, json_pack("{s:o, s:b}", name, l->list, "more", l->more));
        return;
    }
    json_decref(l->list);
    reply_store_failed(r, why);
}

void domains_list(struct req *r) {
    struct listing l = {.limit = PAGE};
    char *why = NULL, *text;
    if (!req_number(r, "limit", PAGE_MAX, &l.limit))
        return;
    struct browse b = browse_of(r, &l, &text);
    b.admin = session_lists(r);
    enum store_rc rc = STORE_YES;
    if (r->who.domain == NULL)
        rc = store_browse(r->w->store, &b, add_row, &l, &why);
    else if ((rc = session_manages(r, r->who.domain, &why)) == STORE_YES) /* a token for one */
        rc = store_account(r->w->store, r->who.domain, add_row, &l, &why);
    reply_list(r, &l, rc, why, "domains");
    free(text);
}

void users_list(struct req *r) {
    struct listing l = {.limit = PAGE};
    struct account dom;
    char *why = NULL, *text;
    if (!req_number(r, "limit", PAGE_MAX, &l.limit) || !get(r, r->arg, &dom))
        return;
    struct browse b = browse_of(r, &l, &text);
    b.domain = r->arg;
    l.inherited = dom.relayhost;
    l.hide_relay = !owners_tab_shown(r, &dom, true);
    enum store_rc rc = store_browse(r->w->store, &b, add_row, &l, &why);
    reply_list(r, &l, rc, why, "users");
    account_free(&dom);
    free(text);
}

void accounts_search(struct req *r) {
    struct listing domains = {.list = json_array(), .limit = FOUND, .r = r};
    struct listing users = {.list = json_array(),
                            .limit = FOUND,
                            .r = r,
                            .hide_relay = !r->who.global,
                            .own_only = true};
    char *why = NULL, *text = mem_strdup(req_query(r, "q"));
    str_lower(text, strlen(text));
    struct browse b = {.text = text, .after = "", .limit = FOUND + 1, .admin = session_lists(r)};
    enum store_rc rc = STORE_YES;
    if (text[0] != '\0' && r->who.domain == NULL)
        rc = store_browse(r->w->store, &b, add_row, &domains, &why);
    if (rc != STORE_ERROR && text[0] != '\0' && r->who.domain == NULL)
        rc = store_search(r->w->store, text, session_lists(r), FOUND + 1, add_row, &users, &why);
    if (rc == STORE_ERROR) {
        json_decref(domains.list);
        json_decref(users.list);
        reply_store_failed(r, why);
    } else {
        reply_data(r, json_pack("{s:o, s:o, s:b}", "domains", domains.list, "users", users.list,
                                "more", domains.more || users.more));
    }
    free(text);
}

/* -- profiles -- */

static bool is_backup_mx(const struct account *c) {
    return c->backup_mx && strncmp(c->transport, "relay:", 6) == 0;
}

/* Of what PUT changes. */
static void account_version(const struct account *c, char out[VALUE_VERSION]) {
    struct sbuf all = {0};
    sbuf_printf(&all, "%s\n%s\n%d%d%s", c->name, c->transport, c->backup_mx, c->relayhost != NULL,
                c->relayhost == NULL ? "" : c->relayhost);
    value_version(sbuf_str(&all), out);
    sbuf_free(&all);
}

static json_t *profile(const struct account *c) {
    char version[VALUE_VERSION];
    account_version(c, version);
    return json_pack("{s:o, s:o, s:s, s:s}", "name", json_text(c->name), "title",
                     json_text(c->title), "accountStatus", c->active ? "active" : "disabled",
                     "version", version);
}

static void add_relay_fields(struct req *r, json_t *o, const struct account *c) {
    struct sbuf account = {0};
    sbuf_printf(&account, "%s%s", strchr(c->name, '@') == NULL ? "@" : "", c->name);
    json_object_set_new(o, "transport", json_text(c->transport));
    json_object_set_new(o, "outboundRelay", json_text(c->relayhost == NULL ? "" : c->relayhost));
    json_object_set_new(o, "records", relays_letting(r, account.p));
    sbuf_free(&account);
}

void domain_show(struct req *r) {
    struct account c;
    if (!get(r, r->arg, &c))
        return;
    json_t *o = profile(&c);
    bool shown = owners_tab_shown(r, &c, false);
    json_object_set_new(o, "relay_tab", json_boolean(shown));
    json_object_set_new(o, "relay_tab_of_users", json_boolean(owners_tab_shown(r, &c, true)));
    if (shown) {
        add_relay_fields(r, o, &c);
        json_object_set_new(o, "is_backupmx", json_string(c.backup_mx ? "yes" : "no"));
        json_object_set_new(o, "primarymx", json_text(is_backup_mx(&c) ? c.transport + 6 : ""));
        json_object_set_new(o, "default_transport", json_text(r->w->cfg->p.web_default_transport));
    }
    reply_data(r, o);
    account_free(&c);
}

void user_show(struct req *r) {
    struct account c, dom;
    if (!get(r, r->arg, &c))
        return;
    if (!get(r, domain_of(r->arg), &dom)) {
        account_free(&c);
        return;
    }
    json_t *o = profile(&c);
    bool shown = owners_tab_shown(r, &dom, true);
    json_object_set_new(o, "domain", json_text(dom.name));
    json_object_set_new(o, "admin", json_boolean(c.admin));
    json_object_set_new(o, "relay_tab", json_boolean(shown));
    if (shown) {
        add_relay_fields(r, o, &c);
        json_object_set_new(o, "domain_transport", json_text(dom.transport));
        json_object_set_new(o, "domain_outboundRelay",
                            json_text(dom.relayhost == NULL ? "" : dom.relayhost));
    }
    reply_data(r, o);
    account_free(&c);
    account_free(&dom);
}

/* -- changing -- */

/* False after a reply that names the parameter that is not one of names. */
static bool change_only(struct req *r, const char *const *names) {
    const char *key;
    json_t *v;
    json_object_foreach(r->in, key, v) {
        size_t i = 0;
        while (names[i] != NULL && strcmp(names[i], key) != 0)
            i++;
        if (names[i] == NULL || !json_is_string(v)) {
            reply_fail(r, MHD_HTTP_BAD_REQUEST,
                       names[i] == NULL ? "Posthouse does not change %s here, only what relaying "
                                          "needs."
                                        : "%s must be a text.",
                       key);
            return false;
        }
    }
    return true;
}

static bool bad_value(struct req *r, const char *name, struct str bad, const char *why) {
    if (why != NULL)
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "%s: \"%.*s\": %s", name, STR_FMT(bad), why);
    return why != NULL;
}

/* False after a reply.  An empty value is always good: it takes the setting away. */
static bool change_values_ok(struct req *r) {
    struct str bad = STR_LIT("");
    const char *out = req_text(r, "outboundRelay"), *in = req_text(r, "transport");
    const char *mx = req_text(r, "primarymx"), *flag = req_text(r, "is_backupmx");
    if (out != NULL && out[0] != '\0' &&
        bad_value(r, "outboundRelay", bad, value_relayhost_bad(str_of(out), &bad)))
        return false;
    if (in != NULL && in[0] != '\0' &&
        bad_value(r, "transport", bad, value_transport_bad(str_of(in), &bad)))
        return false;
    if (mx != NULL && mx[0] != '\0' &&
        bad_value(r, "primarymx", bad,
                  strlen(mx) > VALUE_MAX - 6 ? "too long" : nexthop_check(str_of(mx), &bad)))
        return false;
    if (flag != NULL && strcmp(flag, "yes") != 0 && strcmp(flag, "no") != 0) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "is_backupmx is yes or no.");
        return false;
    }
    return true;
}

/* What a domain's parameters ask for; transport in *made when it is built here.  False after a
 * reply. */
static bool plan_domain(struct req *r, const struct account *c, struct account_change *plan,
                        char **made) {
    const char *in = req_text(r, "transport"), *mx = req_text(r, "primarymx");
    const char *flag = req_text(r, "is_backupmx");
    const char *usual = r->w->cfg->p.web_default_transport;
    bool stays = flag == NULL ? c->backup_mx : strcmp(flag, "yes") == 0;
    struct sbuf b = {0};
    *plan = (struct account_change){.backup_mx = flag == NULL ? -1 : stays,
                                    .relayhost = req_text(r, "outboundRelay")};
    if (mx != NULL && mx[0] != '\0' && (in != NULL || !stays)) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST,
                   in != NULL ? "primarymx and transport exclude each other."
                              : "primarymx is for a backup MX: is_backupmx=yes.");
        return false;
    }
    if (in != NULL && stays && is_backup_mx(c) && strcmp(in, c->transport) != 0) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST, IS_BACKUP_MX);
        return false;
    }
    if (mx != NULL && mx[0] != '\0') {
        sbuf_printf(&b, "relay:%s", mx);
        plan->transport = *made = sbuf_take(&b);
    } else if (in != NULL) {
        plan->transport = in[0] == '\0' ? usual : in;
    } else if (!stays && is_backup_mx(c)) {
        plan->transport = usual;
    }
    return true;
}

/* False after a reply that says what went wrong. */
static bool change_made(struct req *r, enum store_rc rc, char *why, const char *kind,
                        const char *account) {
    if (rc == STORE_YES)
        adminlog(r, "update", account, "Update %s profile: %s (relay).", kind, account);
    else if (rc == STORE_NO)
        reply_fail(r, MHD_HTTP_NOT_FOUND, "Account does not exist.");
    else
        reply_store_failed(r, why);
    return rc == STORE_YES;
}

/* A change of an account, or of all users of a domain. */
struct change {
    struct account was;
    struct changing turn;
};

/* Is the account still what it was when the administrator read it?  False after a reply. */
static bool change_is_fresh(struct req *r, const struct account *c) {
    const char *read = req_text(r, "version");
    char version[VALUE_VERSION];
    account_version(c, version);
    bool fresh = read == NULL || read[0] == '\0' || strcmp(read, version) == 0;
    if (!fresh)
        reply_fail(r, MHD_HTTP_CONFLICT, REPLY_STALE);
    return fresh;
}

/* Checks what is asked for and takes the account that it is asked of, and keeps others from
 * changing it until change_end.  False after a reply, with nothing to end. */
static bool change_begin(struct req *r, const char *const *names, bool users, struct change *c) {
    *c = (struct change){.turn = {.domain = domain_of(r->arg), .users = users}};
    if (!change_only(r, names) || !change_values_ok(r) || !changing_begin(r, &c->turn))
        return false;
    if (get(r, r->arg, &c->was)) {
        if (change_is_fresh(r, &c->was))
            return true;
        account_free(&c->was);
    }
    changing_end(&c->turn);
    return false;
}

/* made: something was written; others write while the daemon takes it up. */
static void change_end(struct req *r, struct change *c, bool made) {
    changing_end(&c->turn);
    account_free(&c->was);
    if (made && daemon_take_up(r, ASK_STORE))
        reply_ok(r);
}

static bool is_changed(const char *value, const char *was) {
    return value != NULL && (was == NULL || strcmp(value, was) != 0);
}

/* Neither of the two may be another's relay record.  False after a reply.  let: of relays_allow. */
static bool change_allowed(struct req *r, const struct account *c, const char *transport,
                           const char *account, char **let) {
    const char *out = req_text(r, "outboundRelay");
    *let = NULL;
    return (!is_changed(transport, c->transport) || relays_allow_transport(r, transport)) &&
           (!is_changed(out, c->relayhost) || relays_allow(r, out, account, let));
}

/* Has the account what the plan asks for?  The answer to a change that is done may be lost. */
static bool is_as_planned(struct req *r, const struct account_change *plan) {
    struct account now = {0};
    char *why = NULL;
    bool is = store_account(r->w->store, r->arg, take_copy, &now, &why) == STORE_YES &&
              !is_changed(plan->transport, now.transport == NULL ? "" : now.transport) &&
              (plan->backup_mx < 0 || (plan->backup_mx > 0) == now.backup_mx) &&
              !is_changed(plan->relayhost, now.relayhost == NULL ? "" : now.relayhost);
    account_free(&now);
    free(why);
    return is;
}

/* Writes the plan; account is the name that the store has its relay host by.  False after a reply.
 */
static bool change_write(struct req *r, const struct account *c, const struct account_change *plan,
                         const char *account, const char *kind) {
    char *why = NULL, *let;
    if (!change_allowed(r, c, plan->transport, account, &let))
        return false;
    enum store_rc rc = store_change(r->w->store, r->arg, plan, &why);
    if (rc == STORE_ERROR && is_as_planned(r, plan)) {
        free(why);
        rc = STORE_YES;
    }
    if (rc != STORE_YES && let != NULL)
        relays_take_back(r, let, account);
    free(let);
    return change_made(r, rc, why, kind, r->arg);
}

void domain_change(struct req *r) {
    static const char *const names[] = {"outboundRelay", "transport", "is_backupmx",
                                        "primarymx",     "version",   NULL};
    struct change c;
    struct account_change plan;
    char *made = NULL;
    struct sbuf account = {0};
    if (!change_begin(r, names, false, &c))
        return;
    sbuf_printf(&account, "@%s", r->arg);
    bool written =
        plan_domain(r, &c.was, &plan, &made) && change_write(r, &c.was, &plan, account.p, "domain");
    sbuf_free(&account);
    free(made);
    change_end(r, &c, written);
}

void user_change(struct req *r) {
    static const char *const names[] = {"outboundRelay", "transport", "version", NULL};
    struct change c;
    if (!change_begin(r, names, false, &c))
        return;
    struct account_change plan = {req_text(r, "transport"), -1, req_text(r, "outboundRelay")};
    change_end(r, &c, change_write(r, &c.was, &plan, r->arg, "user"));
}

/* All users of a domain at once, as iRedAdmin-Pro has it. */
void users_change(struct req *r) {
    static const char *const names[] = {"transport", NULL};
    struct change c;
    struct sbuf all = {0};
    char *why = NULL;
    bool made = false;
    if (!change_begin(r, names, true, &c))
        return;
    struct account_change plan = {req_text(r, "transport"), -1, NULL};
    if (plan.transport == NULL) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "transport is needed.");
    } else if (relays_allow_transport(r, plan.transport)) {
        sbuf_printf(&all, "@%s", r->arg);
        enum store_rc rc = store_change(r->w->store, all.p, &plan, &why);
        made = change_made(r, rc, why, "users of domain", r->arg);
    }
    sbuf_free(&all);
    change_end(r, &c, made);
}

/* -- what is typed, and what will happen -- */

void value_check(struct req *r) {
    const char *kind = req_query(r, "kind"), *v = req_query(r, "value"), *why = NULL;
    struct str bad = STR_LIT("");
    if (strcmp(kind, "outboundRelay") == 0)
        why = v[0] == '\0' ? NULL : value_relayhost_bad(str_of(v), &bad);
    else if (strcmp(kind, "transport") == 0)
        why = v[0] == '\0' ? NULL : value_transport_bad(str_of(v), &bad);
    else if (strcmp(kind, "hosts") == 0)
        why = nexthop_check(str_of(v), &bad);
    else
        why = "kind is outboundRelay, transport or hosts";
    struct sbuf b = {0};
    sbuf_add_safe(&b, bad);
    reply_data(r, json_pack("{s:b, s:o, s:o}", "valid", why == NULL, "problem",
                            json_text(why == NULL ? "" : why), "part",
                            json_text(why == NULL || b.p == NULL ? "" : b.p)));
    sbuf_free(&b);
}

/* The key that a table answered for, or "". */
static const char *found_key(json_t *step) {
    size_t i;
    json_t *a;
    json_array_foreach(json_object_get(step, "asked"), i, a) {
        if (strcmp(json_member(a, "answer"), "found") == 0)
            return json_member(a, "key");
    }
    return "";
}

/* steps: with the keys that were asked; seen: as the administrator may see them. */
static json_t *summary(json_t *steps, json_t *seen) {
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "rule", "", "key", "", "next_hop",
                          "", "transport", "", "credentials", "", "tls", "", "problem", "");
    size_t i;
    json_t *s;
    json_array_foreach(seen, i, s) {
        const char *step = json_member(s, "step"), *key = found_key(json_array_get(steps, i));
        if (strcmp(step, "route") == 0) {
            json_object_set(o, "rule", json_object_get(s, "rule"));
            json_object_set(o, "next_hop", json_object_get(s, "next_hop"));
            json_object_set(o, "transport", json_object_get(s, "transport"));
        } else if (strstr(step, "_maps") != NULL && key[0] != '\0') {
            json_object_set_new(o, "key", json_text(key));
        } else if (strcmp(step, "credentials") == 0 || strcmp(step, "tls policy") == 0) {
            json_object_set(o, step[0] == 't' ? "tls" : "credentials",
                            json_object_get(s, "result"));
        }
        if (json_is_false(json_object_get(s, "pass")))
            json_object_set(o, "problem", json_object_get(s, "result"));
    }
    return o;
}

void relay_effective(struct req *r) {
    char *account = mem_strdup(req_query(r, "account"));
    struct sbuf sender = {0};
    str_lower(account, strlen(account));
    if (!addr_valid_host(str_of(domain_of(account))) || strlen(account) > VALUE_MAX) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "account is a domain or user@domain.");
    } else if (accounts_may(r, account)) {
        /* Of a domain: what holds for users without a row of their own. */
        sbuf_printf(&sender, "%s%s", strchr(account, '@') == NULL ? "any-user@" : "", account);
        json_t *steps = daemon_lines(
            r, json_pack("{s:s, s:o}", "cmd", "explain", "sender", json_text(sender.p)), NULL);
        json_t *seen = steps == NULL ? NULL : steps_all_shown(steps, r->who.global);
        if (steps != NULL)
            reply_data(r, summary(steps, seen));
        json_decref(seen);
        json_decref(steps);
    }
    sbuf_free(&sender);
    free(account);
}
