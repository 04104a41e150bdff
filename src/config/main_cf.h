/*
 * config/main_cf.h - "name = value" files in Postfix's syntax (postconf(5)) and their expansion
 *
 * Parsing keeps values as written; $name is expanded at use (cfg_expand), as in Postfix.  One
 * thread per object; read-only after parsing, then any thread.
 */
#ifndef PH_CONFIG_MAIN_CF_H
#define PH_CONFIG_MAIN_CF_H

#include "config/diag.h"
#include "util/str.h"

struct cfg_entry {
    char *name;
    char *value;
    int line;
    size_t name_n; /* bytes of name */
};

struct cfg_file {
    char *path;
    struct cfg_entry *v; /* in order of first appearance; the last value of a name wins */
    size_t n;
};

/* Never fails as a whole: what is wrong becomes an error in d and is left out. */
void cfg_file_parse(struct cfg_file *f, const char *path, struct str text, struct diags *d);
void cfg_file_free(struct cfg_file *f);
const struct cfg_entry *cfg_file_find(const struct cfg_file *f, struct str name);
/* Sets or replaces an entry (master.cf's -o). */
void cfg_file_set(struct cfg_file *f, struct str name, struct str value, int line);

/* Where a name's unexpanded value comes from; NULL if it is not defined. */
typedef const char *(*cfg_lookup_fn)(void *arg, struct str name);

/* Appends value with all $name, ${name}, ${name?…}, ${name:…} and ${{a}==…} replaced.  Negative
 * errno with *why set when the syntax is wrong or the nesting endless; undefined names expand to
 * nothing and are noted in undefined (may be NULL). */
int cfg_expand(struct sbuf *out, struct str value, cfg_lookup_fn fn, void *arg, const char **why,
               struct sbuf *undefined);

#endif
