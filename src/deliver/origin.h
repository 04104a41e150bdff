/*
 * deliver/origin.h - XFORWARD: a content filter is told who brought the message
 */
#ifndef PH_DELIVER_ORIGIN_H
#define PH_DELIVER_ORIGIN_H

#include "mail/envelope.h"

/* What a host's offer asks for ("NAME ADDR PORT …", of its reply to EHLO), for origin_line. */
unsigned origin_wanted(struct str offer);
/* Appends a half (0 or 1) of what the host wants to know of the message, as a command; false:
 * nothing of that half is wanted and known. */
bool origin_line(const struct envelope *e, unsigned wanted, unsigned half, struct sbuf *out);

#endif
