/*
 * cli/first_ask.c - posthouse setup: what is asked, and what was given is looked at; see first.h
 *
 * Nothing is written here: a program that is ended at a question has changed nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "accounts/values.h"
#include "cli/cli.h"
#include "cli/first.h"
#include "mail/address.h"
#include "route/nexthop.h"
#include "util/fs.h"
#include "util/mem.h"

#define PASSWORD_MAX 4096

static bool question_wrong(const char *what, const char *why) {
    fprintf(stderr, "posthouse: %s: %s\n", what, why);
    return false;
}

/* A line that was typed, without white space around it; preset for an empty one.  NULL: the input
 * has ended.  The caller frees. */
static char *question_line(const char *question, const char *preset) {
    char *line = NULL;
    size_t room = 0;
    if (preset != NULL && preset[0] != '\0')
        printf("%s [%s]: ", question, preset);
    else
        printf("%s: ", question);
    fflush(stdout);
    ssize_t n = getline(&line, &room, stdin);
    struct str text = str_trim(str_make(line, n < 0 ? 0 : (size_t)n));
    char *answer = n < 0                           ? NULL
                   : text.n == 0 && preset != NULL ? mem_strdup(preset)
                                                   : str_dup(text);
    free(line);
    if (answer == NULL)
        fputs("\nposthouse: nothing was written\n", stderr);
    return answer;
}

bool first_agrees(const char *question) {
    char *answer = question_line(question, "Y/n");
    bool yes = answer != NULL && (answer[0] == 'y' || answer[0] == 'Y');
    free(answer);
    return yes;
}

/* -- the provider -- */

static const struct preset *preset_find(const char *text) {
    uint64_t number;
    for (size_t i = 0; i < presets_n; i++)
        if (str_ieq_c(str_of(text), presets[i].id) || str_ieq_c(str_of(text), presets[i].name))
            return &presets[i];
    return str_u64(str_of(text), &number) && number > 0 && number <= presets_n
               ? &presets[number - 1]
               : NULL;
}

/* The provider of a next hop that is in use. */
static const struct preset *preset_of_hosts(const char *hosts) {
    for (size_t i = 1; i < presets_n; i++)
        if (strcmp(presets[i].hosts, hosts) == 0)
            return &presets[i];
    return hosts[0] == '\0' ? NULL : &presets[0];
}

static bool question_preset(struct first *f) {
    const struct preset *now = preset_of_hosts(f->cfg->p.relayhost);
    if (f->preset == NULL && !f->asks) {
        f->preset = &presets[0];
        return f->hosts != NULL || question_wrong("--provider or --host", "one of them is needed");
    }
    if (f->preset == NULL && f->hosts != NULL)
        f->preset = &presets[0];
    if (f->preset == NULL) {
        puts("Who takes your mail and sends it on?");
        for (size_t i = 0; i < presets_n; i++)
            printf("  %zu  %-10s %s\n", i + 1, presets[i].id, presets[i].name);
    }
    while (f->preset == NULL) {
        char *answer = question_line("Number or name", now == NULL ? "plain" : now->id);
        if (answer == NULL)
            return false;
        f->preset = preset_find(answer);
        if (f->preset == NULL)
            puts("That is none of them.");
        free(answer);
    }
    return true;
}

/* -- the host -- */

/* "host" and "host:port" mean that very host: "[host]:587", "[host]:port". */
static char *hosts_from(const char *text) {
    struct sbuf b = {0};
    struct str s = str_of(text);
    ptrdiff_t colon = str_rchr(s, ':');
    if (strpbrk(text, "[], \t") != NULL)
        return mem_strdup(text);
    struct str host = colon < 0 ? s : str_make(s.p, (size_t)colon);
    struct str port = colon < 0 ? STR_LIT("587") : str_from(s, (size_t)colon + 1);
    sbuf_printf(&b, "[%.*s]:%.*s", STR_FMT(host), STR_FMT(port));
    return sbuf_take(&b);
}

static bool hosts_ok(const char *hosts) {
    struct str bad = str_of(hosts);
    const char *why = bad.n == 0             ? "a relay host is needed"
                      : str_has_control(bad) ? "control characters"
                                             : nexthop_check(bad, &bad);
    if (why != NULL)
        fprintf(stderr, "posthouse: relay host \"%.*s\": %s\n", STR_FMT(bad), why);
    return why == NULL;
}

static bool question_hosts(struct first *f) {
    bool any = f->preset == &presets[0];
    const char *now = f->cfg->p.relayhost;
    const char *offered = !any ? f->preset->hosts : preset_of_hosts(now) == &presets[0] ? now : "";
    char *given = f->hosts;
    f->hosts = NULL;
    if (given == NULL && !f->asks)
        given = mem_strdup(any ? "" : f->preset->hosts);
    while (f->hosts == NULL) {
        char *text = given != NULL ? given : question_line("Relay host", offered);
        if (text == NULL)
            return false;
        f->hosts = hosts_from(text);
        free(text);
        if (hosts_ok(f->hosts))
            return true;
        if (given != NULL)
            return false;
        free(f->hosts);
        f->hosts = NULL;
    }
    return true;
}

static bool tls_ok(const char *mode) {
    static const char *const modes[] = {"none", "may", "encrypt", "verify", "secure"};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(mode, modes[i]) == 0)
            return true;
    return question_wrong(mode, "TLS is none, may, encrypt, verify or secure");
}

/* The mode of a record that is there stays unless another one is given. */
static bool question_tls(struct first *f) {
    const char *offered = f->was.tls != NULL ? f->was.tls : f->preset->tls;
    if (f->tls == NULL && (!f->asks || f->preset != &presets[0]))
        f->tls = mem_strdup(offered);
    else if (f->tls == NULL)
        puts("TLS: encrypt demands it, verify demands the right certificate, too; with none no\n"
             "password is sent that others could read.");
    while (f->tls == NULL) {
        f->tls = question_line("TLS", offered);
        if (f->tls == NULL)
            return false;
        if (tls_ok(f->tls))
            return true;
        free(f->tls);
        f->tls = NULL;
    }
    return tls_ok(f->tls);
}

/* -- who sends by it -- */

/* "shop.example" means "@shop.example".  NULL after saying what is none of these. */
static char *users_from(const char *text) {
    struct sbuf b = {0};
    struct str rest = str_of(text), one;
    if (str_ieq_c(rest, FIRST_EVERYBODY))
        return mem_strdup(FIRST_EVERYBODY);
    while (str_split(&rest, ", \t", &one)) {
        struct sbuf account = {0};
        sbuf_printf(&account, "%s%.*s", str_chr(one, '@') < 0 ? "@" : "", STR_FMT(one));
        str_lower(account.p, account.n);
        bool ok = value_account_ok(sbuf_str(&account)) && !str_eq_c(sbuf_str(&account), "<>") &&
                  addr_valid_host(addr_domain(sbuf_str(&account)));
        if (ok)
            sbuf_printf(&b, "%s%s", b.n == 0 ? "" : ",", account.p);
        else
            question_wrong(account.p, "need everybody, or domains and users: shop.example, "
                                      "boss@shop.example");
        sbuf_free(&account);
        if (!ok) {
            sbuf_free(&b);
            return NULL;
        }
    }
    return b.n == 0 ? mem_strdup(FIRST_EVERYBODY) : sbuf_take(&b);
}

static bool question_users(struct first *f) {
    char *given = f->users;
    f->users = NULL;
    if (given == NULL && !f->asks)
        given = mem_strdup(FIRST_EVERYBODY);
    while (f->users == NULL) {
        char *text = given != NULL
                         ? given
                         : question_line("Who sends by it: everybody, or domains and users "
                                         "(shop.example, boss@shop.example)",
                                         FIRST_EVERYBODY);
        if (text == NULL)
            return false;
        f->users = users_from(text);
        free(text);
        if (given != NULL)
            return f->users != NULL;
    }
    return true;
}

/* -- account and password -- */

/* What a table of passwords and a relay record can both hold. */
static bool user_ok(const char *user) {
    if (str_has_control(str_of(user)) || strlen(user) > VALUE_MAX)
        return question_wrong("account", "control characters, or more than 255 bytes");
    return true;
}

static bool question_user(struct first *f) {
    if (f->user == NULL && f->asks) {
        printf("Account at the relay host: %s.\n", f->preset->user);
        f->user = question_line(
            f->preset == &presets[0] ? "Account (none: an empty line)" : "Account", f->was.user);
        if (f->user == NULL)
            return false;
    }
    if (f->user == NULL)
        f->user = mem_strdup("");
    if (f->user[0] == '\0' && f->preset != &presets[0])
        return question_wrong("account", "this provider takes no mail without one (--user)");
    return user_ok(f->user);
}

/* The first line of a file. */
static char *password_read(const char *path) {
    struct sbuf text = {0};
    char why[FS_WHY_MAX];
    int rc = fs_read(path, &text, PASSWORD_MAX);
    size_t n = 0;
    while (n < text.n && text.p[n] != '\r' && text.p[n] != '\n')
        n++;
    bool whole = rc == 0 && (n == 0 || memchr(text.p, '\0', n) == NULL);
    char *password = whole ? str_dup(str_make(text.p, n)) : NULL;
    if (!whole)
        question_wrong(path, rc < 0 ? fs_read_why(rc, PASSWORD_MAX, why) : "it has a NUL byte");
    sbuf_wipe(&text);
    return password;
}

static bool password_ok(const char *password) {
    if (password[0] == '\0')
        return question_wrong("password", "it is empty");
    return !str_has_control(str_of(password)) || question_wrong("password", "control characters");
}

static bool question_password(struct first *f) {
    bool stays = f->was.has_password && f->was.user != NULL && strcmp(f->was.user, f->user) == 0;
    if (f->user[0] == '\0')
        return f->password_file == NULL || question_wrong("--password-file", "it needs --user");
    if (f->password_file != NULL && strcmp(f->password_file, "-") != 0) {
        f->password = password_read(f->password_file);
    } else if (f->password_file != NULL || f->asks) {
        if (f->asks)
            printf("Password: %s.%s\n", f->preset->password,
                   stays ? "  An empty line: it stays as it is." : "");
        fflush(stdout);
        f->password = cli_password("Password");
        if (f->password == NULL)
            return question_wrong("password",
                                  "there is none on standard input; nothing was written");
        if (stays && f->password[0] == '\0') {
            free(f->password);
            f->password = NULL;
            return true;
        }
    } else {
        return stays || question_wrong("--password-file", "the file with the account's password is "
                                                          "needed, or - for standard input");
    }
    return f->password != NULL && password_ok(f->password);
}

/* -- the test's sender -- */

static char *sender_offered(const struct first *f) {
    struct sbuf b = {0};
    struct str rest = str_of(f->users), one;
    if (strcmp(f->users, FIRST_EVERYBODY) != 0 && str_split(&rest, ",", &one))
        sbuf_printf(&b, "%s%.*s", one.p[0] == '@' ? "postmaster" : "", STR_FMT(one));
    else if (strchr(f->user, '@') != NULL)
        sbuf_add_c(&b, f->user);
    else
        sbuf_printf(&b, "postmaster@%s", f->cfg->p.myhostname);
    return sbuf_take(&b);
}

static bool question_sender(struct first *f) {
    char *offered = sender_offered(f);
    if (f->sender == NULL && f->asks && !f->no_test)
        f->sender = question_line("Sender address for the test (no mail is sent)", offered);
    else if (f->sender == NULL)
        f->sender = mem_strdup(offered);
    free(offered);
    if (f->sender == NULL)
        return false;
    return addr_domain(str_of(f->sender)).n > 0 ||
           question_wrong(f->sender, "it is no mail address");
}

bool first_complete(struct first *f) {
    return question_preset(f) && question_hosts(f) && question_users(f) && first_record_read(f) &&
           question_tls(f) && question_user(f) && question_password(f) && question_sender(f);
}
