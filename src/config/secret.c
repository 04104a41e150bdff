/*
 * config/secret.c - which texts of the configuration are secret; see secret.h
 */
#include "config/secret.h"

#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config/unread.h"

/* Parameters whose tables have logins. */
static const char *const of_logins[] = {"smtp_sasl_password_maps", "lmtp_sasl_password_maps"};

/* Ends of the names that give the parameters of a table in main.cf: "TABLE_password". */
static const char *const of_tables[] = {"_password", "_bind_pw"};

enum secret_kind secret_param(const char *name) {
    bool known = param_find(name, strlen(name)) != NULL;
    for (size_t i = 0; i < sizeof of_logins / sizeof of_logins[0]; i++)
        if (strcmp(name, of_logins[i]) == 0 ||
            (!known && str_is_slip(str_of(name), str_of(of_logins[i]))))
            return SECRET_INLINE;
    if (known)
        return SECRET_NOT;
    bool of_table = str_end_of(name, of_tables, sizeof of_tables / sizeof of_tables[0]) >= 0;
    return of_table ? SECRET_VALUE : SECRET_NOT;
}

/* Are there rows in the value itself? */
static bool writes_rows(const char *value) {
    return strcasestr(value, "static:") != NULL || strcasestr(value, "inline:") != NULL ||
           strcasestr(value, "map:{") != NULL;
}

enum secret_kind secret_setting(const char *name, const char *value) {
    enum secret_kind kind = secret_param(name);
    return kind == SECRET_NOT && writes_rows(value) && param_find(name, strlen(name)) == NULL
               ? SECRET_INLINE
               : kind;
}

/* The name that text begins with, up to a blank or a sign; the caller frees. */
static char *name_at(struct str text) {
    struct str word = STR_NONE;
    str_split(&text, " \t\r\n{}=:,", &word);
    return str_dup(word);
}

/* A name and a login have a colon in common with much that is harmless. */
static bool word_is_secret(struct str word) {
    char *name = name_at(word);
    bool secret = secret_param(name) != SECRET_NOT || str_chr(word, ':') >= 0;
    free(name);
    return secret;
}

static bool name_is_known(const char *name) {
    return param_find(name, strlen(name)) != NULL || unread_find(name) != NULL ||
           secret_param(name) != SECRET_NOT;
}

/* lone: a single word that is no name is secret. */
static void quote_text(struct str text, bool lone, struct sbuf *out) {
    char *name = name_at(text);
    bool known = name_is_known(name), secret = false;
    struct str rest = text, word;
    size_t words = 0;
    while (str_split(&rest, " \t\r\n,{}", &word)) {
        secret = secret || word_is_secret(word);
        words++;
    }
    if (secret || (lone && words == 1 && !known))
        sbuf_printf(out, "%s%s(hidden)", known ? name : "", known ? " " : "");
    else
        sbuf_add_str(out, text);
    free(name);
}

void secret_quote(struct str text, struct sbuf *out) {
    quote_text(text, false, out);
}

void secret_quote_line(struct str line, struct sbuf *out) {
    quote_text(line, true, out);
}

const char *secret_quote_value(const char *name, const char *value) {
    return secret_setting(name, value) == SECRET_NOT || value[0] == '\0' ? value : "(hidden)";
}

const char *secret_quote_undefined(const char *name, struct str value, const char *names) {
    char *text = str_dup(value);
    bool secret = secret_param(name) != SECRET_NOT && writes_rows(text);
    free(text);
    return secret ? "(hidden; a $ of a password is written $$)" : names;
}

bool secret_answers(const struct config *c, const struct params *p, const char *spec) {
    return strcmp(spec, p->smtp_sasl_password_maps) == 0 ||
           (c->relays_spec[0] != '\0' && strcmp(spec, c->relays_spec) == 0);
}
