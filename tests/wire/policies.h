/*
 * tests/wire/policies.h - a policy service that the product asks about each recipient
 *
 * What it says is the same for all recipients of a message, so that whatever recipient is taken,
 * the message has had that answer.  The ledger is told what is to become of the message when that
 * is named, and of each recipient when its answer has been sent whole.  For the first requests, or
 * for all, the service may answer otherwise than it should.
 */
#ifndef PH_TESTS_WIRE_POLICIES_H
#define PH_TESTS_WIRE_POLICIES_H

#include "ledger.h"

struct client_mail;
struct scene;

enum policy_twist {
    POLICY_WELL,
    POLICY_SPLIT, /* byte by byte */
    POLICY_SILENT,
    POLICY_HANGS_UP,
    POLICY_RESETS,
    POLICY_GARBAGE, /* an answer without an action */
    POLICY_HALF,    /* an action that permits, without the end of the answer; then the end */
    POLICY_LATE,    /* after the time limit */
    POLICY_LONG,    /* no end, and more than an answer can have */
    POLICY_TWISTS
};

/* times: of requests that the twist is for; 0: all. */
void policies_configure(struct scene *s, enum policy_twist twist, unsigned times);
/* What is said of the message. */
void policy_says(struct scene *s, const struct client_mail *m, enum ledger_policy says);
void policy_draw(struct scene *s, const struct client_mail *m);
/* A recipient of the message is about to be named; last: the last one. */
void policy_tell(const struct scene *s, struct ledger_mail *m, unsigned mail, bool last);

#endif
