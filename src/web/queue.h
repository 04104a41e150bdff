/*
 * web/queue.h - the mail queue on the page (handlers of routes.c)
 *
 * All of it is asked of the daemon; domain administrators see no queue.
 */
#ifndef PH_WEB_QUEUE_H
#define PH_WEB_QUEUE_H

#include "web/http.h"

void queue_list(struct req *r);   /* GET /api/queue */
void queue_counts(struct req *r); /* GET /api/queue/counts: JSON, or a stream while they change */
void queue_show(struct req *r);   /* GET /api/message/{id} */
void queue_act(struct req *r);    /* POST /api/queue/{action} */

#endif
