/*
 * report/logline.h - lines of the mail log in Postfix 3.7's shapes
 *
 * So that pflogsumm, fail2ban and the exporters go on working.  Any thread.
 */
#ifndef PH_REPORT_LOGLINE_H
#define PH_REPORT_LOGLINE_H

#include "mail/envelope.h"
#include "mail/mailerr.h"

struct logline_times {
    int64_t arrival_us;
    int64_t active_us;
    int64_t begin_us;
    int64_t conn_us; /* 0: no connection */
    int64_t end_us;
    const char *tls; /* what "tls=" says; NULL or "": the field is left out */
};

/* "QID: to=<…>, relay=…, [conn_use=n, ]delay=…, delays=a/b/c/d, [tls=…, ]dsn=…, status=… (text)".
 */
void logline_delivery(const char *name, const char *service, const char *qid,
                      const struct rcpt *rcpt, const char *relay, unsigned conn_use,
                      const struct logline_times *t, const struct mailerr *e);
/* "QID: from=<…>, size=n, nrcpt=n (queue active)". */
void logline_active(const struct envelope *e, uint32_t nrcpt);
void logline_removed(const char *qid);
/* "QID: from=<…>, status=expired, returned to sender". */
void logline_expired(const struct envelope *e, bool forced);

#endif
