/*
 * daemon/ask.h - asking the daemon over its control socket, from another process
 *
 * For the posthouse command and the page.  Blocks; any thread, each with calls of its own.
 */
#ifndef PH_DAEMON_ASK_H
#define PH_DAEMON_ASK_H

#include "util/str.h"

enum ask_uses { ASK_STORE = 1, ASK_RELAYS = 2 };

struct ask_end {
    bool passed;    /* of a test or an explanation */
    bool more;      /* of a page of the queue */
    bool denied;    /* this user may not do it */
    bool halted;    /* of a listing: nothing is sent, because the disk does not take notes */
    bool crowded;   /* likewise: no new mail is taken, because of queue_memory_limit */
    long count;     /* messages that an order has changed */
    long matched;   /* messages that it was for */
    long process;   /* of reloads: the relay process that counts them */
    unsigned uses;  /* of forget: the accounts store, relay records; enum ask_uses */
    uint64_t store; /* of forget: the hash of accounts_store; 0: the daemon does not say */
};

/* One line of an answer. */
typedef void (*ask_line_fn)(void *arg, struct str line);

/* How long a daemon may be silent before it is given up, in milliseconds; 0, as at the start: for
 * ever.  Before any thread asks. */
void ask_set_patience(int64_t ms);
/* Connects to a unix socket called name in a directory, which may have a longer path than a
 * socket's name can be.  Negative errno. */
int ask_connect(const char *dir, const char *name);
/* Sends request (a JSON object) to the daemon of that queue_directory; calls fn for each line but
 * the last.  0 when the answer ended with "ok": true; else negative errno with *why (the caller
 * frees). */
int ask_daemon(const char *queue_directory, const char *request, ask_line_fn fn, void *arg,
               struct ask_end *end, char **why);
/* The same of a daemon that may be silent for most_ms (0: for ever). */
int ask_daemon_within(int64_t most_ms, const char *queue_directory, const char *request,
                      ask_line_fn fn, void *arg, struct ask_end *end, char **why);

/* What a failure that a listing tells of means and what to do, in a sentence: cause is the name of
 * the cause, reply the remote's words, "" where there is none.  NULL: nothing to add. */
const char *ask_advice(const char *cause, const char *reply);

/* A daemon has reloaded in this time, also when processes of it hang. */
#define ASK_RELOAD_S 30
/* Has the daemon of that queue_directory read its configuration again, and waits until it has, for
 * at most wait_s seconds. -ESRCH: none runs; -EPERM, -EACCES: this user may not ask; -EINVAL: the
 * configuration has errors and the old one stays in use; -ETIMEDOUT: it was asked, and does so when
 * it can. */
int ask_reload(const char *queue_directory, long wait_s);
/* A daemon has restarted in this time, also when processes of it hang and its queue is large. */
#define ASK_RESTART_S 300
/* Is restarted, as it was started, and waited for until it serves.  Errors as ask_reload's; -EPIPE:
 * it has ended instead, or this user may not ask. */
int ask_restart(const char *queue_directory, long wait_s);

/* Something was written: it counts from the next message on when this returns.  What the daemon
 * remembers is forgotten; if its configuration is older than what was written to (uses: enum
 * ask_uses), it is reloaded, once, and waited for, up to some seconds.  store: the accounts store
 * that was written to, as accounts_store has it; NULL: none, or whatever the daemon uses.  0: it
 * counts, or no daemon runs; 1: it counts after a reload; negative errno with *why (the caller
 * frees). */
int ask_take_up(const char *queue_directory, unsigned uses, const char *store, char **why);

#endif
