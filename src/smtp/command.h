/*
 * smtp/command.h - SMTP commands as the server reads them (RFC 5321 section 4.1)
 */
#ifndef PH_SMTP_COMMAND_H
#define PH_SMTP_COMMAND_H

#include "util/str.h"

/* In the order in which Postfix counts commands at the end of a session. */
enum smtp_verb {
    VERB_UNKNOWN,
    VERB_HELO,
    VERB_EHLO,
    VERB_STARTTLS,
    VERB_AUTH,
    VERB_MAIL,
    VERB_RCPT,
    VERB_DATA,
    VERB_BDAT,
    VERB_RSET,
    VERB_NOOP,
    VERB_VRFY,
    VERB_ETRN,
    VERB_QUIT,
    VERB_XFORWARD,
    VERB_COUNT
};

/* The verb at the start of line; *args is what follows, trimmed. */
enum smtp_verb smtp_verb_parse(struct str line, struct str *args);
/* "mail", as in the disconnect line of the log; "MAIL" for upper. */
const char *smtp_verb_name(enum smtp_verb v, bool upper);

/* The next ESMTP parameter "KEYWORD[=value]" of *rest. */
bool smtp_param_next(struct str *rest, struct str *key, struct str *value);

#endif
