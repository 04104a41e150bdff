/*
 * cli/check.c - posthouse check: what an audit finds, as lines
 *
 * Exit status 0 clean, 1 warnings, 2 errors.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "daemon/audit.h"
#include "daemon/certrows.h"

/* The remarks of one level; first what is refused. */
static void print_level(const struct diags *d, enum diag_level level) {
    static const char *names[] = {"note", "warning", "error"};
    for (size_t i = 0; i < d->n; i++) {
        const struct diag *x = &d->v[i];
        if (x->level != level)
            continue;
        if (x->file != NULL && x->line > 0)
            printf("%s: %s, line %d: %s\n", names[x->level], x->file, x->line, x->text);
        else if (x->file != NULL)
            printf("%s: %s: %s\n", names[x->level], x->file, x->text);
        else
            printf("%s: %s\n", names[x->level], x->text);
    }
}

int cli_check(const char *dir, int argc, char **argv) {
    struct diags d = {0};
    if (argc > 1) {
        fprintf(stderr, "posthouse: check takes no arguments: %s\n", argv[1]);
        return EX_USAGE_;
    }
    char *full = cli_real_dir("posthouse", dir);
    if (full == NULL)
        return 2;
    map_log_no_remarks(); /* the audit says them */
    struct config *c = config_build(cfg_source_new(full));
    audit_tables_of(c);
    certrows_read(c);
    audit(c, &d);
    for (int level = DIAG_ERROR; level >= DIAG_NOTE; level--) {
        print_level(&c->diags, (enum diag_level)level);
        print_level(&d, (enum diag_level)level);
    }
    int rc = c->diags.errors + d.errors > 0 ? 2 : c->diags.warnings + d.warnings > 0 ? 1 : 0;
    if (rc == 0)
        printf("%s: no mistakes found\n", full);
    config_unref(c);
    diag_free(&d);
    free(full);
    return rc;
}
