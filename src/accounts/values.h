/*
 * accounts/values.h - what may stand in the accounts store, by the parsers that the relay uses
 *
 * Any thread.
 */
#ifndef PH_ACCOUNTS_VALUES_H
#define PH_ACCOUNTS_VALUES_H

#include "util/str.h"

#define VALUE_MAX 255U /* of iRedMail's columns */

/* Is text an account that can have a relay host: user@domain, @domain, or the null sender <>? */
bool value_account_ok(struct str text);
/* "Relay outgoing email to": what is wrong with text (*bad: with which part of it), or NULL. */
const char *value_relayhost_bad(struct str text, struct str *bad);
/* "Relay received email to", in the form of transport(5): transport, or transport:next hop. */
const char *value_transport_bad(struct str text, struct str *bad);

#define VALUE_VERSION 17
/* A short text that is another one for every text. */
void value_version(struct str text, char out[VALUE_VERSION]);

/* May a user with this allow_nets ("": from anywhere) come from the address client? */
bool value_net_ok(const char *nets, const char *client);

#endif
