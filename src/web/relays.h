/*
 * web/relays.h - relay records and their health (handlers of routes.c)
 */
#ifndef PH_WEB_RELAYS_H
#define PH_WEB_RELAYS_H

#include "web/http.h"

void relays_list(struct req *r);  /* GET /api/relays */
void relay_show(struct req *r);   /* GET /api/relay/{name} */
void relay_change(struct req *r); /* PUT /api/relay/{name} */
void relay_delete(struct req *r); /* DELETE /api/relay/{name} */
void presets_list(struct req *r); /* GET /api/presets */

/* For global administrators: the names of the server's records on whose list account or its domain
 * is, whether they use them or not.  Empty where they cannot be read. */
json_t *relays_letting(struct req *r, const char *account);
/* May account be set to the relay host value?  An administrator of everything puts it on the list
 * of the record that value means; others may name a record with an account only if they are on it.
 * False after a reply.  *let (the caller frees): the record whose list account was put on; NULL:
 * none. */
bool relays_allow(struct req *r, const char *value, const char *account, char **let);
/* Takes account off that list again: it is not set to the record after all. */
void relays_take_back(struct req *r, const char *let, const char *account);
/* The same of a transport ("relay:next hop"), which mail from anybody takes. */
bool relays_allow_transport(struct req *r, const char *value);

#endif
