/*
 * cli/first.c - posthouse setup: the relay host and its account, written and tested
 *
 * One thread.  Everything is asked or taken from options first (cli/first_ask.c), shown, and then
 * written (cli/first_write.c).  The daemon takes it up, or is started, and walks the road to the
 * relay host with its own client.  What was written stays when that fails: mail waits, and the same
 * command changes the entry.
 */
#include "cli/first.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/listen.h"
#include "util/mem.h"

#define SERVICE_DIR PH_CONFIG_DIR /* of posthouse.service */

static int first_usage(FILE *to) {
    fputs(
        "usage: posthouse setup\n"
        "       posthouse setup --provider NAME|--host HOST[:PORT] [--tls MODE] [--user ACCOUNT]\n"
        "                       [--password-file FILE] [--for everybody|DOMAIN,USER@DOMAIN,...]\n"
        "                       [--sender ADDRESS] [--no-test] [--yes]\n"
        "       posthouse setup beside-postfix|replace-postfix ...  (--help says more)\n"
        "Sets the relay host that takes this machine's mail, and the account there; then tests "
        "it.\n"
        "At a terminal it asks for what the options do not say.  --password-file -: the password "
        "is\n"
        "the first line of standard input.  --sender: the test's sender; no mail is sent.\n"
        "NAME is one of:",
        to);
    for (size_t i = 0; i < presets_n; i++)
        fprintf(to, " %s", presets[i].id);
    fputc('\n', to);
    return to == stdout ? 0 : EX_USAGE_;
}

static void first_free(struct first *f) {
    if (f->password != NULL)
        mem_wipe(f->password, strlen(f->password));
    char *texts[] = {f->hosts,     f->tls,     f->user,     f->password, f->users,     f->sender,
                     f->passwords, f->senders, f->was.name, f->was.user, f->was.users, f->was.tls};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    config_unref(f->cfg);
}

/* -- options -- */

static bool first_option_preset(struct first *f, const char *text) {
    for (size_t i = 0; i < presets_n; i++)
        if (strcmp(text, presets[i].id) == 0)
            f->preset = &presets[i];
    if (f->preset == NULL)
        fprintf(stderr, "posthouse: --provider %s: there is none of that name\n", text);
    return f->preset != NULL;
}

static void first_option_text(char **at, const char *text) {
    free(*at);
    *at = mem_strdup(text);
}

static bool first_option(struct first *f, int opt, const char *text) {
    switch (opt) {
    case 'p':
        return first_option_preset(f, text);
    case 'o':
        first_option_text(&f->hosts, text);
        return true;
    case 't':
        first_option_text(&f->tls, text);
        return true;
    case 'u':
        first_option_text(&f->user, text);
        return true;
    case 'w':
        f->password_file = text;
        return true;
    case 'f':
        first_option_text(&f->users, text);
        return true;
    case 's':
        first_option_text(&f->sender, text);
        return true;
    case 'n':
        f->no_test = true;
        return true;
    case 'y':
        f->yes = true;
        return true;
    default:
        return false;
    }
}

static bool first_options(struct first *f, int argc, char **argv) {
    static const struct option options[] = {{"provider", required_argument, NULL, 'p'},
                                            {"host", required_argument, NULL, 'o'},
                                            {"tls", required_argument, NULL, 't'},
                                            {"user", required_argument, NULL, 'u'},
                                            {"password-file", required_argument, NULL, 'w'},
                                            {"for", required_argument, NULL, 'f'},
                                            {"sender", required_argument, NULL, 's'},
                                            {"no-test", no_argument, NULL, 'n'},
                                            {"yes", no_argument, NULL, 'y'},
                                            {0}};
    int opt;
    optind = 1;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (!first_option(f, opt, optarg))
            return false;
    return optind == argc;
}

/* -- the daemon -- */

/* The exit status of a child that runs systemctl, or starts the daemon itself. */
static int daemon_start(const struct first *f) {
    char *start[] = {(char *)(uintptr_t) "postfix", (char *)(uintptr_t) "start", NULL};
    char *service = realpath(SERVICE_DIR, NULL), *ours = realpath(f->dir, NULL);
    bool by_systemd = access("/run/systemd/system", F_OK) == 0 && service != NULL && ours != NULL &&
                      strcmp(service, ours) == 0;
    int status = 0;
    free(service);
    free(ours);
    puts("posthouse: it is not running; starting it");
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (!by_systemd)
            _exit(cli_postfix(f->dir, 2, start));
        execlp("systemctl", "systemctl", "enable", "--now", "posthouse.service", (char *)NULL);
        _exit(127);
    }
    bool waited = pid > 0 && waitpid(pid, &status, 0) == pid;
    return waited && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* What was written is in use; false after saying why not. */
static bool daemon_takes_up(const struct first *f, const struct config *cfg) {
    char *check[] = {(char *)(uintptr_t) "check", NULL};
    int rc = ask_reload(cfg->p.queue_directory, ASK_RELOAD_S);
    if (rc == -ESRCH && f->no_test)
        return true;
    if (rc == -ESRCH)
        rc = daemon_start(f) == 0 ? 0 : -EINVAL;
    if (rc == 0)
        return true;
    if (rc == -EINVAL) {
        fputs("posthouse: it was written, and Posthouse does not take it up.  posthouse check "
              "says:\n",
              stderr);
        cli_check(f->dir, 1, check);
    } else {
        fprintf(stderr, "posthouse: it was written, but the daemon was not told: %s\n",
                strerror(-rc));
    }
    return false;
}

/* -- the test -- */

/* What is wrong when that stage of a test fails, and what to do. */
static const char *stage_meaning(const char *stage) {
    static const struct {
        const char *stage, *text;
    } all[] = {
        {"dns", "The relay host's name was not found.  Is it spelt right, and does this machine "
                "have a name server?"},
        {"connect", "The relay host cannot be reached.  Are host and port right?  Many networks "
                    "let nobody out on\nport 25, and some on no mail port: try 587, 465 or 2525, "
                    "or ask whose network it is."},
        {"greeting", "The relay host turned this machine away before anything was said: its words "
                     "are above."},
        {"tls", "There is no protected connection to the relay host: it offers no TLS, or its "
                "certificate is not\nthe right one.  Port 465 wants TLS from the first byte, 587 "
                "after STARTTLS.  The password was not sent."},
        {"credentials", "There is no password that may be used for this relay host."},
        {"auth", "The relay host does not accept this account and password.  Enter them again."},
        {"mail", "The relay host does not take mail from this sender: the account must be allowed "
                 "to send as it."},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (strcmp(stage, all[i].stage) == 0)
            return all[i].text;
    return "The line with FAIL says what is wrong.";
}

static void test_say_failed(const struct first *f, const char *stage) {
    bool login = strcmp(stage, "auth") == 0 || strcmp(stage, "credentials") == 0;
    printf("\nIt does not work yet.  %s\n", stage_meaning(stage));
    if (login)
        printf("%s wants as account: %s; as password: %s.\n", f->preset->name, f->preset->user,
               f->preset->password);
    if (login || strcmp(stage, "mail") == 0)
        puts(f->preset->note);
    puts("What was written stays, and mail waits.  Give the command again to correct it.");
}

/* False also if the sender's road is another one: then nothing is known of this one. */
static bool first_test(const struct first *f, const struct config *cfg) {
    char *failed = NULL, *next_hop = NULL;
    printf("\nTesting, as mail from %s would go (none is sent):\n", f->sender);
    fflush(stdout);
    bool passed = cli_test_road(cfg, f->sender, &failed, &next_hop);
    bool another = next_hop[0] != '\0' && strcmp(next_hop, f->hosts) != 0;
    if (another)
        printf(
            "\nWhat was written was not tested: mail of %s goes by %s.  Name a sender of %s with "
            "--sender.\n",
            f->sender, next_hop, f->hosts);
    else if (passed)
        printf("\nIt works: mail of %s goes out by %s.\n",
               strcmp(f->users, FIRST_EVERYBODY) == 0 ? "everybody here" : f->users, f->hosts);
    else
        test_say_failed(f, failed);
    free(failed);
    free(next_hop);
    return passed && !another;
}

/* -- the command -- */

/* What is there; a machine without main.cf has the default of everything. */
static bool first_config(struct first *f) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/main.cf", f->dir);
    f->fresh = access(path.p, F_OK) < 0 && errno == ENOENT;
    sbuf_free(&path);
    f->cfg = f->fresh ? config_build(cfg_source_new(f->dir)) : cli_config("posthouse", f->dir);
    return f->cfg != NULL;
}

/* The first address that a daemon would not get, as another program has it. */
struct port_look {
    bool fresh;     /* main.cf, which is still to be made, names loopback's alone */
    char text[128]; /* empty: there is none */
};

static void port_look_at(struct port_look *look, const struct netaddr *a) {
    char ip[INET6_ADDRSTRLEN];
    if (look->text[0] == '\0' && listen_is_free(a) == -EADDRINUSE)
        snprintf(look->text, sizeof look->text, "%s port %u", netaddr_text(a, ip), netaddr_port(a));
}

static void port_look(void *arg, const struct service *svc, const struct netaddr *a) {
    struct port_look *look = arg;
    struct netaddr v4, v6;
    (void)svc;
    netaddr_parse(&v4, STR_LIT("127.0.0.1"), netaddr_port(a));
    netaddr_parse(&v6, STR_LIT("::1"), netaddr_port(a));
    port_look_at(look, look->fresh ? &v4 : a);
    if (look->fresh)
        port_look_at(look, &v6);
}

/* systemd would try to start it again and again, and when the other mail server is started again
 * take its port. */
static bool first_has_ports(const struct first *f) {
    struct port_look look = {.fresh = f->fresh};
    if (cli_daemon(f->cfg) != 0 || (f->no_test && !f->fresh))
        return true;
    listen_each(f->cfg, port_look, &look);
    if (look.text[0] != '\0')
        fprintf(stderr,
                "posthouse: fatal: %s: another program listens there, a mail server perhaps, and "
                "Posthouse would not start, or that one not start again; nothing was written.  "
                "For a Posthouse behind Postfix: posthouse setup beside-postfix first; for one in "
                "its place: posthouse setup replace-postfix, or the package posthouse-mta\n",
                look.text);
    return look.text[0] == '\0';
}

static int first_run(struct first *f) {
    if (!first_config(f) || !first_has_ports(f) || !first_complete(f) || !first_plan(f))
        return 1;
    if (f->asks || f->yes)
        first_show(f);
    if (f->asks && !f->yes && !first_agrees("Write it?")) {
        puts("Nothing was written.");
        return 1;
    }
    if (!first_write(f))
        return 1;
    puts("posthouse: written");
    struct config *cfg = cli_config("posthouse", f->dir);
    bool ok = cfg != NULL && daemon_takes_up(f, cfg) && (f->no_test || first_test(f, cfg));
    config_unref(cfg);
    return ok ? 0 : 1;
}

int cli_first(const char *dir, int argc, char **argv) {
    struct first f = {.dir = cli_dir(dir), .asks = isatty(0) && isatty(1)};
    int rc = EX_USAGE_;
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        rc = first_usage(stdout);
    else if (!first_options(&f, argc, argv) || (!f.asks && f.preset == NULL && f.hosts == NULL))
        first_usage(stderr);
    else
        rc = first_run(&f);
    first_free(&f);
    return rc;
}
