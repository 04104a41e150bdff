/*
 * config/secret.c - which texts of the configuration are secret; see secret.h
 */
#include "config/secret.h"

#include <string.h>

#include "config/config.h"

/* Ends of the names that give the parameters of a table in main.cf: "TABLE_password". */
static const char *const of_tables[] = {"_password", "_bind_pw"};

enum secret_kind secret_param(const char *name) {
    if (strcmp(name, "smtp_sasl_password_maps") == 0)
        return SECRET_INLINE;
    if (param_find(name, strlen(name)) != NULL)
        return SECRET_NOT;
    bool of_table = str_end_of(name, of_tables, sizeof of_tables / sizeof of_tables[0]) >= 0;
    return of_table ? SECRET_VALUE : SECRET_NOT;
}

bool secret_answers(const struct config *c, const struct params *p, const char *spec) {
    return strcmp(spec, p->smtp_sasl_password_maps) == 0 ||
           (c->relays_spec[0] != '\0' && strcmp(spec, c->relays_spec) == 0);
}
