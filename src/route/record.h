/*
 * route/record.h - a relay record: hosts, TLS mode, mechanisms and account of a relay, in one
 *
 * Kept in Posthouse's own database, found from a next hop as it is; the lookup process gives it as
 * a JSON text (maps/map_relays.c), without its secret.  Used on the thread that parsed it.
 */
#ifndef PH_ROUTE_RECORD_H
#define PH_ROUTE_RECORD_H

#include "util/str.h"

struct record {
    char *id; /* for the question about its secret */
    char *name;
    char *hosts; /* next hops in order */
    char *tls;   /* may, encrypt, verify, secure or none */
    char *mechanisms;
    char *user;    /* "": no AUTH */
    char *account; /* that may use it, as maps/relays.h has it */
};

/* False if text is none. */
bool record_parse(struct record *r, struct str text);
void record_free(struct record *r);

#endif
