/*
 * receive/session.h - inside of an SMTP server session (its loop's thread only)
 */
#ifndef PH_RECEIVE_SESSION_H
#define PH_RECEIVE_SESSION_H

#include "mail/header.h"
#include "receive/receive.h"
#include "route/route.h"
#include "smtp/command.h"
#include "smtp/content.h"
#include "util/conn.h"

struct listener {
    struct dl link;
    struct receive *r;
    struct acceptor *acceptor; /* NULL: the system refused */
    char *svc_name;
    bool local;
};

struct receive {
    struct loop *loop;
    struct lookup *lookup;
    struct spool *spool;
    struct config *cfg;
    struct receive_ops ops;
    struct dl listeners;
    struct dl sessions;
    size_t n_sessions;
    SSL_CTX *tls;            /* of cfg; NULL: no certificate */
    struct dovecot *dovecot; /* NULL: no service asks it */
    char *dovecot_path;
    int fd_max; /* sessions stop here: the rest is for the spool and for deliveries */
    int64_t full_ms;
    bool stopping;
};

struct rcpt_in {
    size_t addr_at, addr_n; /* into session->texts */
    size_t orcpt_at, orcpt_n;
    uint32_t notify;
};

enum session_mode { MODE_COMMAND, MODE_DATA, MODE_BDAT, MODE_CLOSING };

/* What an access decision says. */
enum verdict { VERDICT_DUNNO, VERDICT_PERMIT, VERDICT_REJECT };

struct access_run; /* access.c */
struct auth;       /* auth.c */
struct auth_ehlo;
struct dovecot;

struct session {
    struct dl link; /* receive->sessions */
    struct receive *r;
    struct conn *conn;
    struct config *cfg; /* reference */
    const struct service *svc;
    const struct params *p;
    struct netaddr peer;
    bool local;   /* unix socket: sendmail */
    unsigned uid; /* of a local client */
    char addr[INET6_ADDRSTRLEN];
    char *name; /* host name or "unknown" */
    char *helo; /* NULL: not yet */
    bool esmtp, tls_on, wrapped;
    bool trusted_limits; /* client is in smtpd_client_event_limit_exceptions */
    bool counted;        /* in the connection count */
    enum session_mode mode;
    unsigned errors, junk;
    unsigned errors_seen; /* that were punished already */
    unsigned ok[VERB_COUNT], total[VERB_COUNT];
    enum smtp_verb verb; /* the command being worked on */
    bool waiting;        /* paused for an answer */
    bool sleeping;       /* paused after errors */
    bool gone;           /* the client has left; the commit may still be on its way */
    unsigned holds;      /* callbacks that still refer to this session */
    /* who the client is */
    struct auth *auth;           /* being found out */
    struct auth_ehlo *ehlo_wait; /* EHLO waits for the mechanisms */
    bool ehlo_asked;
    char *sasl_user, *sasl_method; /* NULL: not logged in */
    /* the transaction */
    bool in_mail;
    bool expected;     /* counted by spool_expect */
    struct sbuf texts; /* sender, recipients, their ORCPTs */
    size_t sender_n;
    struct sbuf envid;
    uint32_t flags; /* ENV_* */
    struct rcpt_in *rcpts;
    size_t n_rcpts, cap_rcpts;
    struct rcpt_in pending; /* RCPT being decided */
    uint64_t id;
    char qid[QID_MAX];
    int64_t arrival_us;
    struct route_query *route;
    enum route_rc route_rc;
    enum route_class route_class;
    bool route_served; /* its transport is one that we have */
    int route_refuses; /* 550 or 450: transport_maps says error: or retry: */
    struct sbuf route_text;
    struct access_run *access;
    /* the content */
    struct content_in in;
    struct sbuf content; /* in memory: all of it, or what is not yet in the file */
    struct header_scan hdr;
    bool hdr_done;
    uint64_t size;        /* so far, with what is in the file */
    uint64_t counted_mem; /* in the budget */
    bool too_big, failed;
    int fail_rc;
    bool in_file;
    uint64_t file_at; /* written or being written */
    uint32_t file_crc;
    bool writing; /* a chunk is with the spool */
    bool ended;   /* the content is complete */
    uint64_t bdat_left, bdat_size;
    bool bdat_last, bdat_begun;
    bool bdat_refused; /* a chunk was refused: the others are read and refused, up to the last */
};

/* session.c */
void session_reply(struct session *s, bool ok, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void session_wait(struct session *s);
/* The answer is there: input goes on. */
void session_go(struct session *s);
void session_reset(struct session *s);
void session_close(struct session *s, const char *what);
/* Tells the spool that a message is on its way (content is coming), or not any more. */
void session_expect(struct session *s, bool on);
void session_unhold(struct session *s);
const char *session_from(const struct session *s, struct sbuf *b);
bool session_word(const char *list, const char *word);
void session_start_tls(struct session *s);

/* commands.c */
void command_line(struct session *s, struct str line);
void command_greet(struct session *s);
/* Sender, recipient and HELO as "from=<> to=<> proto=… helo=<…>" of reject lines. */
void command_log_reject(struct session *s, const char *stage, const char *text);
struct str command_sender(const struct session *s);
void command_ehlo(struct session *s, struct str name);

/* auth.c */
void auth_command(struct session *s, struct str args);
/* Is the client's next line an answer to a challenge? */
bool auth_reading(const struct session *s);
void auth_line(struct session *s, struct str line);
/* The session ends. */
void auth_drop(struct session *s);
/* True if EHLO has to wait for the list of mechanisms: command_ehlo is called again. */
bool auth_ehlo_waits(struct session *s, struct str name);
/* The mechanisms to offer, separated by blanks; empty: no AUTH. */
void auth_offer(struct session *s, struct sbuf *mechs);
/* A new configuration. */
void auth_reload(struct receive *r);

/* access.c */
/* Decides about the pending recipient (or, at DATA, about all); calls access_done. */
void access_begin(struct session *s, bool at_data);
void access_cancel(struct session *s);
void access_done(struct session *s, enum verdict v, const char *text);
bool access_is_ours(struct session *s, const char *networks);

/* data.c */
void data_begin(struct session *s);
/* The first chunk may come; the restrictions have been asked. */
void data_bdat_begin(struct session *s);
/* It may not: reads and drops it. */
void data_bdat_refuse(struct session *s);
size_t data_input(struct session *s, const char *p, size_t n);
void data_bdat(struct session *s, struct str args);
size_t data_bdat_input(struct session *s, const char *p, size_t n);
void data_discard(struct session *s);
uint64_t data_memory(void);

/* anvil.c: counts over all loops */
bool anvil_connect(const char *addr, int64_t max_count, int64_t max_rate, int64_t unit_s);
void anvil_disconnect(const char *addr);
enum anvil_what { ANVIL_MESSAGE, ANVIL_RCPT, ANVIL_AUTH };
/* One more event; its count in this interval. */
int64_t anvil_event(const char *addr, enum anvil_what what, int64_t unit_s);

#endif
