/*
 * deliver/advice.c - what a failure means, in a sentence
 *
 * What Posthouse itself found wrong has a cause, which is set where the error arises, and each
 * cause has its sentence here, or none.  What relay hosts say is looked up in a table: phrases
 * that providers and common servers use, each long enough to mean one thing; then reply codes with
 * a status that RFC 4954 gives one meaning.  A reply that is in no table gets no sentence: a wrong
 * one is worse than none.  tests/unit/replies.txt has replies as they were seen, with what is said
 * of each.  Any thread; the sentences are constants.
 */
#include "deliver/probe.h"

#include <string.h>
#include <strings.h>

struct saying {
    /* In any case; '*' is anything.  One that begins with a digit is a reply's beginning. */
    const char *word;
    const char *text; /* NULL: nothing is said of such a reply, whatever stands further down */
    bool waits;       /* the sentence is of mail that waits, and not of a reply that ends it */
};

#define LOGIN_WRONG  "User name or password is wrong, or the account may not log in this way."
#define LOGIN_WANTED "The relay host wants a login: set a user name and password for it."
#define LOGINS_TOO_OFTEN                                                                           \
    "Too many logins: wait, and look whether something else tries with a wrong password."
#define LOGINS_LATER                                                                               \
    "The relay host cannot check logins for now: the mail is tried again by itself."
#define LOGIN_DISABLED                                                                             \
    "Microsoft 365 refused the login: user name or password is wrong, or basic authentication is " \
    "switched off for this account."
#define TLS_WANTED "The relay host wants TLS first: set the TLS level to encrypt or higher."
#define SENDER_FOREIGN                                                                             \
    "The account may not send as this sender: give it the right to, or use the sender's own "      \
    "account."
#define SENDER_UNVERIFIED                                                                          \
    "The provider has not verified this sender: verify the address or its domain with the "        \
    "provider."
#define ACCOUNT_BLOCKED                                                                            \
    "The provider has stopped the account's outgoing mail: the account's page says why; change "   \
    "its password if others may have used it."
#define LIMIT_DAY "The account's daily sending limit is used up; it is counted again tomorrow."
#define LIMIT_RATE                                                                                 \
    "The relay host limits how much mail it takes from here for now: the mail is tried again by "  \
    "itself."
#define LIMIT_SESSIONS                                                                             \
    "The relay host takes fewer connections at a time: lower the limit of the destination's "      \
    "concurrency."
#define REPUTATION                                                                                 \
    "The provider finds too much unwanted mail coming from this address or domain, and takes "     \
    "less or none of it: look for what sends it."
#define CONTENT       "The provider takes this message for spam."
#define LISTED        "Our address is on a block list that the relay host uses."
#define SENDER_LISTED "A domain of this message is on a block list that the relay host uses."
#define NOT_DIRECT                                                                                 \
    "The provider takes no mail from this address itself: send it through a relay host."
#define AUTHENTICATE                                                                               \
    "The provider wants the sender's domain to name this road in its SPF record, or mail to be "   \
    "signed with DKIM for it."
#define DMARC                                                                                      \
    "The sender's domain forbids (DMARC) mail that is neither signed with DKIM for it nor comes "  \
    "by a road of its SPF record."
#define REVERSE_NAME                                                                               \
    "The address that the mail comes from has no name in the DNS (PTR): its provider can set one."
#define NO_RELAY                                                                                   \
    "The host does not relay for us: it wants a login, or our address on its list; or the "        \
    "recipient's domain is not one of its own."
#define TOO_LARGE    "The message is larger than the relay host takes."
#define MAILBOX_FULL "The recipient's mailbox is full."
#define MAILBOX_BUSY "The recipient gets more mail than the provider lets in at a time."
#define GREYLISTED   "The relay host makes strangers wait: the mail is tried again by itself."
#define LATER        "The relay host is busy: the mail is tried again by itself."

/* In this order: a phrase stands before those that a reply with it may have besides. */
static const struct saying phrases[] = {
    /* logins */
    {"application-specific password*google", "Google wants an application password: make one in "
                                             "the account's security settings and use it "
                                             "instead of the account's own password."},
    {"application-specific password",
     "The provider wants an application password: make one in the account's security settings and "
     "use it instead of the account's own password."},
    {"log in * your web browser*google", "Google wants this login to be confirmed in a web "
                                         "browser once, by the account's owner."},
    {"(#AUTH005) Too many bad auth attempts",
     "Yahoo refuses the login: it wants an application password, which the account's security "
     "settings make."},
    {"incorrect or basic authentication is disabled", LOGIN_DISABLED},
    {"user credentials were incorrect", LOGIN_WRONG},
    {"basic authentication is disabled",
     "Microsoft 365 has basic authentication switched off for this account: allow authenticated "
     "SMTP for the mailbox, or use OAuth."},
    {"SmtpClientAuthentication is disabled",
     "Authenticated SMTP is switched off for this tenant or mailbox: an administrator of Microsoft "
     "365 can allow it."},
    {"user is locked by your organization's security defaults",
     "The tenant's security defaults keep accounts from logging in by SMTP: an administrator of "
     "Microsoft 365 can change them."},
    {"did not meet the criteria to be authenticated",
     "A rule of the tenant (conditional access) keeps the account from logging in: an "
     "administrator "
     "of Microsoft 365 can change it."},
    {"Basic authentication is not supported for Client Submission",
     "The provider has retired basic authentication: it needs OAuth, not a password."},
    {"Client not authenticated to send", "Microsoft 365 wants a login before MAIL: the session was "
                                         "not authenticated."},
    {"Client was not authenticated to send", "Microsoft 365 wants a login before MAIL: the session "
                                             "was not authenticated."},
    {"Maximum credits exceeded", "The account's credits with the provider are used up."},
    {"valid Server token", "Postmark wants a server's API token, as user name and as password."},
    {"Unauthorized IP address",
     "The provider takes logins from listed addresses only: add this system's address to the list "
     "in the account's security settings."},
    {"SMTP account is not yet activated",
     "The provider has not activated this account for sending yet: ask its support."},
    {"too many login attempts", LOGINS_TOO_OFTEN},
    {"Username and Password not accepted", LOGIN_WRONG},
    {"Authentication failed: Could not authenticate", LOGIN_WRONG},
    {"Temporary authentication failure", LOGINS_LATER, .waits = true},
    {"Cannot authenticate due to temporary system problem", LOGINS_LATER, .waits = true},
    {"SPF authentication", AUTHENTICATE},
    {"DKIM authentication", AUTHENTICATE},
    {"authentication required*SPF", NULL},
    {"authentication required*DKIM", NULL},
    {"Unauthenticated senders not allowed", LOGIN_WANTED},
    {"Please authenticate first", LOGIN_WANTED},
    {"Must authenticate first", LOGIN_WANTED},
    {"turn on SMTP Authentication", LOGIN_WANTED},
    {"SMTP authentication is required", LOGIN_WANTED},
    {"relay not permitted, authentication required", LOGIN_WANTED},
    {"530 *authentication required", LOGIN_WANTED},
    {"550 authentication required", LOGIN_WANTED},
    {"550 5.7.1 authentication required", LOGIN_WANTED},
    /* TLS */
    {"Must issue a STARTTLS", TLS_WANTED},
    {"STARTTLS is required to send mail", TLS_WANTED},
    {"TLS required for RCPT domain", TLS_WANTED},
    /* what the account may do */
    {"does not have permissions to send as this sender", SENDER_FOREIGN},
    {"SendAsDenied", SENDER_FOREIGN},
    {"not owned by user", SENDER_FOREIGN},
    {"not owned by auth user", SENDER_FOREIGN},
    {"From address is not one of your addresses", SENDER_FOREIGN},
    {"Relaying disallowed as", SENDER_FOREIGN},
    {"Sender is not allowed to relay", SENDER_FOREIGN},
    {"Sender address is not allowed", SENDER_FOREIGN},
    {"Email address is not verified", "Amazon SES accepts verified addresses and domains only: "
                                      "verify the sender's domain there, and the recipient too "
                                      "while the account is in the sandbox."},
    {"match a verified Sender Identity", SENDER_UNVERIFIED},
    {"sender domain not verified", SENDER_UNVERIFIED},
    {"From address not verified", SENDER_UNVERIFIED},
    {"is not a Sender Signature on your account", SENDER_UNVERIFIED},
    {"Sender signature not", SENDER_UNVERIFIED},
    {"Unconfigured Sending Domain", SENDER_UNVERIFIED},
    {"domain-lockdown", "MailChannels wants a record of the sender's domain in the DNS "
                        "that names this account (domain lockdown)."},
    {"Free accounts are for test purposes only",
     "Mailgun's free accounts send to authorized recipients only: authorize the recipient there, "
     "or add a way of payment."},
    {"recipient(s) that have been marked as inactive",
     "The provider sends nothing to this recipient any more, because mail to "
     "it was returned or complained about: activate it there again."},
    {"Invalid credentials for relay", "Google's relay service does not know this system's address "
                                      "for the sender's domain: look at the service's settings in "
                                      "the Workspace console."},
    {"TenantAttribution", "Microsoft 365 does not know this system: its connector has another "
                          "address or certificate."},
    {"bad outbound sender", ACCOUNT_BLOCKED},
    {"Email Outgoing Blocked", ACCOUNT_BLOCKED},
    {"Unusual sending activity detected", ACCOUNT_BLOCKED},
    {"tenant has exceeded threshold", ACCOUNT_BLOCKED},
    /* limits */
    {"Daily user sending", LIMIT_DAY},
    {"Daily SMTP relay", LIMIT_DAY},
    {"Daily message quota exceeded", LIMIT_DAY},
    {"Submission quota exceeded", LIMIT_DAY},
    {"SubmissionQuotaExceeded", LIMIT_DAY},
    {"Maximum sending rate exceeded", LIMIT_RATE, .waits = true},
    {"Peak SMTP relay limit exceeded", LIMIT_RATE, .waits = true},
    {"deferred due to excessive volume", LIMIT_RATE, .waits = true},
    {"receiving mail too quickly", MAILBOX_BUSY},
    {"receiving mail at a rate that", MAILBOX_BUSY},
    {"concurrent connections", LIMIT_SESSIONS},
    {"concurrent SMTP connections", LIMIT_SESSIONS},
    {"sender thread limit exceeded", LIMIT_SESSIONS},
    /* what others think of our mail */
    {"not authorized to send email directly", NOT_DIRECT},
    {"unusual rate of unsolicited mail", REPUTATION},
    {"unusual rate of mail", LIMIT_RATE, .waits = true},
    {"very low reputation", REPUTATION},
    {"deferred due to unexpected volume or user complaints", REPUTATION},
    {"deferred due to user complaints", REPUTATION},
    {"traffic not accepted from this IP", REPUTATION},
    {"likely unsolicited mail", CONTENT},
    {"flagged as Spam", CONTENT},
    {"under suspicion of SPAM", CONTENT},
    {"spam message rejected", CONTENT},
    {"DMARC policy", DMARC},
    {"due to DMARC", DMARC},
    {"doesn't meet the required authentication level", AUTHENTICATE},
    {"sender is unauthenticated", AUTHENTICATE},
    {"rate limited because it is unauthenticated", AUTHENTICATE},
    {"does not have authentication information or fails to pass", AUTHENTICATE},
    {"does not have a PTR record", REVERSE_NAME},
    {"Fix reverse DNS", REVERSE_NAME},
    {"domain present in the Spamhaus", SENDER_LISTED},
    {"MailFrom domain is listed", SENDER_LISTED},
    {"Sender address * blocked using", SENDER_LISTED},
    {"client * blocked using", LISTED},
    {"client blocked using", LISTED},
    {"is on our block list", LISTED},
    {"banned sending IP", LISTED},
    {"Anti-Spoofing policy", "The recipient takes mail from this sender's domain from known hosts "
                             "only: the recipient's administrator can add this one."},
    {"Relay access denied", NO_RELAY},
    {"relaying denied", NO_RELAY},
    {"relay not permitted", NO_RELAY},
    {"Greylisted", GREYLISTED, .waits = true},
    {"Greylisting", GREYLISTED, .waits = true},
    /* the message and its recipient */
    {"exceeded Google's message size limits", TOO_LARGE},
    {"message size exceeds", TOO_LARGE},
    {"you tried to reach is over quota", MAILBOX_FULL},
    {"inbox is out of storage space", MAILBOX_FULL},
    {"mailbox for user is full", MAILBOX_FULL},
    {"Server busy", LATER, .waits = true},
    /* codes (RFC 4954 section 6, and Microsoft's own): a 535 is about the login, unless it says
     * that the host cannot tell, or that the account is shut */
    {"535 5.7.139", LOGIN_DISABLED},
    {"535 *too many", LOGINS_TOO_OFTEN},
    {"535 *temporar", NULL},
    {"535 *try again", NULL},
    {"535 *connection lost", NULL},
    {"535 *unavailable, ", NULL},
    {"535 *internal", NULL},
    {"535 *blocked", NULL},
    {"535 *locked", NULL},
    {"535 *suspended", NULL},
    {"535 ", LOGIN_WRONG},
    {"435 4.7.8", LOGIN_WRONG},
    {"534 5.7.9", "The provider wants another way to log in: an application password or OAuth."},
    {"538 5.7.11",
     "The relay host takes passwords inside TLS only: set the TLS level to encrypt or higher."},
};

#define NO_ROAD                                                                                    \
    "The network does not lead there: look at the relay host's address and the firewall."

/* NULL: the error's text says what there is to say, or the cause has too many reasons for one
 * sentence. */
static const char *const of_causes[MAIL_CAUSES] = {
    [CAUSE_UNSET] = NULL, /* the reply is looked up */
    [CAUSE_REFUSED] =
        "Nothing listens there, or a firewall refuses: look at the relay host's name and port.",
    [CAUSE_UNREACHABLE] = NO_ROAD,
    [CAUSE_UNCONNECTED] = NULL,
    [CAUSE_TIMEOUT] = "The relay host did not answer in time: a firewall may drop what is sent, or "
                      "the port is wrong.",
    [CAUSE_NO_GREETING] = "The relay host takes connections and says nothing: perhaps it wants TLS "
                          "from the first byte, as on port 465.",
    [CAUSE_LOST] = NULL,
    [CAUSE_PROTOCOL] = NULL,
    [CAUSE_NAME_LATER] = "The DNS servers do not answer for this name for now.",
    [CAUSE_NAME_UNKNOWN] =
        "This name does not exist, or has no address: look at how it is written.",
    [CAUSE_NAME_MALFORMED] = "The DNS of this domain is in disorder: its operator can mend it.",
    [CAUSE_NAME_FILTERED] = "The DNS has answers, and smtp_dns_reply_filter drops all of them: "
                            "look at its table.",
    [CAUSE_NULL_MX] = "The domain says in the DNS that it takes no mail: look at how the address "
                      "is written.",
    [CAUSE_NO_HOST] = NULL,
    [CAUSE_LOOP] = "The next hop is this system itself: name another one.",
    [CAUSE_TLS_MISSING] = "The relay host offers no TLS on this port: port 465 has TLS from the "
                          "first byte, port 587 offers it.",
    [CAUSE_TLS_HANDSHAKE] = "The TLS handshake failed: this may be a port with another kind of TLS "
                            "(465: from the first byte), or a server that is too old.",
    [CAUSE_CERT_UNTRUSTED] =
        "The relay host's certificate is not of an authority that this system trusts, or has "
        "expired: have it renewed, name its authority in smtp_tls_CAfile, or set this system's "
        "clock, if that is wrong.",
    [CAUSE_CERT_NAME] = "The relay host's certificate is for another name: use the name that it "
                        "has, or another TLS mode.",
    [CAUSE_CERT_PRINT] = "The relay host's certificate has none of the fingerprints that are set "
                         "for it: ask its operator whether it was renewed.",
    [CAUSE_LOGIN_MISSING] = "The relay host offers no login on this port: many do so inside TLS "
                            "only, or on port 587 only.",
    [CAUSE_LOGIN_UNUSABLE] =
        "The relay host offers no login that may be used here. Without TLS passwords are not sent: "
        "set the TLS mode to encrypt; inside TLS it offers none of SCRAM-SHA-256, CRAM-MD5, PLAIN "
        "and LOGIN.",
    [CAUSE_LOGIN_FILTERED] = "The relay host offers only logins that the mechanism filter leaves "
                             "out.",
    [CAUSE_LOGIN_UNPROVEN] = "The relay host does not know this password, or is not the one that "
                             "it should be.",
    [CAUSE_LOGIN_DIALOGUE] = NULL,
    [CAUSE_LOOKUP] =
        "A table, or the key of the relay records, could not be read: the log says which.",
    [CAUSE_SETTING] = NULL,
    [CAUSE_TOO_LARGE] = TOO_LARGE,
    [CAUSE_NO_SMTPUTF8] =
        "An address or the header has characters beyond ASCII, which the relay host does not take.",
    [CAUSE_ADDRESS] = NULL,
    [CAUSE_CONTENT] =
        "The message cannot be read from the queue: look at the log, and at the disk.",
    [CAUSE_QUEUE] = "The queue cannot be written to: look at the log, and at the room on the disk.",
    [CAUSE_OTHER_MAIL] = NULL,
    [CAUSE_FORWARD_LOOP] = "The message goes round in a circle: an alias here, or a forwarding "
                           "elsewhere, leads back.",
    [CAUSE_TRANSPORT_SAYS] = NULL,
    [CAUSE_TRANSPORT_WAITS] = "The setting defer_transports keeps this mail back.",
    [CAUSE_EXPIRED] = NULL,
    [CAUSE_INTERNAL] = NULL,
};

/* Do the parts of word, between '*', stand in text one behind the other? */
static bool contains(struct str text, const char *word) {
    struct str rest = str_of(word), part;
    bool anchored = word[0] >= '0' && word[0] <= '9';
    while (str_split(&rest, "*", &part)) {
        size_t at = 0;
        while (at + part.n <= text.n && !str_ieq(str_make(text.p + at, part.n), part))
            at++;
        if (at + part.n > text.n || (anchored && at > 0))
            return false;
        anchored = false;
        text = str_from(text, at + part.n);
    }
    return true;
}

/* How long "550-5.1.1 " at the beginning of text is, where it is the code of the reply, and its
 * status. */
static size_t code_span(struct str text, int code) {
    char dsn[12];
    struct str rest = str_from(text, 4);
    if (text.n < 4 || (text.p[3] != '-' && text.p[3] != ' ') || text.p[0] - '0' != code / 100 ||
        text.p[1] - '0' != code / 10 % 10 || text.p[2] - '0' != code % 10)
        return 0;
    return 4 + (dsn_from_reply(dsn, code, rest) ? strlen(dsn) + 1 : 0);
}

/* A reply of several lines as one: each line begins with the code again, and often with the status,
 * and a phrase may run from one line into the next. */
static void join_lines(struct str reply, struct sbuf *out) {
    bool coded = reply.n > 3 && reply.p[0] >= '2' && reply.p[0] <= '5';
    int code = coded ? (reply.p[0] - '0') * 100 + (reply.p[1] - '0') * 10 + reply.p[2] - '0' : 0;
    for (size_t i = 0; i < reply.n; i++) {
        bool begins = coded && i > 0 && reply.p[i - 1] == ' ';
        size_t skip = begins ? code_span(str_from(reply, i), code) : 0;
        if (skip > 0 && i + skip <= reply.n)
            i += skip - 1;
        else
            sbuf_add_ch(out, i == 3 && reply.p[i] == '-' ? ' ' : reply.p[i]);
    }
}

static const char *reply_advice(struct str reply) {
    struct sbuf line = {0};
    size_t i = 0, n = sizeof phrases / sizeof phrases[0];
    join_lines(reply, &line);
    while (i < n && !contains(sbuf_str(&line), phrases[i].word))
        i++;
    bool ends = reply.n > 0 && reply.p[0] == '5';
    sbuf_free(&line);
    return i == n || (phrases[i].waits && ends) ? NULL : phrases[i].text;
}

const char *advice_for(enum mail_cause cause, struct str reply) {
    return cause == CAUSE_UNSET ? reply_advice(reply) : of_causes[cause];
}
