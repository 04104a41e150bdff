/*
 * maps/dbtable.h - what every table in a database does: its file, and the end of a question
 *
 * Used by map_sql.c and map_ldap.c, on the lookup process's workers.
 */
#ifndef PH_MAPS_DBTABLE_H
#define PH_MAPS_DBTABLE_H

#include "maps/map.h"
#include "maps/maps.h"
#include "maps/pool.h"
#include "maps/tabconf.h"

/* m's table file; NULL with m's error set. */
struct tabconf *dbtable_conf(struct map *m);
/* 0, or -EINVAL with m's error set: wrong is a sentence, bad the name of a parameter; NULL: none.
 */
int dbtable_check(struct map *m, const char *wrong, const char *bad);

/* The table's "domain" list, to be closed with matchlist_close; NULL: it has none. */
struct matchlist *dbtable_domains(const struct tabconf *c);
/* What the table's "domain" (NULL: none) says of key: MAP_FOUND: it may be asked; MAP_ERROR: the
 * list cannot be asked itself, and m's error says why. */
enum map_rc dbtable_has_key(struct map *m, struct str key, struct matchlist *domains);
/* The same for map_ops.asks: asks no server, and is true where one would have to say. */
bool dbtable_may_ask(struct str key, struct matchlist *domains);
/* What map_ops.where says of a key that the table is not asked for; what: "query". */
void dbtable_add_not_asked(const char *what, struct sbuf *out);

/* The values that a question gives. */
struct dbvalues {
    struct str key;
    const char *format; /* result_format */
    struct sbuf out;
    int64_t n;
};

/* For the next try of the same question. */
void dbvalues_reset(struct dbvalues *v);
/* One value; p == NULL: NULL, which is skipped. */
void dbvalues_add(struct dbvalues *v, struct str value);
/* The answer: appended to value, or m's error.  limit: expansion_limit.  Frees why and v's text. */
enum map_rc dbvalues_end(struct dbvalues *v, struct map *m, enum remote_rc rc, char *why,
                         int64_t limit, struct sbuf *value);

#endif
