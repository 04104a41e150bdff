/*
 * config/unread.h - the parameters and restrictions of Postfix that Posthouse does not have
 *
 * The tables are unread.def, constant and readable from any thread.  What they refuse in one
 * configuration is a list of struct refusal, made with the snapshot (refusal.c) and read-only from
 * then on.
 */
#ifndef PH_CONFIG_UNREAD_H
#define PH_CONFIG_UNREAD_H

#include <stdbool.h>
#include <stddef.h>

#include "util/str.h"

/* Which of what Posthouse does would be done wrongly. */
enum unread_where {
    UNREAD_NOWHERE, /* of rows that are harmless */
    UNREAD_MAIL,
    UNREAD_ALIAS,
    UNREAD_SMTPD,
    UNREAD_POSTSCREEN,
    UNREAD_SENDMAIL,
    UNREAD_CLIENT,
    UNREAD_LMTP,
    UNREAD_BOTH
};

struct unread {
    const char *name;        /* the whole name, or its beginning or end */
    size_t name_n;           /* bytes of name */
    enum unread_where where; /* UNREAD_NOWHERE: harmless */
    const char *idle;        /* values that ask for nothing, "|" between them; NULL: harmless */
    const char *text;        /* what would be done instead, or why the name is harmless */
};

/* The row of a parameter: its own, else the one of its end or beginning; NULL: Postfix has no such
 * parameter, or Posthouse reads it. */
const struct unread *unread_find(const char *name);

struct unread_word {
    const char *name;
    bool argument;    /* a table or another word follows */
    bool refused;     /* false: harmless */
    const char *text; /* what is done without it, or why it is harmless */
};

/* The row of a restriction that Posthouse does not have; NULL: there is none. */
const struct unread_word *unread_word_find(struct str word);

/* One row, whichever kind it is of. */
struct unread_row {
    const char *kind; /* "refused", "harmless suffix", "refused word", … */
    const char *name;
    const char *idle; /* "" where there is none */
    const char *text;
};

/* Calls fn for every row, in the table's order of kinds. */
void unread_each(void (*fn)(void *arg, const struct unread_row *row), void *arg);
/* Is the name one of a row that is refused? */
bool unread_is_refused(struct str name);

#endif
