/*
 * tests/wire/filters.h - tables that change what relay hosts and name servers say
 *
 * smtp_reply_filter, smtp_delivery_status_filter and smtp_dns_reply_filter ask tables of the
 * scenario.  When such a table answers, the ledger hears what the reply has become; when it is late
 * or fails, the ledger hears nothing, and holds the product to what was said.
 */
#ifndef PH_TESTS_WIRE_FILTERS_H
#define PH_TESTS_WIRE_FILTERS_H

struct scene;

enum {
    FILTER_SOFTENS = 1, /* replies with 55x are 45x */
    FILTER_HARDENS = 2, /* replies with 45x are 55x */
    FILTER_RESULTS = 4, /* results of RCPT and MAIL, not replies, are changed so */
    FILTER_RECORDS = 8  /* the address of host 1 is in no answer of a name server */
};
void filters_configure(struct scene *s, unsigned filters);
/* The name of one of the tables. */
const char *filters_table(const struct scene *s);

#endif
