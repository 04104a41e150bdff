/*
 * deliver/verdict.c - what a reply means for the mail; see verdict.h
 */
#include "deliver/verdict.h"

enum reply_class { CLASS_2XX, CLASS_354, CLASS_3XX, CLASS_421, CLASS_4XX, CLASS_5XX, CLASSES };

#define OK      VERDICT_OK
#define GO      VERDICT_GO
#define SENT    VERDICT_SENT
#define LATER   VERDICT_LATER
#define REFUSED VERDICT_REFUSED
#define CLOSING VERDICT_CLOSING
#define SUSPECT VERDICT_SUSPECT

/* A reply to RSET that is not 2xx belongs to another command: RSET cannot fail (RFC 5321 section
 * 4.1.1.5).  Content that ended a transaction without recipients (an empty message after 354) has
 * nothing to be taken or refused.  A host that refuses XFORWARD gets the mail all the same, as from
 * Postfix. */
static const enum verdict table[TXN_COMMANDS][CLASSES] = {
    /* 2xx      354      3xx      421      4xx    5xx */
    [TXN_XFORWARD] = {OK, SUSPECT, SUSPECT, CLOSING, OK, OK},
    [TXN_MAIL] = {OK, SUSPECT, SUSPECT, CLOSING, LATER, REFUSED},
    [TXN_RCPT] = {OK, SUSPECT, SUSPECT, CLOSING, LATER, REFUSED},
    [TXN_DATA] = {SUSPECT, GO, SUSPECT, CLOSING, LATER, REFUSED},
    [TXN_CONTENT] = {SENT, SUSPECT, SUSPECT, LATER, LATER, REFUSED},
    [TXN_RSET] = {OK, SUSPECT, SUSPECT, CLOSING, SUSPECT, SUSPECT},
};

static enum reply_class class_of(int code) {
    if (code == 354)
        return CLASS_354;
    if (code == 421)
        return CLASS_421;
    return code / 100 == 2   ? CLASS_2XX
           : code / 100 == 3 ? CLASS_3XX
           : code / 100 == 4 ? CLASS_4XX
                             : CLASS_5XX;
}

bool verdict_is_about_session(int code, bool configured) {
    /* 530, 534, 535, 538: RFC 4954 section 6. */
    return code == 503 ||
           (configured && (code == 530 || code == 534 || code == 535 || code == 538));
}

enum verdict verdict_of(enum txn_command command, int code, enum txn_content content,
                        bool configured, bool soft_bounce) {
    enum verdict v = table[command][class_of(code)];
    if (v == SENT && content == CONTENT_NONE)
        return OK;
    if (v == SENT && content != CONTENT_WHOLE)
        return SUSPECT;
    if (v == LATER && code == 421 && content != CONTENT_WHOLE)
        return CLOSING;
    if (v == REFUSED && (soft_bounce || verdict_is_about_session(code, configured)))
        return LATER;
    return v;
}

const char *verdict_command_name(enum txn_command command) {
    static const char *const names[] = {
        [TXN_XFORWARD] = "XFORWARD", [TXN_MAIL] = "MAIL FROM",      [TXN_RCPT] = "RCPT TO",
        [TXN_DATA] = "DATA",         [TXN_CONTENT] = "end of DATA", [TXN_RSET] = "RSET"};
    return names[command];
}
