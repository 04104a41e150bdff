/*
 * smtp/reply.h - SMTP replies as the client reads them (RFC 5321 section 4.2)
 *
 * A remote may send anything: length and number of lines are bounded.
 */
#ifndef PH_SMTP_REPLY_H
#define PH_SMTP_REPLY_H

#include "util/str.h"

/* Bytes of a line; a longer one is no reply. */
#define REPLY_LINE_MAX 4096U

struct smtp_reply {
    int code;          /* of the last line */
    struct sbuf text;  /* lines joined with '\n', without codes */
    struct sbuf shown; /* lines joined with ' ', up to 2,048 bytes; '?' is what was no UTF-8 */
    size_t last;       /* where the last line begins in text */
    unsigned lines;
};

enum reply_rc { REPLY_MORE, REPLY_DONE, REPLY_BAD };

/* Takes whole lines from data until a reply is complete; *used says how much was consumed.  Call
 * smtp_reply_reset before the next reply. */
enum reply_rc smtp_reply_feed(struct smtp_reply *r, struct str data, size_t *used);
/* A line without the carriage returns before its line feed: hosts that end lines twice have two. */
struct str smtp_reply_chop(struct str line);
void smtp_reply_reset(struct smtp_reply *r);
void smtp_reply_free(struct smtp_reply *r);
/* What the last line says, without its code and blanks behind that: as in Postfix, it alone has the
 * enhanced status code of the reply. */
struct str smtp_reply_last(const struct smtp_reply *r);
/* Puts text in place of all that was said, and overwrites that. */
void smtp_reply_withhold(struct smtp_reply *r, const char *text);
/* Appends "550 5.1.1 no such user", or as Postfix logs several lines: "550-5.1.1 no 550 5.1.1
 * user". */
void smtp_reply_line(const struct smtp_reply *r, struct sbuf *out);

#endif
