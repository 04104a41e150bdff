/*
 * web/dashboard.h - how mail goes: history, busiest, warnings, metrics (handlers of routes.c)
 */
#ifndef PH_WEB_DASHBOARD_H
#define PH_WEB_DASHBOARD_H

#include "web/http.h"

void dashboard_show(struct req *r); /* GET /api/dashboard */
void check_show(struct req *r);     /* GET /api/check */
void metrics_show(struct req *r);   /* GET /metrics (Prometheus text format 0.0.4) */
void health_show(struct req *r);    /* GET /healthz */

/* Notes the counts once a minute for as long as the process lives; one thread of its own. */
bool samples_start(struct web *w);

#endif
