/*
 * maps/query.h - asking the lookup process, from an event loop
 *
 * One client per loop, over one socket of a pair.  Questions are answered in any order; every
 * question gets exactly one answer unless it is cancelled.  No function here calls back before it
 * returns: an answer that is known is either returned as a value or given from the loop.  When the
 * lookup process goes away, what is open is asked again of the next one; of a question that two
 * have died with, or that no process takes in time, the answer is an error: mail waits, nothing
 * falls through to a less specific rule.
 */
#ifndef PH_MAPS_QUERY_H
#define PH_MAPS_QUERY_H

#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "maps/map.h"
#include "maps/maps.h"
#include "maps/recent.h"
#include "util/ipc.h"
#include "util/loop.h"

struct lookup;

typedef void (*lookup_maps_fn)(void *arg, const struct maps_answer *a);
typedef void (*lookup_match_fn)(void *arg, enum match_rc rc);

/* No connection yet: questions wait for lookup_attach. */
struct lookup *lookup_new(struct loop *l);
/* Takes over fd; questions still open are asked again there. */
void lookup_attach(struct lookup *k, int fd);
/* What lookup_route and lookup_match_now may answer from; shared by all loops.  NULL: nothing. */
void lookup_remember(struct lookup *k, struct recent *memory);
/* Asks the tables of spec.  values: does the parameter take one value, or a list?  service is the
 * name that a warning is logged under ("smtp").  Returns a tag for lookup_cancel, never 0; fn is
 * called from the loop, never before this returns. */
uint32_t lookup_maps(struct lookup *k, const char *service, const char *spec,
                     enum map_values values, const struct maps_key *keys, size_t n,
                     lookup_maps_fn fn, void *arg);
/* The same for routes: their answers are remembered for RECENT_MS (errors never are).  Returns 0 if
 * the answer is known: it is in *now then (the caller frees it), and fn is not called. */
uint32_t lookup_route(struct lookup *k, const char *service, const char *spec,
                      enum map_values values, const struct maps_key *keys, size_t n,
                      struct maps_answer *now, lookup_maps_fn fn, void *arg);
/* The same for explanations: the answer has a trace.  secret: what the tables answer is not shown
 * in it. */
uint32_t lookup_maps_traced(struct lookup *k, const char *service, const char *spec,
                            enum map_values values, const struct maps_key *keys, size_t n,
                            bool secret, lookup_maps_fn fn, void *arg);
/* Asks a match list.  Returns 0 if the answer is known, because the list has no tables or it is
 * remembered (as in lookup_route): it is *now then, and fn is not called.  Else fn is called from
 * the loop, never before this returns. */
uint32_t lookup_match_now(struct lookup *k, const char *service, const char *spec,
                          enum match_kind kind, unsigned how, struct str key, enum match_rc *now,
                          lookup_match_fn fn, void *arg);
/* Asks the accounts store whether that is user's password: MAP_FOUND (the value is the user's
 * canonical name), MAP_NOT_FOUND (no; value says why, for the log), MAP_ERROR.  secure: the session
 * is encrypted. */
uint32_t lookup_verify(struct lookup *k, struct str user, struct str password, bool secure,
                       const char *client, lookup_maps_fn fn, void *arg);
/* Empties both caches of answers, here and in the lookup process; fn is called when both are empty:
 * what is asked from then on is asked anew. */
uint32_t lookup_forget(struct lookup *k, lookup_maps_fn fn, void *arg);
/* loop_later on the loop of k. */
void lookup_later(struct lookup *k, struct later *later);
/* The callback is not called any more; tag 0 is no question. */
void lookup_cancel(struct lookup *k, uint32_t tag);

/* Is every user on a list of login names?  It begins with a table that answers everything then, as
 * Postfix sees it. */
static inline bool lookup_users_all(const char *list) {
    return strncmp(list, "static:", 7) == 0;
}

/* Asks a list of login names for the user with that number: for its name in /etc/passwd, or
 * "unknown".  As lookup_match_now. */
static inline uint32_t lookup_user_now(struct lookup *k, const char *service, const char *list,
                                       uid_t uid, enum match_rc *now, lookup_match_fn fn,
                                       void *arg) {
    char number[24];
    int n = snprintf(number, sizeof number, "%lu", (unsigned long)uid);
    return lookup_match_now(k, service, list, MATCH_USER, false, str_make(number, (size_t)n), now,
                            fn, arg);
}

/* Message types between relay and lookup process. */
enum {
    LOOKUP_MAPS = 1,
    LOOKUP_MATCH = 2,
    LOOKUP_ANSWER = 3,
    LOOKUP_BYE = 4,
    LOOKUP_TRACED = 5, /* LOOKUP_MAPS with a trace in the answer */
    LOOKUP_VERIFY = 6, /* is that the user's password? */
    LOOKUP_FORGET = 7  /* answers that were remembered */
};

/* How an answer's rc travels.  A number that is none is read as an error. */
static inline void ipc_put_rc(struct sbuf *out, enum map_rc rc) {
    ipc_put_u32(out, (uint32_t)((int)rc + 1));
}

/* A number that is none is read as the stricter one. */
static inline void ipc_put_values(struct sbuf *out, enum map_values values) {
    ipc_put_u32(out, values == VALUES_JOINED);
}

static inline enum map_values ipc_get_values(struct ipc_reader *r) {
    return ipc_get_u32(r) == 1 ? VALUES_JOINED : VALUES_ONE;
}

static inline enum map_rc ipc_get_rc(struct ipc_reader *r) {
    uint32_t rc = ipc_get_u32(r);
    return rc == MAP_FOUND + 1 ? MAP_FOUND : rc == MAP_NOT_FOUND + 1 ? MAP_NOT_FOUND : MAP_ERROR;
}

#endif
