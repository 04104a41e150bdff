/*
 * config/refusal.h - what a configuration asks for that Posthouse neither does nor may leave out
 *
 * A list belongs to a snapshot or to one of its services, is made with it and is read-only from
 * then on.  A service with a refusal that is not accepted takes no mail (or sends none).
 */
#ifndef PH_CONFIG_REFUSAL_H
#define PH_CONFIG_REFUSAL_H

#include <stdbool.h>
#include <stddef.h>

#include "config/main_cf.h"
#include "config/params.h"

struct refusal {
    const char *name; /* of the parameter or the restriction; the snapshot's text or constant */
    const char *list; /* the parameter that a restriction stands in; NULL: a parameter */
    const char *text; /* what would be done instead; constant */
    const char *file; /* the snapshot's text; NULL: no place */
    int line;         /* 0: no place */
    bool own;         /* it comes from an -o of the service */
    bool accepted;    /* accept_unimplemented names it */
    bool for_good;    /* accept_unimplemented cannot name it */
};

struct refusals {
    struct refusal *v; /* NULL: none */
    size_t n;
};

/* The lists of restrictions, postconf(5), in the order in which they are evaluated.  That of ETRN
 * is a parameter that Posthouse does not have. */
enum { REFUSAL_LISTS = 7 };
extern const char *const refusal_lists[REFUSAL_LISTS];

/* Who asks: a service, or sendmail's mail. */
struct refusal_asker {
    const struct cfg_file *main;
    const struct cfg_file *own; /* its -o; NULL: sendmail's mail, which is none of a service */
    const struct params *p;
    bool receives; /* it is an smtpd */
    bool sends;    /* it is a transport by SMTP */
    bool lmtp;     /* it is a transport by LMTP */
    bool expands;  /* it is a local(8), of which Posthouse has the aliases */
    bool postscreen;
    bool line_of_sendmail; /* own is that of a line which sendmail's mail passes */
    /* A text with its $names replaced; NULL: bad syntax.  The caller frees. */
    char *(*expand)(void *arg, const char *text);
    void *arg;
};

/* Fills an empty list. */
void refusals_fill(struct refusals *to, const struct refusal_asker *who);
/* Adds what the -o of another line of master.cf asks for, of a service that every mail passes in
 * Postfix (cleanup, say), which is part of who here. */
void refusals_add_line(struct refusals *to, const struct refusal_asker *who,
                       const struct cfg_file *line);
/* Adds that the service's line, in the file, has a word that belongs to no option. */
void refusals_add_stray_word(struct refusals *to, const char *file, int line);
/* Is it a name that accept_unimplemented may have?  What a configuration is told to name there is
 * one, also when what asked for it has gone. */
bool refusals_may_have(struct str name);
void refusals_free(struct refusals *r);
/* The first that is not accepted; NULL: nothing is refused. */
const struct refusal *refusals_first(const struct refusals *r);

#endif
