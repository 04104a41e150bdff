/*
 * accounts/browse.h - looking through the accounts store and changing what relaying needs of it
 *
 * For the page and its API.  Calls block; any number of threads may use one store.  Every call
 * that fails sets *why (the caller frees).  Names are in lower case.
 */
#ifndef PH_ACCOUNTS_BROWSE_H
#define PH_ACCOUNTS_BROWSE_H

#include "accounts/store.h"

/* A domain ("example.com") or a user ("user@example.com").  Texts are never NULL unless said. */
struct account {
    char *name;
    char *title;     /* a domain's description, a user's name */
    char *transport; /* "Relay received email to"; of a user "": the domain's */
    char *relayhost; /* its own "Relay outgoing email to"; NULL: none */
    char *settings;  /* of a domain: iRedMail's "name:value;name:value;" */
    bool active;
    bool backup_mx; /* of a domain: "Relay without verifying local recipients" */
    bool admin;     /* of a user: an administrator */
    long users;     /* of a domain: how many, up to USERS_COUNTED; -1: not counted */
};

#define USERS_COUNTED 1000

struct browse {
    const char *domain; /* its users; NULL: domains */
    const char *admin;  /* only what that administrator manages; NULL: all */
    const char *text;   /* in a domain's name or description; at the beginning of a user's address,
                           or in a user's name; "": any */
    const char *after;  /* names behind this one; "": from the start */
    unsigned limit;
    bool disabled_only;
};

/* The account is valid during the call. */
typedef void (*account_fn)(void *arg, const struct account *a);

/* A copy that outlives the call, and the end of one. */
void account_copy(struct account *to, const struct account *from);
void account_free(struct account *a);

/* In the order of their names. */
enum store_rc store_browse(struct store *st, const struct browse *b, account_fn fn, void *arg,
                           char **why);
/* Users with addresses that begin with text, of all domains; store_browse finds domains. */
enum store_rc store_search(struct store *st, const char *text, const char *admin, unsigned limit,
                           account_fn fn, void *arg, char **why);
/* STORE_NO: there is none. */
enum store_rc store_account(struct store *st, const char *name, account_fn fn, void *arg,
                            char **why);

/* Accounts that have the relay host value (in any case), the first limit of them. */
enum store_rc store_relay_users(struct store *st, const char *value, unsigned limit,
                                store_pair_fn fn, void *arg, char **why);
/* Every relay host that accounts of a domain name, with how many do. */
typedef void (*store_count_fn)(void *arg, const char *domain, const char *value, long accounts);
enum store_rc store_relay_counts(struct store *st, store_count_fn fn, void *arg, char **why);

/* What is NULL or negative stays as it is. */
struct account_change {
    const char *transport;
    int backup_mx;
    const char *relayhost; /* "": none any more; NULL for all users of a domain */
};
/* name: a domain, a user, or "@domain": all users of it.  A change of one account is made as a
 * whole, or not at all. */
enum store_rc store_change(struct store *st, const char *name, const struct account_change *c,
                           char **why);

#define ADMIN_MARK 33

/* An administrator: of everything (iRedMail's domain 'ALL'), or of some domains. */
struct admin {
    bool global;
    char mark[ADMIN_MARK]; /* changes with the stored password; "": the store does not show it */
    /* Differs between an account and a later one of the same name; "": not known. */
    char born[ADMIN_MARK];
};
/* True if user is an active administrator and password is right. */
enum store_rc store_admin_verify(struct store *st, const char *user, const char *password,
                                 struct admin *a, char **why);
/* Without a password: is user an active administrator? */
enum store_rc store_admin_find(struct store *st, const char *user, struct admin *a, char **why);
enum store_rc store_manages(struct store *st, const char *user, const char *domain, char **why);
/* Of the embedded store.  hash: as password_hash makes it. */
enum store_rc store_admin_password(struct store *st, const char *user, const char *hash,
                                   char **why);

/* Is profile ("relay") among the ones that a domain's settings keep from its administrators?  kind:
 * "disabled_domain_profiles" or "disabled_user_profiles". */
bool settings_disable(const char *settings, const char *kind, const char *profile);

#endif
