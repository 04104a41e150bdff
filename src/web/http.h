/*
 * web/http.h - requests and replies of the page's server, over libmicrohttpd
 *
 * Each connection has a thread of its own, so that whatever a handler asks (databases, the daemon)
 * may block.  A handler gives exactly one reply.  Bodies are bounded by BODY_MAX and BODY_PARTS,
 * the number of connections by WEB_CONNECTIONS: strangers may send as many of both.
 */
#ifndef PH_WEB_HTTP_H
#define PH_WEB_HTTP_H

#include <jansson.h>
#include <microhttpd.h>

#include "web/web.h"

#define BODY_MAX        (256U * 1024)
#define BODY_PARTS      8192U /* members and elements: each takes far more memory than it has bytes */
#define WEB_CONNECTIONS 256U

/* Who asks. */
struct who {
    char *admin;     /* address; NULL: not signed in */
    struct admin is; /* as the store has that administrator */
    bool global;     /* of everything: the administrator is, and it is no token for one domain */
    unsigned scopes; /* what a token may do; a session: SCOPE_ALL */
    char *domain;    /* a token for one domain only; NULL: not bound */
    bool token;
    bool page;              /* a session of the page: needs csrf */
    char *csrf;             /* the word that the session sends with what changes something; NULL */
    char began[ADMIN_MARK]; /* what it was made with: is.mark then, for a token is.born */
    char key[65];           /* hash of the session's or the token's secret; "": none */
};

/* Frees what who has, not who itself. */
void who_free(struct who *who);

struct req {
    struct web *w;
    struct MHD_Connection *conn;
    int64_t since_ms; /* monotonic: when its head was there */
    const char *method, *path;
    char *arg; /* what stood at the path's {…}; NULL: it has none */
    struct sbuf body;
    json_t *in;      /* the body's members (JSON, or a form's as texts): an object, perhaps empty */
    bool form;       /* the body is a form: its numbers are texts */
    char client[64]; /* address, without port */
    bool https;      /* as far as the proxy says */
    bool direct;     /* not by way of a proxy */
    bool too_big;
    struct who who;
    struct MHD_Response *reply;
    unsigned status;
    size_t reply_bytes; /* of memory that it takes until it is sent; a file, a stream: 0 */
    size_t counted;     /* of them, as crowd_answer has it; 0: not at all */
    bool turn;          /* crowd_turn_end is to come */
};

/* A parameter of the query; "" if there is none. */
const char *req_query(struct req *r, const char *name);
/* A member of the body that is a text; NULL if there is none. */
const char *req_text(struct req *r, const char *name);
/* A field of the request's header; NULL if there is none. */
const char *req_header(struct req *r, const char *name);
/* A number of the query, from 1 to max; *v stays as it is when it is not given.  False after a
 * reply that refuses what is no such number. */
bool req_number(struct req *r, const char *name, unsigned max, unsigned *v);
/* The same of a member of the body: a JSON integer, or digits in a form. */
bool req_integer(struct req *r, const char *name, int64_t min, int64_t max, int64_t *v);
bool req_wants_stream(struct req *r);

/* {"_success": true, "_data": data}; takes the reference. */
void reply_data(struct req *r, json_t *data);
void reply_ok(struct req *r);
/* {"_success": false, "_msg": …} */
void reply_fail(struct req *r, unsigned status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The accounts store could not be asked: the reason goes to the log; frees why. */
void reply_store_failed(struct req *r, char *why);
void reply_json(struct req *r, unsigned status, json_t *o);
void reply_text(struct req *r, unsigned status, const char *type, struct str text);
/* Server-sent events: next appends the following event and returns false after the last one; it
 * may wait, but for seconds only.  done (may be NULL) is called at the end, whatever ended it. */
typedef bool (*stream_fn)(void *arg, struct sbuf *out);
void reply_stream(struct req *r, stream_fn next, void (*done)(void *arg), void *arg);
void reply_header(struct req *r, const char *name, const char *value);

/* What a change that was made for an older state is refused with. */
#define REPLY_STALE "Somebody else has changed it since you read it. Look at what it is now."

/* A JSON string of any bytes. */
json_t *json_text(const char *s);
/* The text of a member; "" when it is none. */
const char *json_member(json_t *o, const char *name);

/* Serves on a listening socket for the life of the process; called once. */
bool http_start(struct web *w, int fd, void (*dispatch)(struct req *r));

#endif
