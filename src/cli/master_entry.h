/*
 * cli/master_entry.h - one service of master.cf, in words, as postconf shows it
 */
#ifndef PH_CLI_MASTER_ENTRY_H
#define PH_CLI_MASTER_ENTRY_H

#include "util/str.h"

enum master_field {
    MASTER_SERVICE,
    MASTER_TYPE,
    MASTER_PRIVATE,
    MASTER_UNPRIVILEGED,
    MASTER_CHROOT,
    MASTER_WAKEUP,
    MASTER_LIMIT,
    MASTER_COMMAND, /* and behind it the arguments */
    MASTER_FIELDS
};

/* Names of the fields, as -F has them. */
extern const char *const master_field_names[MASTER_FIELDS];

/* The words of a service, -o and its like divided from their values, without braces. */
struct master_entry {
    char **words; /* owned; MASTER_FIELDS at least */
    size_t n;
    int line; /* where it begins, from 1 */
};

/* Reads a logical line into e, which is empty.  NULL, or what is wrong with it, which the caller
 * frees; e is to be freed in each case.  Warnings about braces go to standard error. */
char *master_entry_parse(struct master_entry *e, struct str text);
void master_entry_free(struct master_entry *e);

/* Is the word at i, an argument, an option with a value behind it? */
bool master_entry_has_value(const struct master_entry *e, size_t i);
/* The parameter that the option -o with its value at i sets; false: it sets none. */
bool master_entry_override(const struct master_entry *e, size_t i, struct str *name,
                           struct str *value);
/* The first argument that is no option, or n. */
size_t master_entry_rest(const struct master_entry *e);

/* A value as it is to be shown, or NULL for the value itself; the caller frees. */
typedef char *(*master_value_fn)(void *arg, const struct master_entry *e, size_t i);

struct master_print {
    bool fold;             /* long lines are folded as Postfix folds them */
    bool hide;             /* what may be a password in what is no -o name=value is not shown */
    master_value_fn value; /* may be NULL */
    void *arg;
};

/* Appends the whole service as a line of master.cf; what it appends reads as the same words. */
void master_entry_print(struct sbuf *out, const struct master_entry *e,
                        const struct master_print *how);
/* Appends a field's value (of MASTER_COMMAND: with the arguments) to a line that begins at
 * start in out. */
void master_field_print(struct sbuf *out, const struct master_entry *e, enum master_field field,
                        size_t start, const struct master_print *how);

#endif
