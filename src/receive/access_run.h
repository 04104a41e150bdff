/*
 * receive/access_run.h - the inside of a run over the restriction lists
 *
 * For the files of that alone, of which each calls only those before it: access_reply.c,
 * access_action.c, access_table.c, access_policy.c, access_words.c, access_list.c, access.c.  The
 * loop's thread, but for the reading of lists: any thread.
 */
#ifndef PH_RECEIVE_ACCESS_RUN_H
#define PH_RECEIVE_ACCESS_RUN_H

#include "receive/access.h"
#include "route/keys.h"

/* The lists in the order in which they are evaluated: those before LIST_DATA at RCPT. */
enum list {
    LIST_CLIENT,
    LIST_HELO,
    LIST_SENDER,
    LIST_RELAY,
    LIST_RECIPIENT,
    LIST_DATA,
    LIST_END,
    LISTS
};

/* A list that is read, at a start where it is checked and for a client where it is evaluated. */
struct access_reader {
    enum list list;
    struct str rest; /* its words that are left */
};

struct access_word;

/* A restriction as it stands in a list, with its table. */
struct access_item {
    struct str text;                /* its word */
    const struct access_word *word; /* NULL: Posthouse has none such */
    bool is_unread;                 /* it is one of config/unread.def */
    bool has_no_table;              /* although the word needs one */
    struct str table;
    bool warns; /* warn_if_reject stands before it */
};

/* What a test says. */
enum access_step {
    STEP_NEXT = 1, /* nothing: the next word decides */
    STEP_PERMIT,   /* the list is over */
    STEP_REJECT,   /* all is over; the reply is in text */
    STEP_FAIL,     /* likewise, also behind warn_if_reject: what the word asks is not known */
    STEP_WAIT,     /* the lookup process, or a policy service, has been asked */
    STEP_INNER     /* nothing, but that restrictions come first, which a row has named */
};

/* A reply that puts the mail off, kept for the end of all lists; code 0: none. */
struct access_later {
    unsigned code;
    struct sbuf text;
};

/* Restrictions that a row of a table names, or a policy service: they are evaluated in its place.
 */
struct access_inner {
    struct access_inner *outer; /* NULL: the list itself */
    char *text;                 /* owned */
    struct access_reader reader;
    struct sbuf name;     /* what they are about: "<a@x.example>" */
    const char *kind;     /* likewise: "Sender address" */
    bool warns;           /* warn_if_reject stands before what asked for the row */
    bool permits_nothing; /* a permit among them ends them alone */
};

/* A run is either in access_go, or waits for tag, or waits for the loop to give its answer. */
struct access_run {
    struct access_facts f;
    access_fn fn;
    void *arg;
    /* Goes on with the step of a test that had to wait; the run may be over then. */
    void (*resume)(struct access_run *a, enum access_step step);
    struct later answer;
    enum verdict verdict;        /* VERDICT_UNSET until the run is over */
    unsigned code;               /* of VERDICT_REJECT: of the reply */
    struct sbuf text;            /* likewise: what follows the code */
    bool unowned_is_free;        /* a sender without an owner may be used by every login */
    struct access_reader reader; /* the list that is evaluated */
    struct access_inner *inner;  /* what a row of it named, the innermost one; NULL: nothing */
    unsigned n_inner;
    const struct access_word *word; /* the one that is tested */
    bool warns;                     /* warn_if_reject stands before it */
    bool listed;                    /* whether there is such a recipient was asked */
    struct policy_call *policy;     /* the question to a policy service, or NULL */
    char *policy_server;            /* its word; owned */
    char *policy_default;           /* what counts where that does not answer; owned */
    struct access_later if_permit;  /* said unless the mail is refused */
    struct access_later if_reject;  /* said in place of a refusal for good */
    uint32_t tag;                   /* the question to the lookup process; 0: none */
    char *table;                    /* of the check_*_access that is being asked */
    struct keys keys;               /* that it is asked for */
};

enum word_kind {
    WORD_PERMIT,
    WORD_REJECT,
    WORD_TEST,
    WORD_CHECK,
    WORD_POLICY,
    WORD_WARN,
    WORD_SKIP
};

typedef enum access_step (*access_test)(struct access_run *a);

struct access_word {
    const char *name;
    enum word_kind kind;
    access_test test; /* of WORD_REJECT and WORD_TEST; of WORD_CHECK: adds the keys to ask for, or
                       * rejects */
};

/* -- access_reply.c -- */

/* The code and the beginning of a reply; as in Postfix, the class of the enhanced status code
 * follows a code that was configured. */
void access_code(struct access_run *a, int64_t code, const char *dsn);
/* Rejects an address: "code dsn <address>: text". */
enum access_step access_reject(struct access_run *a, int64_t code, const char *dsn,
                               struct str address, const char *text);
/* Rejects with that code and text. */
enum access_step access_reject_text(struct access_run *a, unsigned code, const char *text);
/* Rejects what the list that is evaluated is about, in Postfix's words for each list: log readers
 * know a client, a name or a sender that was refused by them. */
enum access_step access_list_refuses(struct access_run *a, int64_t code, const char *dsn,
                                     const char *why);
/* The three refuse for now, whatever stands before the word.  What the word asks is not known: */
enum access_step access_unknown(struct access_run *a);
/* the configuration is wrong: */
enum access_step access_misconfigured(struct access_run *a);
/* smtpd_tls_fingerprint_digest is, which is logged. */
enum access_step access_no_fingerprint(struct access_run *a);
/* What is being evaluated is about: appends "<client.example[192.0.2.1]>", and is "Client host". */
void access_add_name(const struct access_run *a, struct sbuf *out);
const char *access_kind(const struct access_run *a);
/* "RCPT", "DATA" or "END-OF-MESSAGE". */
const char *access_stage_name(const struct access_run *a);
/* Logs "what: RCPT from …: text; from=<a@x> …". */
void access_note(const struct access_run *a, const char *what, const char *text);

/* -- access_action.c -- */

/* What says an action: a row of a table, or a policy service. */
struct access_source {
    struct sbuf whence;     /* for the log: "access table hash:/x: entry" */
    struct str row;         /* likewise, behind it: the key, or the answer */
    struct sbuf name;       /* what it is about: "<a@x.example>" */
    const char *kind;       /* likewise: "Sender address" */
    bool sender, recipient; /* it is about one */
    bool permits_nothing;   /* what permits says nothing: as with Postfix, of a routed recipient */
    bool is_plain;          /* restrictions cannot be named */
};

/* Bytes of restrictions that a row names: to read them takes time with the square of it. */
#define ACCESS_INNER_MAX 4096U

/* Does what the value of access(5) says. */
enum access_step access_act(struct access_run *a, const struct access_source *src,
                            struct str value);
/* Is the value an action, and not restrictions? */
bool access_action_is_one(struct str value);

/* -- access_table.c -- */

/* "user%elsewhere@ours" asks for relaying through us, and through the host that it goes to. */
bool access_is_routed(const struct access_run *a);
/* Adds the keys of an address in lower case, in which Postfix asks tables of patterns, too: no
 * capital letter takes an address past a row, or past its owner. */
void access_add_keys(struct keys *keys, const struct access_run *a, struct str address,
                     void (*add)(struct keys *, const struct params *, struct str));
/* Asks the table for the keys of a->word, which is one of check_*_access. */
enum access_step access_ask_table(struct access_run *a, struct str table);
/* The tests of check_*_access: each adds its keys to a->keys. */
enum access_step access_keys_client(struct access_run *a);
enum access_step access_keys_helo(struct access_run *a);
enum access_step access_keys_sender(struct access_run *a);
enum access_step access_keys_recipient(struct access_run *a);
enum access_step access_keys_login(struct access_run *a);
enum access_step access_keys_ccert(struct access_run *a);

/* -- access_policy.c -- */

/* Asks the policy service of that word, "inet:host:port" or "{ inet:host:port, name=value }". */
enum access_step access_ask_policy(struct access_run *a, struct str server);
/* What is wrong with the word; NULL: nothing. */
const char *access_policy_bad(struct str server);
/* The service in it: "inet:host:port". */
struct str access_policy_where(struct str server);
/* What counts where that service does not answer. */
struct str access_policy_action(const struct params *p, struct str server);

/* -- access_words.c -- */

/* The restriction of that name; NULL: Posthouse has none such. */
const struct access_word *access_word_find(struct str w);
/* Does the restriction refuse whatever a stranger sends elsewhere? */
bool access_word_closes(const struct access_word *word);
/* Does the restriction compare senders with logins? */
bool access_word_compares_logins(const struct access_word *word);

/* Is there such a recipient?  The tables of its class say so (local_recipient_maps and its like),
 * or a transport "error:" or "retry:".  A restriction asks in its place in a list, and
 * smtpd_reject_unlisted_recipient at the end of all. */
enum access_step access_listed(struct access_run *a);

/* -- access_list.c -- */

/* A reader at the beginning of a list. */
struct access_reader access_list_open(const struct params *p, enum list list);
/* The next restriction of a list; false: it is over.  What stands behind warn_if_reject at the end
 * of a list is not the first one of the next list. */
bool access_item_next(struct access_reader *r, struct access_item *item);
/* May a row name it?  A row may name what tests the mail at hand, and nothing that asks elsewhere:
 * as with Postfix, which tables and services are asked is in main.cf. */
bool access_may_be_inner(const struct access_item *item);

#endif
