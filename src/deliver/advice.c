/*
 * deliver/advice.c - what a relay host's refusal means, in a sentence
 *
 * Replies of the large providers, and of common servers, by what is constant in them.
 */
#include "deliver/probe.h"

#include <strings.h>

static const struct {
    const char *word; /* in any case */
    const char *text;
} known[] = {
    {"application-specific password", "Google wants an application password: make one in the "
                                      "account's security settings and use it instead of "
                                      "the account's own password."},
    {"5.7.139", "Microsoft 365 has basic authentication switched off for this account: allow "
                "authenticated SMTP for the "
                "mailbox, or use OAuth."},
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
    {"no mechanism available",
     "The relay host offers no login that may be used here: passwords go over TLS only, so set the "
     "TLS mode to encrypt, or allow other mechanisms."},
    {"too many login attempts",
     "Too many logins: wait, and look whether something else tries with a wrong password."},
    {"blocked using", "Our address is on a block list that the relay host uses."},
    {"blacklist", "Our address is on a block list that the relay host uses."},
    {"greylist", "The relay host makes strangers wait: the next attempt will pass."},
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

const char *advice_for(struct str reply) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (contains(reply, known[i].word))
            return known[i].text;
    return NULL;
}
