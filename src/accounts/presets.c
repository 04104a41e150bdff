/*
 * accounts/presets.c - the list of providers; see presets.h
 *
 * From the providers' own setup pages.  A preset only fills in a form.
 */
#include "accounts/presets.h"

const struct preset presets[] = {
    {"plain", "Another relay host", "[mail.example.com]:587", "encrypt", "",
     "The account that the relay host gave you, or nothing if it knows your address",
     "Its password", "Put the host in brackets: then its MX records are not asked."},
    {"gmail", "Gmail, Google Workspace", "[smtp.gmail.com]:587", "verify", "",
     "The full address, as in you@gmail.com", "An application password (16 letters)",
     "Needs 2-step verification; application passwords are made at myaccount.google.com under "
     "Security. The sender must be the account or one of its aliases."},
    {"m365", "Microsoft 365", "[smtp.office365.com]:587", "verify", "login",
     "The mailbox's address, as in you@example.com", "The mailbox's password",
     "Authenticated SMTP must be allowed for the mailbox. The sender must be the mailbox or have "
     "Send As rights. At most 30 messages a minute."},
    {"ses", "Amazon SES", "[email-smtp.us-east-1.amazonaws.com]:587", "verify", "",
     "The SMTP user name (AKIA…), not your AWS user", "The SMTP password made with it",
     "Change the region in the host name to yours. Sender addresses or domains must be verified; "
     "in the sandbox recipients too."},
    {"sendgrid", "SendGrid", "[smtp.sendgrid.net]:587", "verify", "plain login", "The word apikey",
     "The API key (SG.…)", "The key needs the permission Mail Send; the sender must be verified."},
    {"mailgun", "Mailgun", "[smtp.mailgun.org]:587", "verify", "",
     "The SMTP login, as in postmaster@mg.example.com", "Its SMTP password",
     "Domains in the EU region use smtp.eu.mailgun.org."},
    {"postmark", "Postmark", "[smtp.postmarkapp.com]:587", "verify", "", "The server API token",
     "The same server API token",
     "For broadcasts use smtp-broadcasts.postmarkapp.com. The sender needs a sender signature."},
    {"brevo", "Brevo", "[smtp-relay.brevo.com]:587", "verify", "",
     "The SMTP login shown under SMTP & API", "The SMTP key, not the API key",
     "The sender or its domain must be verified."},
    {"smtp2go", "SMTP2GO", "[mail.smtp2go.com]:587", "verify", "",
     "The SMTP user name made under Sending, SMTP Users", "Its password",
     "Ports 2525, 8025 and 465 (TLS from the first byte) work as well."},
};

const size_t presets_n = sizeof presets / sizeof presets[0];
