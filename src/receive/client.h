/*
 * receive/client.h - the client at the other end of a session
 *
 * The loop's thread of its session; the session owns it.
 */
#ifndef PH_RECEIVE_CLIENT_H
#define PH_RECEIVE_CLIENT_H

#include "config/params.h"
#include "maps/query.h"
#include "util/net.h"
#include "util/str.h"

/* What becomes of a line that a client ends in LF alone, postconf(5) smtpd_forbid_bare_newline. */
enum bare_newline {
    BARE_UNSET,
    BARE_TAKEN,      /* it is a line like any other: LF . LF ends a message */
    BARE_NORMALIZED, /* it is a line, and no part of the end of a message */
    BARE_NOTED,      /* the same, and the log has it */
    BARE_REJECTED    /* the command or the message is refused */
};

/* What became of a search for a name. */
enum client_naming {
    CLIENT_NAME_UNSET, /* none was made */
    CLIENT_NAME_FOUND,
    CLIENT_NAME_NONE,  /* there is none, or it leads to other addresses */
    CLIENT_NAME_FAILED /* name servers failed: there may be one */
};

struct client_names {
    enum client_naming reverse;  /* of the name that the address has */
    enum client_naming verified; /* of that name's way back to the address */
    const char *reverse_name;    /* NULL unless reverse is CLIENT_NAME_FOUND */
    const char *name;            /* NULL unless verified is CLIENT_NAME_FOUND */
};

typedef void (*client_named_fn)(void *ctx, const struct client_names *found);

struct client {
    struct netaddr peer;
    char addr[INET6_ADDRSTRLEN]; /* the same as text; 127.0.0.1 for a local client */
    char *reverse_name;          /* that its address has, verified or not; NULL: none */
    char *name;                  /* verified host name, or NULL: none is known */
    enum client_naming reverse;  /* UNSET, and so is verified: no search was made */
    enum client_naming verified;
    bool local;             /* a unix socket: sendmail */
    unsigned uid;           /* of a local client */
    bool limits_off;        /* it is in smtpd_client_event_limit_exceptions */
    bool no_auth;           /* it is in smtpd_sasl_exceptions_networks */
    bool may_forward;       /* it is in smtpd_authorized_xforward_hosts */
    bool counted;           /* anvil counts its connection */
    bool over;              /* it has more of them than it may, if limits are for it */
    enum bare_newline bare; /* BARE_UNSET until its session begins */
};

/* Bytes of what a client is counted by. */
#define CLIENT_KEY_MAX 64
/* What its connections are counted by: its address, or for a local client its user, written to
 * key. */
const char *client_key(const struct client *c, char key[CLIENT_KEY_MAX]);
/* Its name, "unknown" if none is known; as text only. */
const char *client_name(const struct client *c);
/* Appends "name[address]", as the log has it; returns the text of b. */
const char *client_text(const struct client *c, struct sbuf *b);
/* Is it in the list of clients that the parameter of that name has?  As lookup_match_now.  A local
 * client is in every one. */
uint32_t client_match_now(const struct client *c, struct lookup *k, const struct params *p,
                          const char *name, const char *list, enum match_rc *now,
                          lookup_match_fn fn, void *arg);
/* The word in smtpd_forbid_bare_newline; BARE_UNSET: it is none. */
enum bare_newline bare_newline_of(const char *word);
void client_clear(struct client *c);

#endif
