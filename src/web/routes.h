/*
 * web/routes.h - which handler answers which path, and who may ask
 */
#ifndef PH_WEB_ROUTES_H
#define PH_WEB_ROUTES_H

#include "web/http.h"

/* The server's dispatch function: one reply, whatever the request. */
void routes_dispatch(struct req *r);

#endif
