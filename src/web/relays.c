/*
 * web/relays.c - relay records and their health; see relays.h
 *
 * A record's password goes in and never comes out: what is shown is whether there is one.  Who
 * administers a domain sees and changes the records that the domain owns, and of the others not
 * even that they are there.
 */
#include "web/relays.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accounts/relays.h"
#include "accounts/values.h"
#include "daemon/uses.h"
#include "util/idn.h"
#include "util/log.h"
#include "util/mem.h"
#include "web/adminlog.h"
#include "web/crowd.h"
#include "web/daemon.h"
#include "web/owners.h"

#define NAME_TAKEN  "There is a relay record of that name already."
#define USERS_SHOWN 100U
/* Accounts on one list that are looked up in the store. */
#define LISTED_LOOKS 500U
/* Accounts that are looked through for those of one domain. */
#define USERS_READ 1000000U

static struct relays *open_records(struct req *r) {
    const struct params *p = &r->w->cfg->p;
    char *why = NULL;
    bool made;
    struct relays *rel = relays_open(p->relays_database, p->relays_key_file, false, &made, &why);
    if (rel == NULL) {
        log_warn("web", "relay records: %s", why);
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                   "The relay records cannot be opened: see the mail log of this server.");
    }
    free(why);
    return rel;
}

static json_t *record(const struct relay_fields *f) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:I, s:s}", "name",
                     json_text(f->name), "nexthop", json_text(f->nexthop), "for",
                     json_text(f->users), "hosts", json_text(f->hosts), "tls", json_text(f->tls),
                     "mechanisms", json_text(f->mechanisms), "user", json_text(f->user), "owner",
                     json_text(f->owner), "password_set", f->has_secret, "modified",
                     (json_int_t)f->modified, "version", f->version);
}

static void add_record(void *arg, const struct relay_fields *f) {
    json_array_append_new(arg, record(f));
}

/* May the one who asks see and change records of that owner? */
static bool owner_is_asking(struct req *r, const char *owner) {
    return r->who.global || (owner[0] != '\0' && owners_may_relay(r, owner));
}

/* An owner may have many records: it is looked up once. */
static void records_leave_own(struct req *r, json_t *list) {
    json_t *known = json_object();
    for (size_t i = json_array_size(list); i > 0; i--) {
        const char *owner = json_member(json_array_get(list, i - 1), "owner");
        if (json_object_get(known, owner) == NULL)
            json_object_set_new(known, owner, json_boolean(owner_is_asking(r, owner)));
        if (!json_is_true(json_object_get(known, owner)))
            json_array_remove(list, i - 1);
    }
    json_decref(known);
}

/* All records that the one who asks may see; NULL after a reply. */
static json_t *records(struct req *r) {
    json_t *list = json_array();
    char *why = NULL;
    struct relays *rel = open_records(r);
    bool ok = rel != NULL && relays_each(rel, add_record, list, &why);
    if (rel != NULL && !ok)
        reply_store_failed(r, why);
    relays_close(rel);
    if (ok)
        records_leave_own(r, list);
    if (ok)
        return list;
    json_decref(list);
    return NULL;
}

static bool records_belongs(json_t *hop, json_t *rec) {
    return strcmp(json_member(hop, "record"), json_member(rec, "name")) == 0;
}

static void health_forget(json_t *hop, const char *when, json_int_t since, const char *const *names,
                          size_t n) {
    if (json_integer_value(json_object_get(hop, when)) >= since)
        return;
    for (size_t i = 0; i < n; i++)
        json_object_del(hop, names[i]);
    json_object_del(hop, when);
}

/* What a hop says of a record, as a copy; NULL: nothing.  The daemon knows records by their names:
 * before a domain's was written its name may have been another domain's. */
static json_t *health_since(json_t *hop, json_t *rec) {
    static const char *const of_error[] = {"error", "dsn", "cause", "reply", "advice"};
    json_int_t since = json_integer_value(json_object_get(rec, "modified"));
    json_t *own = json_copy(hop);
    if (json_member(rec, "owner")[0] == '\0')
        return own;
    health_forget(own, "last_success", since, NULL, 0);
    health_forget(own, "last_failure", since, of_error, 5);
    if (json_object_get(own, "last_success") != NULL ||
        json_object_get(own, "last_failure") != NULL)
        return own;
    json_decref(own);
    return NULL;
}

/* A record may have been used under several next hops: the counts add up, and of errors the last
 * one counts, with all that is said of it. */
static json_t *health_of(json_t *hops, json_t *rec) {
    static const char *const sums[] = {"sent", "deferred", "bounced", "waiting"};
    static const char *const of_errors[] = {"cause", "reply", "advice"}; /* not every error's */
    json_t *all = json_object(), *hop;
    size_t i;
    json_array_foreach(hops, i, hop) {
        json_t *own = records_belongs(hop, rec) ? health_since(hop, rec) : NULL;
        if (own == NULL)
            continue;
        json_int_t had[4];
        for (size_t k = 0; k < 4; k++)
            had[k] = json_integer_value(json_object_get(all, sums[k]));
        for (size_t k = 0; json_object_get(own, "error") != NULL && k < 3; k++)
            json_object_del(all, of_errors[k]);
        json_object_update(all, own);
        for (size_t k = 0; k < 4; k++)
            json_object_set_new(
                all, sums[k],
                json_integer(had[k] + json_integer_value(json_object_get(own, sums[k]))));
        json_decref(own);
    }
    return all;
}

/* Adds that to what is told of the record.  When the record was written is not told. */
static void record_add_health(json_t *rec, json_t *hops) {
    json_object_set_new(rec, "health", health_of(hops, rec));
    json_object_del(rec, "modified");
}

/* The daemon's relay hosts; an empty array when it does not run: records can be seen without it. */
static json_t *hops(struct req *r) {
    json_t *list = daemon_ask(r->w, "relays"), *hop;
    size_t i;
    if (list == NULL)
        return json_array();
    json_array_foreach(list, i, hop) {
        daemon_add_advice(hop, hop);
    }
    return list;
}

/* The member of the counts for what accounts of a domain ("": all) name. */
static void uses_key(const char *domain, const char *value, struct sbuf *key) {
    if (domain[0] != '\0') {
        sbuf_add_ch(key, '@');
        idn_plain(str_of(domain), false, key);
        sbuf_add_ch(key, '\n');
    }
    idn_plain(str_trim(str_of(value)), false, key);
}

static json_int_t uses_counted(json_t *counts, const char *domain, const char *value) {
    struct sbuf key = {0};
    uses_key(domain, value, &key);
    json_int_t n = json_integer_value(json_object_getn(counts, key.p, key.n));
    sbuf_free(&key);
    return n;
}

static void uses_add(json_t *counts, const char *domain, const char *value, long accounts) {
    struct sbuf key = {0};
    json_int_t had = uses_counted(counts, domain, value);
    uses_key(domain, value, &key);
    json_object_setn_new(counts, key.p, key.n, json_integer(had + accounts));
    sbuf_free(&key);
}

static void add_count(void *arg, const char *domain, const char *value, long accounts) {
    uses_add(arg, "", value, accounts);
    if (domain[0] != '\0')
        uses_add(arg, domain, value, accounts);
}

/* How many accounts use a record; of a domain's own, those of the domain. */
static json_int_t uses_of(json_t *counts, json_t *rec) {
    const char *name = json_member(rec, "name"), *hop = json_member(rec, "nexthop");
    const char *owner = json_member(rec, "owner");
    json_int_t n = uses_counted(counts, owner, hop);
    return idn_same(str_of(name), str_of(hop), false) ? n : n + uses_counted(counts, owner, name);
}

/* Relay hosts that mail went to and that have no record. */
static json_t *others(json_t *hops) {
    json_t *list = json_array(), *hop;
    size_t i;
    json_array_foreach(hops, i, hop) {
        if (json_member(hop, "record")[0] == '\0')
            json_array_append(list, hop);
    }
    return list;
}

struct users_found {
    json_t *list;
    const char *owner; /* accounts of that domain alone; "": any */
};

static void add_user(void *arg, struct str account, struct str value) {
    struct users_found *f = arg;
    char *copy = str_dup(account);
    const char *at = strrchr(copy, '@');
    (void)value;
    if (f->owner[0] == '\0' || (at != NULL && idn_same(str_of(at + 1), str_of(f->owner), false) &&
                                json_array_size(f->list) <= USERS_SHOWN))
        json_array_append_new(f->list, json_text(copy));
    free(copy);
}

/* The first accounts that name a record of that owner, by its next hop (NULL: not asked) or its
 * name ("": not asked); NULL after a reply. */
static json_t *users_of(struct req *r, const char *name, const char *hop, const char *owner) {
    struct users_found f = {json_array(), owner};
    unsigned max = owner[0] == '\0' ? USERS_SHOWN + 1 : USERS_READ;
    char *why = NULL;
    enum store_rc rc = STORE_YES;
    if (hop != NULL)
        rc = store_relay_users(r->w->store, hop, max, add_user, &f, &why);
    if (rc != STORE_ERROR && name[0] != '\0' && (hop == NULL || strcasecmp(name, hop) != 0))
        rc = store_relay_users(r->w->store, name, max, add_user, &f, &why);
    if (rc != STORE_ERROR)
        return f.list;
    reply_store_failed(r, why);
    json_decref(f.list);
    return NULL;
}

/* Marks, for global administrators, the records of domains that the store does not have.  False
 * after a reply. */
static bool mark_orphans(struct req *r, json_t *list) {
    struct domains_look look = {.st = r->w->store};
    enum store_rc rc = STORE_YES;
    char *why = NULL;
    json_t *rec;
    size_t i;
    if (!r->who.global)
        return true;
    json_array_foreach(list, i, rec) {
        const char *owner = json_member(rec, "owner");
        if (owner[0] == '\0')
            continue;
        rc = domains_look_has(&look, owner, &why);
        if (rc == STORE_ERROR)
            break;
        if (rc == STORE_NO)
            json_object_set_new(rec, "orphan", json_true());
    }
    domains_look_end(&look);
    if (rc == STORE_ERROR)
        reply_store_failed(r, why);
    return rc != STORE_ERROR;
}

void relays_list(struct req *r) {
    json_t *list = records(r), *rec, *counts = json_object();
    char *why = NULL;
    size_t i;
    bool ok = list != NULL && mark_orphans(r, list);
    if (ok && store_relay_counts(r->w->store, add_count, counts, &why) == STORE_ERROR) {
        reply_store_failed(r, why);
        ok = false;
    }
    if (!ok) {
        json_decref(list);
        json_decref(counts);
        return;
    }
    json_t *known = hops(r);
    json_array_foreach(list, i, rec) {
        json_object_set_new(rec, "used_by", json_integer(uses_of(counts, rec)));
        record_add_health(rec, known);
    }
    reply_data(r, json_pack("{s:o, s:o, s:o}", "records", list, "others",
                            r->who.global ? others(known) : json_array(), "everybody",
                            json_text(r->who.global ? r->w->cfg->p.relayhost : "")));
    json_decref(known);
    json_decref(counts);
}

static json_t *record_find(json_t *list, const char *name) {
    size_t i;
    json_t *rec;
    json_array_foreach(list, i, rec) {
        if (strcmp(json_member(rec, "name"), name) == 0)
            return rec;
    }
    return NULL;
}

/* Names, for global administrators, those on the record's list that the store does not have: who
 * gets such a name later may use the record's login.  False after a reply. */
static bool record_add_unknown(struct req *r, json_t *rec) {
    struct domains_look look = {.st = r->w->store};
    struct str rest = str_of(r->who.global ? json_member(rec, "for") : ""), one;
    enum store_rc rc = STORE_YES;
    json_t *unknown = json_array();
    char *why = NULL;
    for (unsigned n = 0; rc != STORE_ERROR && n < LISTED_LOOKS && str_split(&rest, ", \t", &one);
         n++) {
        char *account = str_dup(one);
        if (strchr(account, '@') != NULL)
            rc = domains_look_has(&look, account + (account[0] == '@'), &why);
        if (rc == STORE_NO)
            json_array_append_new(unknown, json_text(account));
        rc = rc == STORE_NO ? STORE_YES : rc;
        free(account);
    }
    domains_look_end(&look);
    json_object_set_new(rec, "unknown", unknown);
    if (rc == STORE_ERROR)
        reply_store_failed(r, why);
    return rc != STORE_ERROR;
}

void relay_show(struct req *r) {
    json_t *list = records(r), *rec = record_find(list, r->arg);
    if (list == NULL)
        return;
    if (rec == NULL) {
        reply_fail(r, MHD_HTTP_NOT_FOUND, "There is no relay record of that name.");
    } else {
        json_t *known = hops(r);
        json_t *users = users_of(r, r->arg, json_member(rec, "nexthop"), json_member(rec, "owner"));
        if (users != NULL) {
            json_object_set_new(rec, "more_users",
                                json_boolean(json_array_size(users) > USERS_SHOWN));
            json_object_set_new(rec, "users", users);
            record_add_health(rec, known);
            if (record_add_unknown(r, rec))
                reply_data(r, json_incref(rec));
        }
        json_decref(known);
    }
    json_decref(list);
}

/* One at a time: the users of a record are read and written back, and it may be let to several
 * domains that are changed at once. */
static bool records_let(struct relays *rel, const char *name, const char *account, bool let,
                        char **why) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    bool ok = let ? relays_let(rel, name, account, why) : relays_unlet(rel, name, account, why);
    pthread_mutex_unlock(&lock);
    return ok;
}

struct letting {
    const char *account;
    json_t *names;
};

static void letting_take(void *arg, const struct relay_fields *f) {
    struct letting *l = arg;
    if (f->user[0] != '\0' && f->owner[0] == '\0' && strcmp(f->users, RELAY_EVERYBODY) != 0 &&
        relay_is_for(f, l->account))
        json_array_append_new(l->names, json_text(f->name));
}

json_t *relays_letting(struct req *r, const char *account) {
    const struct params *p = &r->w->cfg->p;
    struct letting l = {account, json_array()};
    char *why = NULL;
    bool made;
    struct relays *rel =
        r->who.global ? relays_open(p->relays_database, p->relays_key_file, false, &made, &why)
                      : NULL;
    if (rel != NULL)
        relays_each(rel, letting_take, &l, &why);
    relays_close(rel);
    free(why);
    return l.names;
}

/* account "": anybody's mail.  let: of relays_allow. */
static bool relays_may_name(struct req *r, struct str value, const char *account, char **let) {
    char *why = NULL, *name = NULL;
    struct relays *rel = open_records(r);
    enum relay_use use = rel == NULL ? RELAY_UNKNOWN : relays_use(rel, value, account, &name, &why);
    bool ok = use == RELAY_MAY || use == RELAY_NO_RECORD;
    bool lets = r->who.global && (r->who.scopes & SCOPE_RELAYS) != 0 && account[0] != '\0';
    if (use == RELAY_MAY_NOT && lets && (ok = records_let(rel, name, account, true, &why))) {
        adminlog(r, "update", "", "Update relay record: %s is for %s too.", name, account);
        *let = name, name = NULL;
    } else if (use == RELAY_MAY_NOT && !lets)
        reply_fail(r, MHD_HTTP_FORBIDDEN, "That relay host has an account, which is not for %s.%s",
                   account[0] == '\0' ? "mail from everybody" : account,
                   r->who.global ? "" : " Ask who administers this server.");
    else if (rel != NULL && !ok)
        reply_store_failed(r, why), why = NULL;
    relays_close(rel);
    free(name);
    free(why);
    return ok;
}

bool relays_allow(struct req *r, const char *value, const char *account, char **let) {
    *let = NULL;
    return value == NULL || value[0] == '\0' || relays_may_name(r, str_of(value), account, let);
}

void relays_take_back(struct req *r, const char *let, const char *account) {
    char *why = NULL;
    struct relays *rel = open_records(r);
    if (rel != NULL && records_let(rel, let, account, false, &why))
        adminlog(r, "update", "", "Update relay record: %s is not for %s.", let, account);
    else if (rel != NULL)
        log_error("web", "relay record %s stays for %s: %s", let, account, why);
    relays_close(rel);
    free(why);
}

bool relays_allow_transport(struct req *r, const char *value) {
    const char *colon = value == NULL ? NULL : strchr(value, ':');
    return colon == NULL || colon[1] == '\0' || relays_may_name(r, str_of(colon + 1), "", NULL);
}

/* False after a reply: a member that is no text or not known. */
static bool records_fields_of(struct req *r, struct relay_fields *f) {
    const char *version = NULL;
    const struct {
        const char *name;
        const char **at;
    } known[] = {{"nexthop", &f->nexthop},
                 {"for", &f->users},
                 {"hosts", &f->hosts},
                 {"tls", &f->tls},
                 {"mechanisms", &f->mechanisms},
                 {"user", &f->user},
                 {"password", &f->password},
                 {"version", &version},
                 {"owner", &f->owner}};
    const char *key;
    json_t *v;
    json_object_foreach(r->in, key, v) {
        size_t i = 0;
        while (i < 9 && strcmp(known[i].name, key) != 0)
            i++;
        if (i == 9 || (!json_is_string(v) && !json_is_null(v))) {
            reply_fail(r, MHD_HTTP_BAD_REQUEST,
                       i == 9 ? "A relay record has no %s." : "%s must be a text.", key);
            return false;
        }
        *known[i].at = json_string_value(v);
    }
    snprintf(f->version, sizeof f->version, "%s", version == NULL ? "" : version);
    if (f->password != NULL && f->password[0] == '\0')
        f->password = NULL; /* a form's empty field: it stays as it is */
    return true;
}

static struct relay_fields fields_in(json_t *rec) {
    return (struct relay_fields){.name = json_member(rec, "name"),
                                 .nexthop = json_member(rec, "nexthop"),
                                 .users = json_member(rec, "for"),
                                 .owner = json_member(rec, "owner")};
}

/* Has its next hop another record, that its mail would be sent by? */
static bool is_covered(json_t *list, json_t *rec) {
    struct relay_fields own = fields_in(rec);
    json_t *other;
    size_t i;
    json_array_foreach(list, i, other) {
        struct relay_fields f = fields_in(other);
        if (relay_covers(&f, &own))
            return true;
    }
    return false;
}

/* The places of main.cf and its tables that name a record, by its name ("": not asked) or its next
 * hop (NULL: not asked), before the accounts that do; of a domain's own record the domain's
 * accounts alone.  NULL after a reply. */
static json_t *places_of(struct req *r, const char *name, const char *own, const char *owner) {
    json_t *users = users_of(r, name, own, owner), *place;
    if (owner[0] != '\0')
        return users;
    json_t *hops = users == NULL ? NULL : helper_next_hops(r->w);
    const char *hop;
    if (users != NULL && hops == NULL) {
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "The configuration cannot be looked at.");
        json_decref(users);
        return NULL;
    }
    json_object_foreach(hops, hop, place) {
        if (uses_mean(str_of(hop), name, own))
            json_array_insert(users, 0, place);
    }
    json_decref(hops);
    return users;
}

static json_t *all_users_of(struct req *r, json_t *list, json_t *rec) {
    return places_of(r, json_member(rec, "name"),
                     is_covered(list, rec) ? NULL : json_member(rec, "nexthop"),
                     json_member(rec, "owner"));
}

/* What names the record by its next hop would lose it; false after a reply. */
static bool records_hop_may_change(struct req *r, struct relays *rel,
                                   const struct relay_fields *f) {
    char *old, *hop = relays_next_hop(rel, f, &old);
    bool ok = old == NULL || hop == NULL || strcmp(old, hop) == 0;
    json_t *list = ok ? NULL : records(r), *users = NULL, *rec = record_find(list, f->name);
    if (list != NULL && rec == NULL)
        ok = true; /* it is not there for the one who asks: relays_set says so */
    else if (list != NULL)
        users = places_of(r, "", is_covered(list, rec) ? NULL : old, json_member(rec, "owner"));
    if (users != NULL && json_array_size(users) == 0)
        ok = true;
    else if (users != NULL)
        reply_fail(r, MHD_HTTP_CONFLICT,
                   "%s names it by \"%s\", which would be \"%s\": change that first, or set \"%s\" "
                   "as the relayhost value that it is used for.",
                   json_string_value(json_array_get(users, 0)), old, hop, old);
    json_decref(users);
    json_decref(list);
    free(hop);
    free(old);
    return ok;
}

/* Whose record it is to be: *by, which the caller frees, is NULL for the server's administrator.
 * False after a reply. */
static bool owner_of_change(struct req *r, struct relay_fields *f, const char *had, char **by) {
    char *owner = mem_strdup(had != NULL ? had : f->owner == NULL ? "" : f->owner);
    bool moves = had != NULL && f->owner != NULL && !idn_same(str_of(f->owner), str_of(had), false);
    str_lower(owner, strlen(owner));
    *by = NULL;
    if (r->who.global) {
        free(owner);
        return true;
    }
    *by = owner;
    if (!moves && owner_is_asking(r, owner))
        return true;
    reply_fail(r, MHD_HTTP_FORBIDDEN,
               owner[0] == '\0' ? "The owner must be a domain that you administer."
                                : "Permission denied.");
    return false;
}

/* The records have been read: the administrator's next request need not wait for the daemon. */
static bool records_take_up(struct req *r) {
    if (r->turn)
        crowd_turn_end(r->who.admin);
    r->turn = false;
    return daemon_take_up(r, ASK_RELAYS);
}

void relay_change(struct req *r) {
    struct relay_fields f = {.name = r->arg, .fresh = strcmp(req_query(r, "new"), "yes") == 0};
    char *why = NULL, *by = NULL;
    json_t *list = records(r), *old = record_find(list, r->arg);
    if (list == NULL)
        return;
    bool there = old != NULL;
    char *had = there ? mem_strdup(json_member(old, "owner")) : NULL;
    json_decref(list);
    if (f.fresh && there) {
        free(had);
        reply_fail(r, MHD_HTTP_CONFLICT, NAME_TAKEN);
        return;
    }
    bool may = records_fields_of(r, &f) && owner_of_change(r, &f, had, &by);
    struct relays *rel = may ? open_records(r) : NULL;
    free(had);
    if (rel == NULL || !records_hop_may_change(r, rel, &f)) {
        relays_close(rel);
        free(by);
        return;
    }
    enum relays_rc rc = relays_set(rel, &f, by, &why);
    if (rc == RELAYS_DONE) {
        adminlog(r, there ? "update" : "create", by == NULL ? "" : by, "%s relay record: %s%s.",
                 there ? "Update" : "Create", r->arg,
                 f.password != NULL ? " (with a new password)" : "");
        if (records_take_up(r))
            reply_ok(r);
    } else if (rc == RELAYS_STALE) {
        reply_fail(r, MHD_HTTP_CONFLICT, f.fresh ? NAME_TAKEN : REPLY_STALE);
    } else {
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "%s", why);
    }
    relays_close(rel);
    free(why);
    free(by);
}

/* Mail of those that name the record would go on without its account: it must not be in use. */
void relay_delete(struct req *r) {
    char *why = NULL;
    json_t *list = records(r), *rec = record_find(list, r->arg);
    json_t *users = rec == NULL ? NULL : all_users_of(r, list, rec);
    size_t used = json_array_size(users);
    if (list != NULL && rec == NULL)
        reply_fail(r, MHD_HTTP_NOT_FOUND, "There is no relay record of that name.");
    if (used > 0)
        reply_fail(r, MHD_HTTP_CONFLICT,
                   "It is in use, by %s%s: give them another relay host first.",
                   json_string_value(json_array_get(users, 0)), used > 1 ? " and others" : "");
    struct relays *rel = users != NULL && used == 0 ? open_records(r) : NULL;
    const char *by = rec == NULL || r->who.global ? NULL : json_member(rec, "owner");
    if (rel != NULL && relays_delete(rel, r->arg, by, &why)) {
        adminlog(r, "delete", by == NULL ? "" : by, "Delete relay record: %s.", r->arg);
        if (records_take_up(r))
            reply_ok(r);
    } else if (rel != NULL) {
        reply_fail(r, MHD_HTTP_NOT_FOUND, "%s",
                   why == NULL ? "There is no relay record of that name." : why);
    }
    relays_close(rel);
    json_decref(users);
    json_decref(list);
    free(why);
}
