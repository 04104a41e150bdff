/*
 * config/secret.c - which texts of the configuration are secret; see secret.h
 */
#include "config/secret.h"

#include <string.h>

#include "config/config.h"
#include "util/str.h"

#define LOGINS "smtp_sasl_password_maps"

/* Ends of the names that give the parameters of a table in main.cf: "TABLE_password". */
static const char *const of_tables[] = {"_password", "_bind_pw"};

enum secret_kind secret_param(const char *name) {
    if (strcmp(name, LOGINS) == 0)
        return SECRET_INLINE;
    if (param_find(name, strlen(name)) != NULL)
        return SECRET_NOT;
    if (str_is_slip(str_of(name), STR_LIT(LOGINS)))
        return SECRET_INLINE;
    bool of_table = str_end_of(name, of_tables, sizeof of_tables / sizeof of_tables[0]) >= 0;
    return of_table ? SECRET_VALUE : SECRET_NOT;
}

enum secret_kind secret_setting(const char *name, const char *value) {
    enum secret_kind kind = secret_param(name);
    bool writes_rows = strcasestr(value, "static:") != NULL || strcasestr(value, "inline:") != NULL;
    return kind == SECRET_NOT && writes_rows && param_find(name, strlen(name)) == NULL
               ? SECRET_INLINE
               : kind;
}

bool secret_answers(const struct config *c, const struct params *p, const char *spec) {
    return strcmp(spec, p->smtp_sasl_password_maps) == 0 ||
           (c->relays_spec[0] != '\0' && strcmp(spec, c->relays_spec) == 0);
}
