/*
 * cli/newaliases.c - newaliases(1): makes the databases that alias_database names
 *
 * They are those that alias_maps reads, and other programs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/mem.h"
#include "util/str.h"

#define ALIASES_FILE "/etc/aliases"

/* One after the other, each in a process of its own: a file's owner is who makes its database. */
static int alias_build(const char *dir, char *spec) {
    char *args[] = {(char *)(uintptr_t) "postalias", spec, NULL};
    int status = 0;
    pid_t pid = fork();
    if (pid == 0)
        exit(cli_postalias(dir, 2, args));
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
        return 1;
    return WEXITSTATUS(status);
}

int cli_newaliases(const char *dir, int argc, char **argv) {
    const char *named = NULL; /* by -oA */
    int opt, rc = 0;
    optind = 1;
    while ((opt = getopt(argc, argv, CLI_SENDMAIL_LETTERS)) != -1) {
        if (opt == '?')
            return EX_USAGE_;
        if (opt == 'C' || opt == 'c')
            dir = cli_dir_or_file(optarg);
        if (opt == 'o' && optarg[0] == 'A' && optarg[1] != '\0')
            named = optarg + 1;
    }
    if (optind < argc) {
        fputs("newaliases: fatal: alias initialization mode requires no recipient\n", stderr);
        return EX_USAGE_;
    }
    struct config *cfg = cli_config("newaliases", dir);
    if (cfg == NULL)
        return 1;
    char *set = named != NULL ? mem_strdup(named) : config_value(cfg, "alias_database", NULL);
    if (set == NULL && access(ALIASES_FILE, F_OK) < 0)
        return 0;
    struct str rest = str_of(set == NULL ? "hash:" ALIASES_FILE : set), one;
    while (rc == 0 && str_split(&rest, ", \t\r\n", &one)) {
        char *spec = str_dup(one);
        rc = alias_build(dir, spec);
        free(spec);
    }
    free(set);
    return rc;
}
