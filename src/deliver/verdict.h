/*
 * deliver/verdict.h - what a relay host's reply to a command means for the mail
 *
 * One table of command and reply class, without state: the unit test goes through all of it.  The
 * only row that says "sent" is a 2xx to the end of content that went out whole.
 */
#ifndef PH_DELIVER_VERDICT_H
#define PH_DELIVER_VERDICT_H

#include <stdbool.h>

enum txn_command {
    TXN_XFORWARD,
    TXN_MAIL,
    TXN_RCPT,
    TXN_DATA,
    TXN_CONTENT, /* the final dot, or BDAT LAST */
    TXN_RSET,    /* ends a transaction that no final dot ends */
    TXN_COMMANDS
};

/* How much of the content had left for the relay host when it replied. */
enum txn_content { CONTENT_NONE, CONTENT_PART, CONTENT_WHOLE };

enum verdict {
    VERDICT_UNSET,   /* nothing was decided: verdict_of never returns it */
    VERDICT_OK,      /* the command was taken; the transaction goes on */
    VERDICT_GO,      /* 354: the content may be sent */
    VERDICT_SENT,    /* the relay host has taken the message */
    VERDICT_LATER,   /* refused for now: the mail waits */
    VERDICT_REFUSED, /* refused for good: the mail is bounced */
    VERDICT_CLOSING, /* 421: the host ends the session, and says nothing of the mail */
    VERDICT_SUSPECT  /* no server replies so: the session is out of step */
};

/* code: 200 to 599.  configured: an administrator chose the host, so that refusals that are about
 * our login or the order of commands say nothing of the mail.  soft_bounce: as the parameter. */
enum verdict verdict_of(enum txn_command command, int code, enum txn_content content,
                        bool configured, bool soft_bounce);
/* Of a code: is it about the login or the order of commands, and not about the mail? */
bool verdict_is_about_session(int code, bool configured);
/* "MAIL FROM", "end of DATA", as the log has it in "in reply to … command". */
const char *verdict_command_name(enum txn_command command);

#endif
