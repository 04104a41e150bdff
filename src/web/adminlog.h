/*
 * web/adminlog.h - what administrators did, in iRedAdmin's shape
 *
 * A row of the log table, and a line of the mail log.  Any thread.
 */
#ifndef PH_WEB_ADMINLOG_H
#define PH_WEB_ADMINLOG_H

#include "web/http.h"

/* event: login, update, create, delete …; account: a domain, a user, or "". */
void adminlog(struct req *r, const char *event, const char *account, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* GET /api/log */
void adminlog_list(struct req *r);

#endif
