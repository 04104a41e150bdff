/*
 * cli/main.c - the posthouse command: which face, which command
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/audit.h"
#include "util/fs.h"
#include "util/mem.h"

struct face {
    const char *name;
    int (*run)(const char *dir, int argc, char **argv);
    const char *help;
};

static int cmd_map(const char *dir, int argc, char **argv);

static const struct face commands[] = {
    {"check", cli_check,
     "check                        say every mistake, unused parameter, unmatched credential"},
    {"explain", cli_explain,
     "explain SENDER [RECIPIENT] [--json]   which rule, next hop, credential and TLS policy, and "
     "why"},
    {"test", cli_test,
     "test SENDER [RECIPIENT] [--json]      walk that road with the daemon's own client, up to "
     "RCPT"},
    {"relay", cli_relay,
     "relay list|set|unset ACCOUNT [RELAYHOST]   who relays where, in the accounts store"},
    {"record", cli_record,
     "record list|set|delete NAME …   relay records: hosts, TLS mode and account in one"},
    {"domain", cli_domain, "domain add DOMAIN            to the embedded accounts store"},
    {"user", cli_user, "user add USER@DOMAIN         the same, a user who may log in and send"},
    {"admin", cli_admin,
     "admin add|link ADDRESS [DOMAIN]   the same, an administrator; link: his way into the page"},
    {"queue", cli_queue,
     "queue list|show|flush|delete|retry|hold|release|expire   [--json] [FILTER …] [ID …|ALL]"},
    {"reload", cli_reload,
     "reload                       have the daemon read its configuration again"},
    {"restart", cli_restart,
     "restart                      have it become a new one; no client is refused"},
    {"setup", cli_setup,
     "setup                        asks for the relay host and its account, writes and tests it"},
    {"setup", cli_setup,
     "setup beside-postfix [--apply|--undo]   relay for the Postfix of this machine, and back"},
    {"setup", cli_setup,
     "setup replace-postfix [--apply|--undo]  the whole move into Postfix's place, and back"},
    {"container", cli_container,
     "container [health]           a container's first process: configured by its environment"},
    {"import", cli_import, "import [--keep] [DIR]        the queue of a Postfix that is stopped"},
    {"export", cli_export, "export [DIR]                 and back: what waits here, to Postfix"},
    {"map", cmd_map, "map build|query|dump TABLE   what postmap does"},
    {"config", cli_postconf, "config [-n|-d|-h] [NAME …]   what postconf shows"},
};

static const struct face faces[] = {
    {"postmap", cli_postmap, NULL},     {"postqueue", cli_postqueue, NULL},
    {"mailq", cli_mailq, NULL},         {"sendmail", cli_sendmail, NULL},
    {"postconf", cli_postconf, NULL},   {"postsuper", cli_postsuper, NULL},
    {"postalias", cli_postalias, NULL}, {"newaliases", cli_newaliases, NULL},
    {"postcat", cli_postcat, NULL},     {"qshape", cli_qshape, NULL},
    {"postfix", cli_postfix, NULL},
};

static int cli_usage(FILE *to) {
    fputs("usage: posthouse [-c DIR] COMMAND …\n", to);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(to, "  %s\n", commands[i].help);
    fputs("Called by one of these names it behaves as that command of Postfix's:", to);
    for (size_t i = 0; i < sizeof faces / sizeof faces[0]; i++)
        fprintf(to, " %s", faces[i].name);
    fputc('\n', to);
    return to == stdout ? 0 : EX_USAGE_;
}

/* "map build hash:x", "map query KEY hash:x", "map dump hash:x" in postmap's words. */
static int cmd_map(const char *dir, int argc, char **argv) {
    char *out[8] = {(char *)(uintptr_t) "postmap"};
    int n = 1;
    if (argc == 3 && strcmp(argv[1], "build") == 0) {
        out[n++] = argv[2];
    } else if (argc == 3 && strcmp(argv[1], "dump") == 0) {
        out[n++] = (char *)(uintptr_t) "-s";
        out[n++] = argv[2];
    } else if (argc == 4 && strcmp(argv[1], "query") == 0) {
        out[n++] = (char *)(uintptr_t) "-q";
        out[n++] = argv[2];
        out[n++] = argv[3];
    } else {
        fputs("usage: posthouse map build TABLE | query KEY TABLE | dump TABLE\n", stderr);
        return EX_USAGE_;
    }
    return cli_postmap(dir, n, out);
}

/* What was printed must have been written: a program that keeps a listing or a message in a file
 * learns from the exit status that it has not all of it.  As with Postfix's postqueue, a reader
 * that stops reading is no failure. */
static int cli_end(const char *who, int rc) {
    bool failed = ferror(stdout) != 0;
    errno = 0;
    bool fails = fclose(stdout) != 0;
    int why = fails ? errno : 0;
    if ((!failed && !fails) || why == EPIPE)
        return rc;
    fprintf(stderr, "%s: fatal: output write error%s%s\n", who, why == 0 ? "" : ": ",
            why == 0 ? "" : strerror(why));
    return rc == EX_OK_ ? EX_UNAVAILABLE_ : rc;
}

/* argv begins with the command. */
static int cli_run(const char *dir, int argc, char **argv) {
    if (argc < 1)
        return cli_usage(stderr);
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)
        return cli_usage(stdout);
    if (strcmp(argv[0], "--version") == 0) {
        puts("posthouse " PH_VERSION);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[0], commands[i].name) == 0)
            return commands[i].run(dir, argc, argv);
    for (size_t i = 0; i < sizeof faces / sizeof faces[0]; i++) /* posthouse postmap … */
        if (strcmp(argv[0], faces[i].name) == 0)
            return faces[i].run(dir, argc, argv);
    fprintf(stderr, "posthouse: no such command: %s\n", argv[0]);
    return cli_usage(stderr);
}

int main(int argc, char **argv) {
    const char *base = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *dir = NULL;
    fs_open_standard();
    base = base != NULL ? base + 1 : argc > 0 ? argv[0] : "posthouse";
    for (size_t i = 0; i < sizeof faces / sizeof faces[0]; i++)
        if (strcmp(base, faces[i].name) == 0)
            return cli_end(base, faces[i].run(NULL, argc, argv));
    int at = argc > 0 ? 1 : 0;
    if (at + 1 < argc && strcmp(argv[at], "-c") == 0) {
        dir = argv[at + 1];
        at += 2;
    }
    return cli_end("posthouse", cli_run(dir, argc - at, argv + at));
}
