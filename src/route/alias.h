/*
 * route/alias.h - what a name that a local transport delivers stands for, by aliases(5)
 *
 * Postfix's local(8) as far as it forwards: the table is asked for the local part, then for that
 * without its extension; names among the answers are looked up in their turn.  The result is a
 * graph of all the names, out of which a walk makes the addresses that go on, each once, and their
 * senders.  What local(8) would put into a mailbox or a file, give to a command or read from an
 * :include: file is not done: then nothing goes on, and the result says so by the alias's name.
 * Asked at RCPT and anew at every attempt; nothing is stored.
 */
#ifndef PH_ROUTE_ALIAS_H
#define PH_ROUTE_ALIAS_H

#include "config/config.h"
#include "maps/query.h"
#include "route/alias_walk.h"
#include "route/trace.h"

/* The step of an explanation that says what a name stands for, and its result when it is none. */
#define ALIAS_STEP "alias_maps"
#define ALIAS_NONE "no alias"

enum alias_rc {
    ALIAS_UNSET,
    ALIAS_OK,
    ALIAS_FAILED, /* a table could not be asked: defer, 4.3.0 */
    ALIAS_WAITS   /* no alias, or one that cannot be carried out here: defer, 4.3.5 */
};

/* What stands between two commas of an alias, and is none of these: addresses. */
enum alias_kind {
    ALIAS_ADDRESSES,
    ALIAS_FILE,
    ALIAS_COMMAND,
    ALIAS_INCLUDE,
    ALIAS_MAILBOX, /* \name */
    ALIAS_HOME,    /* ~/file */
    ALIAS_NOTHING  /* neither */
};

/* Takes the next item of an alias's value; false: there is none. */
bool alias_item_next(struct str *rest, struct str *item);
enum alias_kind alias_item_kind(struct str item);
/* What is wrong with an item of that kind; NULL: nothing. */
const char *alias_kind_text(enum alias_kind kind);

struct alias_result {
    enum alias_rc rc;
    struct sbuf why;           /* ALIAS_WAITS: names the alias */
    bool is_named;             /* the first name is that of an alias */
    struct alias_graph *graph; /* ALIAS_OK: what goes on, for alias_walk */
};

/* Ends what a result has; safe for one that is zeroed. */
void alias_result_free(struct alias_result *r);

typedef void (*alias_fn)(void *arg, struct alias_result *r);

struct alias_query;

/* rcpt is an address with a local transport.  Calls fn once, on the loop of k and never
 * before this returns; *r is valid until fn returns, and what fn takes out of it it sets to NULL.
 * trace may be NULL. */
struct alias_query *alias_expand(const struct config *cfg, struct lookup *k, struct str rcpt,
                                 struct trace *trace, alias_fn fn, void *arg);
/* fn is not called any more; q may be NULL. */
void alias_cancel(struct alias_query *q);

#endif
