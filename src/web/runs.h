/*
 * web/runs.h - explanations and tests that the page asks the daemon for (handlers of routes.c)
 *
 * A run has an address: its steps appear there as they happen, and stay for a month.
 */
#ifndef PH_WEB_RUNS_H
#define PH_WEB_RUNS_H

#include "web/http.h"

void run_start(struct req *r); /* POST /api/runs */
void run_show(struct req *r);  /* GET /api/run/{id}: JSON, or a stream of its steps */

#endif
