/*
 * cli/accounts.c - posthouse relay, domain, user, admin: the accounts store
 *
 * Rows go straight to the store with its own credentials; the daemon sees them for the next
 * message. The embedded store is made when it is first needed, and the daemon told.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accounts/browse.h"
#include "accounts/password.h"
#include "accounts/relays.h"
#include "accounts/store.h"
#include "accounts/values.h"
#include "cli/cli.h"
#include "mail/address.h"
#include "util/mem.h"
#include "web/state.h"

#define LINK_S 3600 /* how long a link is good */

/* The configured store, or the embedded one, made now if it may be; *made says so. */
static struct store *open_store(const struct config *cfg, bool make, bool *made) {
    char *why = NULL;
    *made = false;
    if (cfg->p.accounts_store[0] == '\0' && make) {
        struct store *st = store_embedded(cfg->p.data_directory, &why);
        *made = true;
        if (st == NULL)
            fprintf(stderr, "posthouse: fatal: %s\n", why);
        else
            printf("posthouse: made the embedded accounts store %s/accounts.db\n",
                   cfg->p.data_directory);
        free(why);
        return st;
    }
    if (cfg->p.accounts_store[0] == '\0') {
        fputs(
            "posthouse: there is no accounts store yet (accounts_store is not set, and nothing was "
            "added)\n",
            stderr);
        return NULL;
    }
    struct store *st = store_open(cfg->p.accounts_store, cfg->dir, true, &why);
    if (st == NULL)
        fprintf(stderr, "posthouse: fatal: %s\n", why);
    free(why);
    return st;
}

static int accounts_report(enum store_rc rc, char *why, const char *otherwise) {
    if (rc == STORE_ERROR)
        fprintf(stderr, "posthouse: fatal: %s\n", why);
    else if (rc == STORE_NO)
        fprintf(stderr, "posthouse: %s\n", why != NULL ? why : otherwise);
    free(why);
    return rc == STORE_YES ? 0 : 1;
}

/* -- relay -- */

/* "@domain" or "user@domain" (or "<>"), in lower case as tables are asked; NULL after saying why.
 */
static char *account_arg(const char *text) {
    if (!value_account_ok(str_of(text))) {
        fprintf(stderr, "posthouse: \"%s\" is no account: need user@domain.com or @domain.com\n",
                text);
        return NULL;
    }
    char *copy = mem_strdup(text);
    str_lower(copy, strlen(copy));
    return copy;
}

static bool value_ok(const char *value) {
    struct str bad;
    const char *why = value_relayhost_bad(str_of(value), &bad);
    if (why != NULL)
        fprintf(stderr, "posthouse: relay host \"%.*s\": %s%s\n", STR_FMT(bad), why,
                str_trim(str_of(value)).n == 0 ? "; to take the setting away: posthouse relay unset"
                                               : "");
    return why == NULL;
}

static void accounts_print_pair(void *arg, struct str account, struct str value) {
    struct sbuf b = {0};
    if (*(bool *)arg) {
        sbuf_add_c(&b, "{\"account\": ");
        sbuf_add_json(&b, account);
        sbuf_add_c(&b, ", \"relayhost\": ");
        sbuf_add_json(&b, value);
        sbuf_add_c(&b, "}");
    } else {
        sbuf_add_safe(&b, account);
        do
            sbuf_add_ch(&b, ' ');
        while (b.n < 41);
        sbuf_add_safe(&b, value);
    }
    puts(b.p);
    sbuf_free(&b);
}

static int relay_list(const struct config *cfg, int argc, char **argv) {
    bool json = cli_take_flag(&argc, argv, "--json"), made;
    char *why = NULL;
    struct store *st = open_store(cfg, false, &made);
    if (st == NULL)
        return 1;
    enum store_rc rc =
        store_relay_each(st, argc > 2 ? argv[2] : "", accounts_print_pair, &json, &why);
    store_close(st);
    return accounts_report(rc, why, "");
}

/* Does the daemon ask this store at all? */
static void note_unasked(const struct config *cfg, struct store *st) {
    const char *maps = cfg->p.sender_dependent_relayhost_maps;
    if (store_is_embedded(st) && maps[0] != '\0' && strstr(maps, "accounts:") == NULL)
        fputs("posthouse: note: main.cf sets sender_dependent_relayhost_maps to other tables; add "
              "accounts:$accounts_store to it\n",
              stderr);
}

/* The relay records of the configuration; NULL: *why.  The caller closes them. */
static struct relays *accounts_records(const struct config *cfg, char **why) {
    bool made;
    return relays_open(cfg->p.relays_database, cfg->p.relays_key_file, false, &made, why);
}

/* The relay record that value means, if it has an account, is for that account from now on: the
 * administrator of this machine says so.  False after saying why not.  *let: the name of a record
 * that was not for it before, which the caller frees, or NULL. */
static bool accounts_let_use(const struct config *cfg, const char *account, const char *value,
                             char **let) {
    char *why = NULL, *name = NULL;
    *let = NULL;
    if (value == NULL || cfg->relays_spec[0] == '\0')
        return true;
    struct relays *r = accounts_records(cfg, &why);
    enum relay_use use =
        r == NULL ? RELAY_UNKNOWN : relays_use(r, str_of(value), account, &name, &why);
    bool ok = use != RELAY_UNKNOWN;
    if (use == RELAY_MAY_NOT && (ok = relays_let(r, name, account, &why))) {
        printf("posthouse: the relay record \"%s\" is for %s too from now on\n", name, account);
        *let = mem_strdup(name);
    }
    if (!ok)
        fprintf(stderr, "posthouse: relay records: %s\n", why);
    relays_close(r);
    free(name);
    free(why);
    return ok;
}

/* The store did not take what the record was let for. */
static void accounts_take_back(const struct config *cfg, const char *let, const char *account) {
    char *why = NULL;
    struct relays *r = accounts_records(cfg, &why);
    if (r != NULL && relays_unlet(r, let, account, &why))
        fprintf(stderr, "posthouse: the relay record \"%s\" is not for %s\n", let, account);
    else
        fprintf(stderr, "posthouse: the relay record \"%s\" stays for %s: %s\n", let, account, why);
    relays_close(r);
    free(why);
}

static void accounts_say_still(void *arg, const struct relay_fields *f) {
    const char *account = arg;
    if (f->user[0] != '\0' && f->owner[0] == '\0' && strcmp(f->users, RELAY_EVERYBODY) != 0 &&
        relay_is_for(f, account))
        printf("posthouse: note: the relay record \"%s\" is for %s all the same, and who "
               "administers that account may choose it again; posthouse record set NAME for=... "
               "says for whom it is\n",
               f->name, account);
}

/* An account without a relay host of its own may still use the records that are for it. */
static void accounts_note_records(const struct config *cfg, char *account) {
    char *why = NULL;
    if (cfg->relays_spec[0] == '\0')
        return;
    struct relays *r = accounts_records(cfg, &why);
    if (r != NULL)
        relays_each(r, accounts_say_still, account, &why);
    relays_close(r);
    free(why);
}

static int accounts_relay_change(const struct config *cfg, const char *who, const char *value) {
    bool made;
    char *why = NULL, *let = NULL, *account = account_arg(who);
    if (account == NULL || (value != NULL && !value_ok(value))) {
        free(account);
        return EX_DATAERR_;
    }
    struct store *st = open_store(cfg, value != NULL, &made);
    int out = 1;
    if (st != NULL && accounts_let_use(cfg, account, value, &let)) {
        char *unused = NULL;
        if (value != NULL && strcmp(account, "<>") != 0 &&
            store_has(st, account, &unused) == STORE_NO)
            fprintf(stderr, "posthouse: note: the store has no account %s\n", account);
        free(unused);
        enum store_rc rc = store_relay_set(st, account, value, &why);
        out = accounts_report(rc, why,
                              value == NULL ? "it has no relay host of its own"
                                            : "there is no such account");
        if (out == 0 && value != NULL) {
            printf("posthouse: %s is relayed by %s\n", account, value);
        } else if (out == 0) {
            printf("posthouse: %s has no relay host of its own any more\n", account);
            accounts_note_records(cfg, account);
        }
        note_unasked(cfg, st);
    }
    if (out != 0 && let != NULL)
        accounts_take_back(cfg, let, account);
    if (out == 0)
        cli_take_up(cfg, ASK_STORE);
    store_close(st);
    free(account);
    free(let);
    return out;
}

int cli_relay(const char *dir, int argc, char **argv) {
    bool list = argc >= 2 && strcmp(argv[1], "list") == 0;
    bool set = argc == 4 && strcmp(argv[1], "set") == 0;
    bool unset = argc == 3 && strcmp(argv[1], "unset") == 0;
    if (!list && !set && !unset) {
        fputs("usage: posthouse relay list [ACCOUNT] [--json] | set ACCOUNT RELAYHOST | unset "
              "ACCOUNT\n",
              stderr);
        return EX_USAGE_;
    }
    struct config *cfg = cli_config("posthouse", dir);
    if (cfg == NULL)
        return 1;
    return list ? relay_list(cfg, argc, argv)
                : accounts_relay_change(cfg, argv[2], set ? argv[3] : NULL);
}

/* -- domains, users, admins of the embedded store -- */

static char *hash_password(void) {
    struct sbuf hash = {0};
    char *password = cli_password("Password");
    if (password == NULL || strlen(password) < 8) {
        fputs("posthouse: a password has at least 8 characters (on standard input, or typed)\n",
              stderr);
        free(password);
        return NULL;
    }
    password_hash(password, &hash);
    mem_wipe(password, strlen(password));
    free(password);
    return sbuf_take(&hash);
}

static int accounts_add(const char *dir, const char *what, const char *name, const char *domain) {
    struct config *cfg = cli_config("posthouse", dir);
    bool is_domain = strcmp(what, "domain") == 0, made;
    char *why = NULL, *low = mem_strdup(name);
    str_lower(low, strlen(low));
    struct str s = str_of(low), part = is_domain ? s : addr_domain(s);
    if (cfg == NULL)
        return 1;
    if (!addr_valid_host(part) || (!is_domain && (addr_local(s).n == 0 || s.n > VALUE_MAX))) {
        fprintf(stderr, "posthouse: \"%s\" is no %s\n", name,
                is_domain ? "domain name" : "mail address");
        return EX_DATAERR_;
    }
    char *hash = is_domain ? NULL : hash_password();
    if (hash == NULL && !is_domain)
        return EX_DATAERR_;
    struct store *st = open_store(cfg, true, &made);
    if (st == NULL)
        return 1;
    if (!store_is_embedded(st)) {
        fprintf(stderr, "posthouse: accounts of %s are added with iRedMail's own tools\n",
                cfg->p.accounts_store);
        return 1;
    }
    enum store_rc rc = is_domain                   ? store_add_domain(st, low, &why)
                       : strcmp(what, "user") == 0 ? store_add_user(st, low, hash, &why)
                                                   : store_add_admin(st, low, hash, domain, &why);
    if (rc == STORE_YES)
        printf("posthouse: added %s %s\n", what, low);
    if (made)
        cli_take_up(cfg, ASK_STORE);
    store_close(st);
    free(hash);
    free(low);
    return accounts_report(rc, why, "");
}

int cli_domain(const char *dir, int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "add") == 0)
        return accounts_add(dir, "domain", argv[2], NULL);
    fputs("usage: posthouse domain add DOMAIN\n", stderr);
    return EX_USAGE_;
}

int cli_user(const char *dir, int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "add") == 0)
        return accounts_add(dir, "user", argv[2], NULL);
    fputs("usage: posthouse user add USER@DOMAIN   (the password is read from standard input)\n",
          stderr);
    return EX_USAGE_;
}

/* A hash that no password has. */
#define NO_PASSWORD "!"

/* In web.db, where posthouse-web finds it. */
static int print_link(const struct config *cfg, const char *admin) {
    char secret[SECRET_TEXT], hash[HASH_TEXT], *why = NULL;
    struct state *s = state_open(cfg->p.data_directory, &why);
    if (s == NULL)
        return accounts_report(STORE_ERROR, why, "");
    secret_new(secret);
    secret_hash(secret, hash);
    int rc = state_run(s, NULL, NULL, "INSERT INTO link (hash, admin, expires) VALUES (?, ?, ?)",
                       "ssi", hash, admin, now_s() + LINK_S);
    state_close(s);
    if (rc != 1)
        return 1;
    const char *url = cfg->p.web_url;
    printf("posthouse: open this link within an hour; it works once, and sets the password of "
           "%s:\n  %s%s#/welcome/%s\n",
           admin, url, url[0] != '\0' && url[strlen(url) - 1] == '/' ? "" : "/", secret);
    mem_wipe(secret, sizeof secret);
    return 0;
}

/* The administrator is made if there is none of that name. */
static int admin_link(const char *dir, const char *name) {
    struct config *cfg = cli_config("posthouse", dir);
    char *why = NULL, *low = mem_strdup(name);
    struct admin role;
    bool made;
    str_lower(low, strlen(low));
    struct str s = str_of(low);
    if (cfg == NULL)
        return 1;
    if (!addr_valid_host(addr_domain(s)) || addr_local(s).n == 0 || s.n > VALUE_MAX) {
        fprintf(stderr, "posthouse: \"%s\" is no mail address\n", name);
        free(low);
        return EX_DATAERR_;
    }
    struct store *st = open_store(cfg, true, &made);
    if (st == NULL)
        return 1;
    if (!store_is_embedded(st)) {
        fprintf(stderr,
                "posthouse: administrators of %s sign in with the password that they have there\n",
                cfg->p.accounts_store);
        return 1;
    }
    enum store_rc rc = store_admin_find(st, low, &role, &why);
    if (rc == STORE_NO)
        rc = store_add_admin(st, low, NO_PASSWORD, NULL, &why);
    if (made)
        cli_take_up(cfg, ASK_STORE);
    store_close(st);
    int out = rc == STORE_YES ? print_link(cfg, low) : accounts_report(rc, why, "");
    free(low);
    return out;
}

int cli_admin(const char *dir, int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "link") == 0)
        return admin_link(dir, argv[2]);
    if ((argc == 3 || argc == 4) && strcmp(argv[1], "add") == 0)
        return accounts_add(dir, "admin", argv[2], argc == 4 ? argv[3] : NULL);
    fputs("usage: posthouse admin add ADDRESS [DOMAIN]   (of everything, or of one domain; the "
          "password is read from standard input)\n"
          "       posthouse admin link ADDRESS   (prints a link to the page that works once)\n",
          stderr);
    return EX_USAGE_;
}
