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

#endif
