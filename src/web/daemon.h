/*
 * web/daemon.h - asking posthoused, and the helper that may read what the page may not
 *
 * Any thread; blocks.
 */
#ifndef PH_WEB_DAEMON_H
#define PH_WEB_DAEMON_H

#include "daemon/ask.h"
#include "web/http.h"

/* No step of a test takes as long, and no thread waits for ever. */
#define DAEMON_PATIENCE_MS 180000
/* What the page says of a daemon that does not answer. */
#define DAEMON_SILENT "posthoused does not answer: is it running?"

/* Sends request (the reference is taken) and gives the lines of the answer as an array; NULL after
 * a reply that says that the daemon does not answer.  end may be NULL. */
json_t *daemon_lines(struct req *r, json_t *request, struct ask_end *end);
/* A command of one word; NULL when the daemon does not answer within some seconds. */
json_t *daemon_ask(struct web *w, const char *cmd);
/* What an error of the daemon's means, where it is known: why has its "cause" and "reply"; the
 * sentence becomes the member "advice" of to. */
void daemon_add_advice(json_t *to, json_t *why);
/* What was changed counts from the next message on (uses: enum ask_uses, where it was written).
 * False after a reply that says that it is saved but not in use. */
bool daemon_take_up(struct req *r, unsigned uses);

/* helper.c: started before privileges are dropped, confined by itself.  It takes three requests,
 * numbers without content: audit the configuration, list its next hops, open the log file again.
 * False: it cannot be started. */
bool helper_start(struct web *w);
/* What an audit finds: {"findings": [{"level", "text", "file", "line"}]}; NULL: it does not answer.
 */
json_t *helper_audit(struct web *w);
/* Each next hop that the configuration and its tables name, with the place: {"[host]:25":
 * "relayhost"}; NULL: it does not answer. */
json_t *helper_next_hops(struct web *w);
/* After rotation. */
void helper_reopen_log(struct web *w);

#endif
