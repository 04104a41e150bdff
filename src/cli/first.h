/*
 * cli/first.h - the parts of posthouse setup: what was chosen, asking for it, writing it
 *
 * One thread.  Texts of struct first are owned by it; first_free overwrites the password.
 */
#ifndef PH_CLI_FIRST_H
#define PH_CLI_FIRST_H

#include "accounts/presets.h"
#include "config/config.h"

#define FIRST_EVERYBODY "everybody"

/* The relay record of a next hop that is for some users. */
struct first_record {
    char *name;               /* the one that setup gives, if there is none */
    char *user, *users, *tls; /* NULL: there is none */
    bool has_password;
};

struct first {
    const char *dir;             /* configuration directory */
    struct config *cfg;          /* what is there; its main.cf may be missing */
    bool fresh;                  /* there is no main.cf yet */
    bool asks;                   /* a person is at the terminal */
    bool yes;                    /* no question before writing */
    bool no_test;                /* nothing is started and tested */
    const struct preset *preset; /* NULL: not chosen yet */
    char *hosts;                 /* next hop; NULL: not chosen yet, as in those below */
    char *tls;                   /* as in a relay record */
    char *user;                  /* account there; "": none is needed */
    char *password;              /* NULL: none, or the one that is there stays */
    const char *password_file;   /* "-": standard input; NULL: not given */
    char *users;                 /* FIRST_EVERYBODY, or accounts with ',' between two */
    char *sender;                /* of the test */
    struct first_record was;     /* the one for hosts and users, before anything is written */
    char *passwords;             /* table for the account, "type:path"; NULL: a relay record */
    char *senders;               /* table of senders' relay hosts; NULL: main.cf, or the store */
};

/* What was not given is asked for, or taken from what is there.  False after saying what is missing
 * or wrong. */
bool first_complete(struct first *f);
/* A yes or no at the terminal; an empty line means yes, the end of input no. */
bool first_agrees(const char *question);

/* Is the first table of maps ("type:path, …") a file that can be written?  "type:path", with the
 * whole path (one that is not whole lies in dir, as for the daemon), or NULL.  The caller frees. */
char *first_table(const char *maps, const char *dir);
/* Where it will be written; false after saying why it cannot be. */
bool first_plan(struct first *f);
/* Says what will be written, and never the password. */
void first_show(const struct first *f);
/* Writes it; signals of the terminal wait until it is whole.  False after saying what failed. */
bool first_write(const struct first *f);

/* Reads f->was, which is empty.  False after saying why the records cannot be read. */
bool first_record_read(struct first *f);

#endif
