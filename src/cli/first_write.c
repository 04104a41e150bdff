/*
 * cli/first_write.c - posthouse setup: where the relay host and its account are written; see
 * first.h
 *
 * The account goes into a relay record, or, for everybody where main.cf has a table of passwords in
 * a file and there are no records, into that table.  What names the relay host is written after the
 * account: killed in between, mail goes on as before.  A record is found by its next hop and users,
 * and keeps its next hop, so that no change takes the account from mail that goes there.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "accounts/relays.h"
#include "cli/cli.h"
#include "cli/config_edit.h"
#include "cli/first.h"
#include "maps/relays.h"
#include "route/nexthop.h"
#include "util/fs.h"
#include "util/mem.h"

#define TABLE_MAX (256U << 20)
#define LINES_MAX 8

static bool write_failed(const char *what, const char *why) {
    fprintf(stderr, "posthouse: fatal: %s: %s\n", what, why);
    return false;
}

static bool first_is_everybodys(const struct first *f) {
    return strcmp(f->users, FIRST_EVERYBODY) == 0;
}

/* -- relay records -- */

static char *record_name(const char *hosts, const char *users) {
    struct sbuf b = {0};
    struct str rest = str_of(users), one;
    for (const char *p = hosts; *p != '\0'; p++)
        if (strchr("[]", *p) == NULL)
            sbuf_add_ch(&b, *p);
    if (strcmp(users, FIRST_EVERYBODY) != 0 && str_split(&rest, ",", &one))
        sbuf_printf(&b, " %.*s", STR_FMT(one));
    return sbuf_take(&b);
}

/* Is one of users on the list? */
static bool users_meet(const char *users, const char *list) {
    struct str rest = str_of(users), one;
    bool found = false;
    while (!found && str_split(&rest, ",", &one)) {
        char *word = str_dup(one);
        found = list_has_word(str_of(list), word);
        free(word);
    }
    return found;
}

static void take_wanted(void *arg, const struct relay_fields *fields) {
    struct first *f = arg;
    if (f->was.user != NULL || strcmp(fields->nexthop, f->hosts) != 0 || fields->owner[0] != '\0' ||
        !users_meet(f->users, fields->users))
        return;
    free(f->was.name);
    f->was = (struct first_record){.name = mem_strdup(fields->name),
                                   .user = mem_strdup(fields->user),
                                   .users = mem_strdup(fields->users),
                                   .tls = mem_strdup(fields->tls),
                                   .has_password = fields->has_secret};
}

bool first_record_read(struct first *f) {
    const struct params *p = &f->cfg->p;
    char *why = NULL;
    bool made, ok = true;
    f->was.name = record_name(f->hosts, f->users);
    if (f->cfg->relays_spec[0] == '\0')
        return true;
    struct relays *all = relays_open(p->relays_database, p->relays_key_file, false, &made, &why);
    ok = all != NULL && relays_each(all, take_wanted, f, &why);
    relays_close(all);
    if (!ok)
        write_failed("relay records", why);
    free(why);
    return ok;
}

/* Mechanisms stay where the provider names none. */
static bool record_write(const struct first *f) {
    const char *mechanisms = f->preset->mechanisms;
    struct relay_fields fields = {.name = f->was.name,
                                  .hosts = f->hosts,
                                  .users = f->users,
                                  .tls = f->tls,
                                  .mechanisms = mechanisms[0] == '\0' ? NULL : mechanisms,
                                  .user = f->user,
                                  .password = f->password};
    char *why = NULL;
    bool made;
    struct relays *r =
        relays_open(f->cfg->p.relays_database, f->cfg->p.relays_key_file, true, &made, &why);
    bool ok = r != NULL && relays_set(r, &fields, NULL, &why) == RELAYS_DONE;
    relays_close(r);
    if (!ok)
        write_failed(f->was.name, why);
    free(why);
    return ok;
}

/* -- tables in files -- */

char *first_table(const char *maps, const char *dir) {
    static const char *const types[] = {"hash:", "btree:", "lmdb:", "cdb:", "texthash:"};
    struct str rest = str_of(maps), one = STR_NONE;
    str_split(&rest, ", \t\r\n", &one);
    if (str_istarts(one, "proxy:"))
        one = str_from(one, strlen("proxy:"));
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (str_istarts(one, types[i])) {
            struct sbuf table = {0};
            struct str path = str_from(one, strlen(types[i]));
            bool whole = path.n > 0 && path.p[0] == '/';
            sbuf_printf(&table, "%s%s%s%.*s", types[i], whole ? "" : dir, whole ? "" : "/",
                        STR_FMT(path));
            return sbuf_take(&table);
        }
    return NULL;
}

/* All rows of text but key's, which is put in the place of the first of them, or at the end. */
static void table_rows(struct sbuf *out, struct str text, struct str key, struct str row) {
    bool drop = false, done = false;
    while (text.n > 0) {
        const char *lf = memchr(text.p, '\n', text.n);
        struct str line = str_make(text.p, lf == NULL ? text.n : (size_t)(lf - text.p) + 1);
        struct str rest = line, word = STR_NONE;
        text = str_from(text, line.n);
        if (strchr(" \t", line.p[0]) == NULL)
            drop = str_split(&rest, " \t\r\n", &word) && str_ieq(word, key);
        if (drop && !done)
            sbuf_add_str(out, row);
        done = done || drop;
        if (!drop)
            sbuf_add_str(out, line);
    }
    if (!done && out->n > 0 && out->p[out->n - 1] != '\n')
        sbuf_add_ch(out, '\n');
    if (!done)
        sbuf_add_str(out, row);
}

/* Sets key's row in the file of a table, and has its index made, which gets the file's mode.
 * secret: users who are neither its owner nor of its group cannot read it then. */
static bool table_set(const struct first *f, const char *table, const char *key, const char *value,
                      bool secret) {
    const char *name = strchr(table, ':') + 1;
    char *full = realpath(name, NULL);
    struct sbuf text = {0}, out = {0}, row = {0};
    struct stat st = {0};
    sbuf_printf(&row, "%s %s\n", key, value);
    int rc = full == NULL          ? (errno == ENOENT ? 0 : -errno)
             : stat(full, &st) < 0 ? -errno
                                   : fs_read(full, &text, TABLE_MAX);
    if (rc == 0) {
        st.st_mode &= secret ? ~(mode_t)S_IRWXO : ~(mode_t)0;
        table_rows(&out, sbuf_str(&text), str_of(key), sbuf_str(&row));
        rc = fs_write_whole(full == NULL ? name : full, sbuf_str(&out), 0600,
                            full == NULL ? NULL : &st);
    }
    free(full);
    sbuf_wipe(&text);
    sbuf_wipe(&out);
    sbuf_wipe(&row);
    if (rc < 0)
        return write_failed(name, strerror(-rc));
    char *args[] = {(char *)(uintptr_t) "postmap", (char *)(uintptr_t)table, NULL};
    return str_istarts(str_of(table), "texthash:") || cli_postmap(f->dir, 2, args) == 0;
}

/* A row for each host of the next hop: the table is asked for one at a time. */
static bool passwords_write(const struct first *f) {
    struct sbuf login = {0};
    struct str rest = str_of(f->hosts), one;
    bool ok = true;
    sbuf_printf(&login, "%s:%s", f->user, f->password);
    while (ok && nexthop_split(&rest, &one)) {
        char *key = str_dup(one);
        ok = table_set(f, f->passwords, key, login.p, true);
        free(key);
    }
    sbuf_wipe(&login);
    return ok;
}

/* -- what names the relay host -- */

/* Each user's row.  What main.cf names has its own. */
static bool senders_write(const struct first *f) {
    struct str rest = str_of(f->users), one;
    bool ok = true;
    while (ok && str_split(&rest, ",", &one)) {
        if (str_ieq_c(one, RELAYS_NAMED_TOO))
            continue;
        char *account = str_dup(one);
        char *args[] = {(char *)(uintptr_t) "relay", (char *)(uintptr_t) "set", account, f->hosts,
                        NULL};
        ok = f->senders != NULL ? table_set(f, f->senders, account, f->hosts, false)
                                : cli_relay(f->dir, 4, args) == 0;
        free(account);
    }
    return ok;
}

static void main_line_add(char *lines[], int *n, const char *text) {
    lines[(*n)++] = mem_strdup(text);
}

/* The lines of main.cf that are to change; their number. */
static int main_lines(const struct first *f, char *lines[LINES_MAX]) {
    const struct params *p = &f->cfg->p;
    struct sbuf b = {0};
    int n = 0;
    if (first_is_everybodys(f) && strcmp(p->relayhost, f->hosts) != 0) {
        sbuf_printf(&b, "relayhost = %s", f->hosts);
        main_line_add(lines, &n, b.p);
    }
    sbuf_free(&b);
    if (f->passwords == NULL)
        return n;
    const char *now = f->cfg->p.smtp_tls_security_level; /* or what smtp_enforce_tls stands for */
    char *rules = config_value(f->cfg, "smtp_sasl_security_options", NULL);
    char *wraps = config_value(f->cfg, "smtp_tls_wrappermode", NULL);
    char *logs_in = config_value(f->cfg, "smtp_sasl_auth_enable", NULL);
    if (strcmp(logs_in, "yes") != 0)
        main_line_add(lines, &n, "smtp_sasl_auth_enable = yes");
    if (list_has_word(str_of(rules), "noplaintext"))
        main_line_add(lines, &n, "smtp_sasl_security_options = noanonymous");
    if (strcmp(f->tls, "none") != 0 && strcmp(f->tls, "may") != 0 &&
        (strcmp(now, "none") == 0 || strcmp(now, "may") == 0)) {
        sbuf_printf(&b, "smtp_tls_security_level = %s", f->tls);
        main_line_add(lines, &n, b.p);
        sbuf_free(&b);
    }
    bool to_wrap = cli_hop_wraps(f->hosts);
    if (to_wrap != (strcmp(wraps, "yes") == 0))
        main_line_add(lines, &n,
                      to_wrap ? "smtp_tls_wrappermode = yes" : "smtp_tls_wrappermode = no");
    free(rules);
    free(wraps);
    free(logs_in);
    return n;
}

/* A main.cf for a machine that has none: only the machine itself may send by it. */
static bool main_make(const struct first *f, char *lines[], int n) {
    struct sbuf path = {0}, text = {0};
    sbuf_add_c(&text,
               "# Made by posthouse setup.  All parameters: posthouse-main.cf(5); what is set:\n"
               "# posthouse config -n; is it right: posthouse check.\n\n");
    for (int i = 0; i < n; i++)
        sbuf_printf(&text, "%s\n", lines[i]);
    sbuf_add_c(&text, "\n# Only this machine may send by it; name networks to open it to them.\n"
                      "inet_interfaces = loopback-only\nmydestination =\n");
    sbuf_printf(&path, "%s/main.cf", f->dir);
    int rc = fs_write_whole(path.p, sbuf_str(&text), 0644, NULL);
    if (rc < 0)
        write_failed(path.p, strerror(-rc));
    sbuf_free(&path);
    sbuf_free(&text);
    return rc == 0;
}

static bool main_write(const struct first *f) {
    char *lines[LINES_MAX];
    int n = main_lines(f, lines);
    bool ok = f->fresh ? main_make(f, lines, n) : n == 0 || config_edit(f->dir, 'e', n, lines) == 0;
    for (int i = 0; i < n; i++)
        free(lines[i]);
    return ok;
}

/* -- the plan -- */

/* Can senders have relay hosts of their own here, and where? */
static bool plan_senders(struct first *f) {
    const char *maps = f->cfg->p.sender_dependent_relayhost_maps;
    if (cfg_file_find(&f->cfg->main, STR_LIT("sender_dependent_relayhost_maps")) == NULL ||
        maps[0] == '\0')
        return true;
    f->senders = first_table(maps, f->cfg->dir);
    if (f->senders != NULL || strstr(maps, "accounts:") != NULL ||
        (f->cfg->p.accounts_store[0] != '\0' && !f->cfg->embedded))
        return true;
    return write_failed(maps, "sender_dependent_relayhost_maps names it, and setup cannot write "
                              "there; name its database in accounts_store (posthouse-main.cf(5))");
}

static void word_add(struct sbuf *list, struct str one) {
    char *word = str_dup(one);
    if (!list_has_word(sbuf_str(list), word))
        sbuf_printf(list, ",%s", word);
    free(word);
}

/* Users that the record of that name is for already stay on its list. */
static void plan_record(struct first *f) {
    struct sbuf all = {0};
    struct str rest = str_of(first_is_everybodys(f) ? NULL : f->was.users), one;
    sbuf_add_c(&all, f->users);
    while (str_split(&rest, ", ", &one))
        word_add(&all, one);
    free(f->users);
    f->users = sbuf_take(&all);
}

/* A row of a table of passwords is "user:password", without white space around it. */
static bool plan_passwords(const struct first *f) {
    if (strchr(f->user, ':') != NULL || str_trim(str_of(f->user)).n != strlen(f->user))
        return write_failed(f->passwords,
                            "an account with ':', or with a blank at its beginning or "
                            "end, cannot stand there");
    if (f->password == NULL)
        return write_failed(f->passwords, "the password is needed");
    return str_trim(str_of(f->password)).n == strlen(f->password) ||
           write_failed(f->passwords, "a password that begins or ends with a blank cannot stand "
                                      "there");
}

bool first_plan(struct first *f) {
    f->passwords = first_is_everybodys(f) && f->user[0] != '\0' && f->cfg->relays_spec[0] == '\0'
                       ? first_table(f->cfg->p.smtp_sasl_password_maps, f->cfg->dir)
                       : NULL;
    if (f->passwords != NULL)
        return plan_passwords(f);
    plan_record(f);
    return first_is_everybodys(f) || plan_senders(f);
}

static void show_rows(const struct first *f) {
    struct str rest = str_of(f->hosts), one;
    struct stat st;
    bool open = stat(strchr(f->passwords, ':') + 1, &st) == 0 && (st.st_mode & S_IRWXO) != 0;
    printf("  %s%s\n", f->passwords, open ? " (other users cannot read it any more)" : "");
    while (nexthop_split(&rest, &one))
        printf("    %.*s %s:(the password)\n", STR_FMT(one), f->user);
}

void first_show(const struct first *f) {
    char *lines[LINES_MAX];
    int n = main_lines(f, lines);
    puts("\nThis will be written:");
    if (f->passwords == NULL)
        printf("  relay record \"%s\"\n    hosts    %s\n    TLS      %s\n    account  %s\n    for  "
               "    "
               "%s\n",
               f->was.name, f->hosts, f->tls, f->user[0] == '\0' ? "none" : f->user, f->users);
    else
        show_rows(f);
    if (!first_is_everybodys(f))
        printf("  %s\n    %s for each of these senders\n",
               f->senders == NULL ? "the accounts store" : f->senders, f->hosts);
    if (n > 0 || f->fresh)
        printf("  %s/main.cf%s\n", f->dir,
               f->fresh ? " (a new one: only this machine may send by it)" : "");
    for (int i = 0; i < n; i++) {
        printf("    %s\n", lines[i]);
        free(lines[i]);
    }
}

bool first_write(const struct first *f) {
    sigset_t typed, before;
    sigemptyset(&typed);
    for (const int *s = (const int[]){SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, 0}; *s != 0; s++)
        sigaddset(&typed, *s);
    sigprocmask(SIG_BLOCK, &typed, &before);
    int rc = f->fresh ? fs_mkdir(f->dir, 0755) : 0; /* the records' key lies there, too */
    bool ok = rc == 0 || write_failed(f->dir, strerror(-rc));
    if (ok)
        ok = f->passwords != NULL ? passwords_write(f) : record_write(f);
    /* cli_relay reads main.cf. */
    if (ok && f->fresh)
        ok = main_write(f);
    if (ok && !first_is_everybodys(f))
        ok = senders_write(f);
    if (ok && !f->fresh)
        ok = main_write(f);
    fflush(stdout);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return ok;
}
