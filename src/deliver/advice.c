/*
 * deliver/advice.c - what a failure means, in a sentence
 *
 * Two tables: what relay hosts say (replies of the large providers and of common servers, by what
 * is constant in them), and what Posthouse says itself.  A text that quotes a reply is looked up by
 * the reply alone, so that no word of ours is taken for one of theirs.  Long phrases come before
 * codes: a code often has several causes.
 */
#include "deliver/probe.h"

#include <string.h>
#include <strings.h>

struct saying {
    const char *word; /* in any case */
    const char *text;
};

static const struct saying replies[] = {
    {"application-specific password", "Google wants an application password: make one in the "
                                      "account's security settings and use it instead of "
                                      "the account's own password."},
    {"incorrect or basic authentication is disabled",
     "Microsoft 365 refused the login: user name or password is wrong, or basic authentication is "
     "switched off for this account."},
    {"user credentials were incorrect",
     "User name or password is wrong, or the account may not log in this way."},
    {"basic authentication is disabled",
     "Microsoft 365 has basic authentication switched off for this account: allow authenticated "
     "SMTP for the mailbox, or use OAuth."},
    {"5.7.139", "Microsoft 365 refused the login: user name or password is wrong, or basic "
                "authentication is switched off for this account."},
    {"5.7.30", "The provider has retired basic authentication: it needs OAuth, not a password."},
    {"5.7.57", "Microsoft 365 wants a login before MAIL: the session was not authenticated."},
    {"SmtpClientAuthentication is disabled", "Authenticated SMTP is switched off for this tenant "
                                             "or mailbox: an administrator of Microsoft 365 can "
                                             "allow it."},
    {"5.7.60",
     "The account may not send as this sender: give it Send As rights, or use the sender's own "
     "account."},
    {"SendAsDenied",
     "The account may not send as this sender: give it Send As rights, or use the sender's own "
     "account."},
    {"not owned by user", "The account may not send as this sender."},
    {"sender address rejected",
     "The relay host does not accept this sender address from this account."},
    {"Email address is not verified", "Amazon SES accepts verified addresses and domains only: "
                                      "verify the sender's domain there, and the recipient too "
                                      "while the account is in the sandbox."},
    {"not verified", "The provider has not verified this sender: verify the address or its domain "
                     "with the provider."},
    {"5.4.5", "The account's daily sending limit is used up; it is counted again tomorrow."},
    {"sending limit", "The account's sending limit is used up for now."},
    {"5.7.9", "The provider wants another way to log in: an application password or OAuth."},
    {"5.7.8", "User name or password is wrong, or the account may not log in this way."},
    {"5.7.3", "The relay host refused the login."},
    {"Must issue a STARTTLS",
     "The relay host wants TLS first: set the TLS level to encrypt or higher."},
    {"5.7.11",
     "The relay host takes passwords inside TLS only: set the TLS level to encrypt or higher."},
    {"Authentication required",
     "The relay host wants a login: set a user name and password for it."},
    {"authentication is required",
     "The relay host wants a login: set a user name and password for it."},
    {"Relay access denied",
     "The relay host does not relay for us: it wants a login, or our address on its list."},
    {"relaying denied",
     "The relay host does not relay for us: it wants a login, or our address on its list."},
    {"too many login attempts",
     "Too many logins: wait, and look whether something else tries with a wrong password."},
    {"blocked using", "Our address is on a block list that the relay host uses."},
    {"blacklist", "Our address is on a block list that the relay host uses."},
    {"greylist", "The relay host makes strangers wait: the mail is tried again by itself."},
    {"4.7.28", "The relay host limits how much mail it takes from here for now: the mail is tried "
               "again by itself."},
    {"454 4.7.0", "The relay host cannot check logins for now: the mail is tried again by itself."},
};

static const struct saying ours[] = {
    {"no mechanism available", "The relay host offers no login that may be used here. Without TLS "
                               "passwords are not sent: set the TLS mode to encrypt; inside TLS it "
                               "offers none of SCRAM-SHA-256, CRAM-MD5, PLAIN and LOGIN."},
    {"offered no compatible authentication mechanisms",
     "The relay host offers only logins that the mechanism filter leaves out."},
    {"did not offer AUTH", "The relay host offers no login on this port: many do so inside TLS "
                           "only, or on port 587 only."},
    {"did not prove that it knows the password",
     "The relay host does not know this password, or is not the one that it should be."},
    {"Server certificate not verified",
     "The relay host's certificate is not of an authority that this system trusts, or has expired: "
     "have it renewed, or name its authority in smtp_tls_CAfile."},
    {"Server certificate does not match", "The relay host's certificate is for another name: use "
                                          "the name that it has, or another TLS mode."},
    {"TLS is required, but", "The relay host offers no TLS on this port: port 465 has TLS from the "
                             "first byte, port 587 offers it."},
    {"Cannot start TLS", "The TLS handshake failed: this may be a port with another kind of TLS "
                         "(465: from the first byte), or a server that is too old."},
    {"Connection refused",
     "Nothing listens there, or a firewall refuses: look at the relay host's name and port."},
    {"No route to host",
     "The network does not lead there: look at the relay host's address and the firewall."},
    {"Network is unreachable",
     "The network does not lead there: look at the relay host's address and the firewall."},
    {"timed out while receiving the initial server greeting",
     "The relay host takes connections and says nothing: perhaps it wants TLS from the first byte, "
     "as on port 465."},
    {"timed out", "The relay host did not answer in time: a firewall may drop what is sent, or the "
                  "port is wrong."},
    {"Host not found, try again", "The DNS servers do not answer for this name for now."},
    {"Host not found", "This name does not exist, or has no address: look at how it is written."},
    {"loops back to myself", "The next hop is this system itself: name another one."},
    {"local data error",
     "A table, or the key of the relay records, could not be read: the log says which."},
};

static bool contains(struct str text, const char *word) {
    size_t n = str_of(word).n;
    for (size_t i = 0; i + n <= text.n; i++)
        if (strncasecmp(text.p + i, word, n) == 0 &&
            /* "5.7.3" is not "5.7.30" */
            !(word[n - 1] >= '0' && word[n - 1] <= '9' && i + n < text.n && text.p[i + n] >= '0' &&
              text.p[i + n] <= '9'))
            return true;
    return false;
}

static const char *advice_of(const struct saying *list, size_t n, struct str text) {
    for (size_t i = 0; i < n; i++)
        if (contains(text, list[i].word))
            return list[i].text;
    return NULL;
}

/* Behind the first mark in text, or STR_NONE. */
static struct str behind(struct str text, const char *mark) {
    size_t n = strlen(mark);
    for (size_t i = 0; i + n <= text.n; i++)
        if (memcmp(text.p + i, mark, n) == 0)
            return str_from(text, i + n);
    return STR_NONE;
}

const char *advice_for(struct str text) {
    static const char *const marks[] = {
        " said: ", " refused to talk to me: ", " refused to start TLS: "};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        struct str reply = behind(text, marks[i]);
        if (reply.p != NULL)
            return advice_of(replies, sizeof replies / sizeof replies[0], reply);
    }
    bool reply = text.n > 2 && text.p[0] >= '2' && text.p[0] <= '5';
    return reply ? advice_of(replies, sizeof replies / sizeof replies[0], text)
                 : advice_of(ours, sizeof ours / sizeof ours[0], text);
}
