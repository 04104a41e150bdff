/*
 * tests/wire/client.h - clients of the wire simulator
 *
 * A client is a list of steps that script.c draws: commands, content, chunks, hostile bytes,
 * pauses. It sends a step when the replies to the steps before it have come, or at once when the
 * step is together with the one before (pipelining).  What it says and hears goes to the ledger.
 */
#ifndef PH_TESTS_WIRE_CLIENT_H
#define PH_TESTS_WIRE_CLIENT_H

#include "ledger.h"
#include "lists.h"
#include "virtuals.h"
#include "wire.h"

struct client;

enum client_end {
    CLIENT_QUITS,
    CLIENT_CLOSES,
    CLIENT_RESETS,
    CLIENT_STAYS, /* says nothing any more, until it is hung up on */
    CLIENT_DEAF   /* the same, and reads nothing any more */
};

struct client_rcpt {
    const char *addr;             /* with "m1r2" in its local part */
    unsigned notify;              /* LEDGER_* */
    struct bytes orcpt;           /* "type;decoded" */
    const char *more;             /* further parameters, " X=y"; NULL: none */
    const struct list *list;      /* what it stands for; NULL: for itself */
    const struct virtual *stands; /* likewise, by virtual(5) */
};

struct client_mail {
    unsigned number; /* the 1 of "m1r2" */
    const char *sender;
    struct bytes envid; /* decoded */
    char ret;
    const char *more; /* further parameters of MAIL */
    struct client_rcpt rcpts[LEDGER_RCPTS];
    unsigned n_rcpts;
    struct bytes content; /* as it goes over the wire; DATA: with its end */
};

struct client *client_new(struct wire_world *w, struct ledger *l);
/* "EHLO name" or "HELO name". */
void client_hello(struct client *c, bool extended);
/* The same with another name. */
void client_hello_as(struct client *c, bool extended, const char *name);
/* STARTTLS, and the handshake so many ms later.  behind: commands in clear in the same packet,
 * which must count for nothing; NULL: none. */
void client_starttls(struct client *c, int64_t late_ms, const char *behind);
/* right: is it the user's password? */
void client_login(struct client *c, const char *mech, const char *user, const char *password,
                  bool right);
/* Calls fn when a recipient of a message is about to be named; last: the last one. */
typedef void client_named_fn(void *arg, struct ledger_mail *entry, unsigned number, bool last);
void client_when_named(struct client *c, client_named_fn *fn, void *arg);
enum { CLIENT_TOGETHER = 1, CLIENT_NEXT = 2 };
/* A transaction with DATA.  CLIENT_TOGETHER: its commands in one packet; CLIENT_NEXT: that with
 * what was before (the end of the last content). */
void client_data(struct client *c, const struct client_mail *m, unsigned how);
/* The same with BDAT; cuts are where the content is divided.  empty_last: BDAT 0 LAST at the end.
 */
void client_bdat(struct client *c, const struct client_mail *m, unsigned how, const size_t *cuts,
                 size_t n_cuts, bool empty_last);
/* A transaction that is given up after RCPT, by RSET or (reset false) by the next MAIL or EHLO. */
void client_given_up(struct client *c, const struct client_mail *m);
/* A command line (without its end) that has one reply. */
void client_line(struct client *c, const char *line, bool together);
/* Any bytes; replies: how many to wait for. */
void client_raw(struct client *c, const void *p, size_t n, unsigned replies);
void client_wait(struct client *c, int64_t ms);
/* Stops (or goes on) reading. */
void client_stall(struct client *c, bool on);
/* The last content that was added is not sent to its end; then the client ends. */
void client_cut(struct client *c);
/* The end comes so many ms after the last step, and waits for no reply; 0: as client_ends says. */
void client_ends_late(struct client *c, int64_t ms);
/* The last step; after: so many steps only (the end then comes early); 0: all. */
void client_ends(struct client *c, enum client_end how, unsigned after);
unsigned client_steps(const struct client *c);
/* Connects; the client lives until the scenario ends. */
void client_start(struct client *c, const char *from, uint16_t port);
/* Has it come to its end? */
bool client_over(const struct client *c);

#endif
