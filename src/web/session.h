/*
 * web/session.h - who asks: sign-in, sessions, one-time links, bearer tokens, guessing
 *
 * Any thread.  A session is a cookie (HttpOnly, SameSite=Strict, for the API's path only); the page
 * sends its csrf word with everything that changes something.  After too many wrong passwords an
 * address and an account wait.
 */
#ifndef PH_WEB_SESSION_H
#define PH_WEB_SESSION_H

#include "web/http.h"

/* Fills r->who from a bearer token or the cookie.  False after a reply. */
bool session_identify(struct req *r);
/* For a stream, which goes on after its request: true if the session or token that it came with
 * still counts, and the administrator still has the rights of that moment. */
bool session_lasts(struct web *w, const struct who *who);
/* A request that changes something: does it come from our own page (or from no page at all)?  False
 * after a reply. */
bool session_origin_ok(struct req *r);
bool session_csrf_ok(struct req *r);

/* POST /api/login, POST /api/logout, GET /api/session, POST /api/welcome */
void session_login(struct req *r);
void session_logout(struct req *r);
void session_show(struct req *r);
void session_welcome(struct req *r);

/* May the administrator who asks manage that domain?  False after a reply (403, or 503). */
bool session_may(struct req *r, const char *domain);
/* The same without a reply.  STORE_ERROR: *why, which the caller frees. */
enum store_rc session_manages(const struct req *r, const char *domain, char **why);
/* NULL for a global administrator: no restriction on lists. */
const char *session_lists(const struct req *r);

/* GET and POST /api/tokens, DELETE /api/token/{id} */
void token_list(struct req *r);
void token_add(struct req *r);
void token_delete(struct req *r);

/* Old sessions, links, log entries, results go. */
void session_sweep(struct web *w);

#endif
