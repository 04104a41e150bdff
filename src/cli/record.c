/*
 * cli/record.c - posthouse record: relay records, each with hosts, TLS mode and account in one
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accounts/browse.h"
#include "accounts/relays.h"
#include "cli/cli.h"
#include "daemon/audit.h"
#include "daemon/uses.h"
#include "util/mem.h"

static int record_usage(void) {
    fputs("usage: posthouse record list [--json]\n"
          "       posthouse record set NAME [hosts=[HOST]:PORT,…] [nexthop=TEXT] [for=ACCOUNT]\n"
          "                 [owner=DOMAIN] [tls=none|may|encrypt|verify|secure] [mechanisms=WORDS] "
          "[user=NAME] "
          "[password]\n"
          "       posthouse record delete NAME\n"
          "A record is used for the relayhost value nexthop (by default its hosts), or its name.\n"
          "for: everybody, or user@domain and @domain with commas between; by default, if it has\n"
          "an account, only mail whose next hop main.cf itself names, or a table in a file, for\n"
          "which main.cf stands in a list with others.\n"
          "owner: the domain whose record it is: for mail of that domain alone, and its\n"
          "administrators see and change it on the page; without one it is the server's.  A\n"
          "domain's record is changed with its owner alone, owner= makes it the server's.\n"
          "password: read from standard input.\n",
          stderr);
    return EX_USAGE_;
}

static void put_member(struct sbuf *b, const char *name, const char *value, bool first) {
    sbuf_printf(b, "%s\"%s\": ", first ? "{" : ", ", name);
    sbuf_add_json(b, str_of(value));
}

static void put_field(const char *label, const char *value, const char *more) {
    printf("  %-10s  ", label);
    cli_put_safe(value);
    puts(more);
}

static void print_record(void *arg, const struct relay_fields *f) {
    struct sbuf b = {0};
    if (!*(bool *)arg) {
        cli_put_safe(f->name);
        putchar('\n');
        put_field("relayhost", f->nexthop, "");
        put_field("for", f->users[0] == '\0' ? "what main.cf names" : f->users, "");
        put_field("hosts", f->hosts, "");
        put_field("TLS", f->tls, "");
        if (f->mechanisms[0] != '\0')
            put_field("mechanisms", f->mechanisms, "");
        if (f->owner[0] != '\0')
            put_field("owner", f->owner, "");
        put_field("account", f->user[0] != '\0' ? f->user : "none",
                  f->has_secret ? " (password set)" : "");
        return;
    }
    put_member(&b, "name", f->name, true);
    put_member(&b, "nexthop", f->nexthop, false);
    put_member(&b, "for", f->users, false);
    put_member(&b, "hosts", f->hosts, false);
    put_member(&b, "tls", f->tls, false);
    put_member(&b, "mechanisms", f->mechanisms, false);
    put_member(&b, "user", f->user, false);
    put_member(&b, "owner", f->owner, false);
    sbuf_printf(&b, ", \"password_set\": %s}", f->has_secret ? "true" : "false");
    puts(b.p);
    sbuf_free(&b);
}

static int failed(char *why, const char *otherwise) {
    fprintf(stderr, "posthouse: %s\n", why != NULL ? why : otherwise);
    free(why);
    return 1;
}

/* "hosts=…" and so on; false after saying what is wrong. */
static bool take_words(int argc, char **argv, struct relay_fields *f, bool *password) {
    struct {
        const char *word;
        const char **at;
    } known[] = {{"hosts", &f->hosts}, {"nexthop", &f->nexthop},       {"for", &f->users},
                 {"tls", &f->tls},     {"mechanisms", &f->mechanisms}, {"user", &f->user},
                 {"owner", &f->owner}};
    for (int i = 3; i < argc; i++) {
        const char *eq = strchr(argv[i], '=');
        size_t k = 0;
        if (strcmp(argv[i], "password") == 0) {
            *password = true;
            continue;
        }
        while (k < 7 && (eq == NULL || strlen(known[k].word) != (size_t)(eq - argv[i]) ||
                         strncmp(argv[i], known[k].word, strlen(known[k].word)) != 0))
            k++;
        if (k == 7) {
            fprintf(stderr, "posthouse: unknown word \"%s\"\n", argv[i]);
            return false;
        }
        *known[k].at = eq + 1;
    }
    return true;
}

/* -- who uses a record -- */

struct wanted {
    const char *name; /* of the record that is to be deleted; "": its next hop alone is to change */
    char *hop;        /* its next hop; NULL: there is none of that name */
    char *users;      /* who may use it */
    char *owner;      /* the domain that the record belongs to, or "" */
    bool covered;     /* its next hop means another record as well */
    char *by;         /* the first place or account that names it; NULL: not in use */
};

static void take_hop(void *arg, const struct relay_fields *f) {
    struct wanted *w = arg;
    if (strcmp(f->name, w->name) != 0 || w->hop != NULL)
        return;
    w->hop = mem_strdup(f->nexthop);
    w->users = mem_strdup(f->users);
    w->owner = mem_strdup(f->owner);
}

static void take_cover(void *arg, const struct relay_fields *f) {
    struct wanted *w = arg;
    struct relay_fields own = {
        .name = w->name, .nexthop = w->hop, .users = w->users, .owner = w->owner};
    w->covered = w->covered || relay_covers(f, &own);
}

static void take_place(void *arg, struct str hop, const char *where) {
    struct wanted *w = arg;
    if (w->by == NULL && uses_mean(hop, w->name, w->covered ? NULL : w->hop))
        w->by = mem_strdup(where);
}

static void record_take_account(void *arg, struct str account, struct str value) {
    struct wanted *w = arg;
    (void)value;
    if (w->by == NULL)
        w->by = str_dup(account);
}

/* False: the store of accounts cannot be asked (*why). */
static bool find_users(const struct config *cfg, struct wanted *w, char **why) {
    enum store_rc rc = STORE_YES;
    audit_tables_of(cfg);
    uses_each(cfg, take_place, w);
    audit_tables_of(NULL);
    if (w->by != NULL || cfg->p.accounts_store[0] == '\0')
        return true;
    struct store *st = store_open(cfg->p.accounts_store, cfg->dir, false, why);
    if (st == NULL)
        return false;
    if (!w->covered)
        rc = store_relay_users(st, w->hop, 1, record_take_account, w, why);
    if (rc != STORE_ERROR && w->by == NULL && w->name[0] != '\0')
        rc = store_relay_users(st, w->name, 1, record_take_account, w, why);
    store_close(st);
    return rc != STORE_ERROR;
}

/* What names the record by its next hop would lose it; false after saying so. */
static bool record_hop_may_change(const struct config *cfg, struct relays *r,
                                  const struct relay_fields *f) {
    struct wanted w = {.name = ""};
    char *why = NULL, *hop = relays_next_hop(r, f, &w.hop);
    bool ok = w.hop == NULL || hop == NULL || strcmp(hop, w.hop) == 0;
    if (!ok && !find_users(cfg, &w, &why)) {
        failed(why, "");
    } else if (!ok && w.by != NULL) {
        fprintf(stderr,
                "posthouse: %s names it by \"%s\", which would be \"%s\": change that first, or "
                "give it nexthop=%s\n",
                w.by, w.hop, hop, w.hop);
    } else {
        ok = true;
    }
    free(hop);
    free(w.hop);
    free(w.by);
    return ok;
}

static int set(const struct config *cfg, struct relays *r, int argc, char **argv) {
    struct relay_fields f = {.name = argv[2]};
    bool password = false;
    char *why = NULL, *secret = NULL;
    if (!take_words(argc, argv, &f, &password))
        return record_usage();
    if (password && (secret = cli_password("Password of the relay host")) == NULL)
        return failed(NULL, "no password on standard input");
    f.password = secret;
    bool may = record_hop_may_change(cfg, r, &f);
    bool ok = may && relays_set(r, &f, NULL, &why) == RELAYS_DONE;
    if (secret != NULL)
        mem_wipe(secret, strlen(secret));
    free(secret);
    return ok ? 0 : may ? failed(why, "") : 1;
}

/* -- deleting -- */

/* Mail of those that name the record would go on without its account: it must not be in use. */
static int record_delete(const struct config *cfg, struct relays *r, const char *name) {
    struct wanted w = {.name = name};
    char *why = NULL;
    int rc = 0;
    if (!relays_each(r, take_hop, &w, &why))
        rc = failed(why, "");
    else if (w.hop == NULL)
        rc = failed(NULL, "there is no such record");
    else if (!relays_each(r, take_cover, &w, &why) || !find_users(cfg, &w, &why))
        rc = failed(why, "");
    else if (w.by != NULL) {
        fprintf(stderr, "posthouse: it is in use, by %s: give them another relay host first\n",
                w.by);
        rc = 1;
    } else if (!relays_delete(r, name, NULL, &why)) {
        rc = failed(why, "there is no such record");
    }
    free(w.hop);
    free(w.users);
    free(w.owner);
    free(w.by);
    return rc;
}

/* -- going back to Postfix -- */

/* As many names are said. */
#define NAMES_MAX 5U

struct strange {
    struct sbuf names;
    size_t n;
};

static void strange_name(struct strange *w, struct str name) {
    if (w->n++ >= NAMES_MAX)
        return;
    sbuf_printf(&w->names, "%s\"", w->n == 1 ? "" : ", ");
    sbuf_add_safe(&w->names, name);
    sbuf_add_c(&w->names, "\"");
}

static void take_strange(void *arg, const struct relay_fields *f) {
    strange_name(arg, str_of(f->name));
}

static void take_strange_sender(void *arg, struct str account, struct str value) {
    (void)value;
    strange_name(arg, account);
}

static void say_strange(const struct strange *w, const char *command) {
    fprintf(stderr,
            "posthouse: fatal: %zu relay record%s not known to Postfix (%s%s): it would send their "
            "mail without their login and TLS, or to a host by a record's name, and return what is "
            "refused then. Give Postfix hosts, accounts and TLS of them (relayhost, "
            "smtp_sasl_password_maps, smtp_tls_policy_maps), and then %s --without-records\n",
            w->n, w->n == 1 ? " is" : "s are", w->names.p, w->n > NAMES_MAX ? ", ..." : "",
            command);
}

static void strange_unknown(const char *what, const char *why, const char *command) {
    fprintf(stderr,
            "posthouse: fatal: %s: %s: whether there are any, which Postfix does not know, is not "
            "known; %s --without-records goes back all the same\n",
            what, why, command);
}

static bool no_records(const struct config *cfg, const char *command) {
    const struct params *p = &cfg->p;
    struct strange w = {0};
    char *why = NULL;
    bool made;
    if (cfg->relays_spec[0] == '\0')
        return true;
    struct relays *r = relays_open(p->relays_database, p->relays_key_file, false, &made, &why);
    bool read = r != NULL && relays_each(r, take_strange, &w, &why);
    if (!read)
        strange_unknown("relay records", why, command);
    else if (w.n > 0)
        say_strange(&w, command);
    relays_close(r);
    free(why);
    sbuf_free(&w.names);
    return read && w.n == 0;
}

/* Postfix may have tables that read another store, but not the embedded one; without any such table
 * in main.cf it reads none. */
static bool store_is_ours_alone(const struct config *cfg) {
    return cfg->embedded ||
           (cfg->p.accounts_store[0] != '\0' &&
            cfg_file_find(&cfg->main, STR_LIT("sender_dependent_relayhost_maps")) == NULL);
}

static bool no_strange_senders(const struct config *cfg, const char *command) {
    const char *store = cfg->embedded ? "the embedded accounts store" : cfg->p.accounts_store;
    struct strange w = {0};
    char *why = NULL;
    if (!store_is_ours_alone(cfg))
        return true;
    struct store *st = store_open(cfg->p.accounts_store, cfg->dir, false, &why);
    bool read =
        st != NULL && store_relay_each(st, "", take_strange_sender, &w, &why) != STORE_ERROR;
    if (!read)
        strange_unknown("relay hosts in the accounts store", why, command);
    else if (w.n > 0)
        fprintf(stderr,
                "posthouse: fatal: %zu sender%s in %s, which Postfix does not read (%s%s): it "
                "would send their mail by its own. Give Postfix these "
                "(sender_dependent_relayhost_maps), and then %s --without-records\n",
                w.n, w.n == 1 ? " has a relay host" : "s have relay hosts", store, w.names.p,
                w.n > NAMES_MAX ? ", ..." : "", command);
    store_close(st);
    free(why);
    sbuf_free(&w.names);
    return read && w.n == 0;
}

bool cli_records_may_stay(const struct config *cfg, const char *command) {
    bool records = no_records(cfg, command), senders = no_strange_senders(cfg, command);
    return records && senders;
}

int cli_record(const char *dir, int argc, char **argv) {
    bool json = cli_take_flag(&argc, argv, "--json"), made = false;
    bool list = argc == 2 && strcmp(argv[1], "list") == 0;
    bool change = argc >= 3 && strcmp(argv[1], "set") == 0;
    bool del = argc == 3 && strcmp(argv[1], "delete") == 0;
    char *why = NULL;
    if (!list && !change && !del)
        return record_usage();
    struct config *cfg = cli_config("posthouse", dir);
    if (cfg == NULL)
        return 1;
    if (!change && cfg->relays_spec[0] == '\0')
        return list ? 0 : failed(NULL, "there are no relay records");
    struct relays *r =
        relays_open(cfg->p.relays_database, cfg->p.relays_key_file, change, &made, &why);
    if (r == NULL)
        return failed(why, "");
    int rc = 0;
    if (list)
        rc = relays_each(r, print_record, &json, &why) ? 0 : failed(why, "");
    else if (del)
        rc = record_delete(cfg, r, argv[2]);
    else
        rc = set(cfg, r, argc, argv);
    relays_close(r);
    if (rc == 0 && !list)
        cli_take_up(cfg, ASK_RELAYS);
    return rc;
}
