/*
 * receive/receive.h - the SMTP server
 *
 * One struct receive per loop; its sessions live on that loop.  What it needs of other parts comes
 * as functions: it includes neither schedule nor deliver.
 */
#ifndef PH_RECEIVE_RECEIVE_H
#define PH_RECEIVE_RECEIVE_H

#include "config/config.h"
#include "mail/envelope.h"
#include "maps/query.h"
#include "receive/client.h"
#include "spool/spool.h"
#include "util/loop.h"
#include "util/net.h"

struct receive;

struct receive_ops {
    /* The host name of a client; calls done, perhaps at once. */
    void (*peername)(void *arg, const struct netaddr *addr, client_named_fn done, void *ctx);
    /* A message is durable; references are the receiver's.  On the spool thread. */
    void (*accepted)(void *arg, struct envelope *env, struct body *body);
    void *arg;
    size_t loops; /* that have one of these; 0: one */
};

/* cfg is the snapshot for new sessions; receive_reload changes it. */
struct receive *receive_new(struct loop *l, struct lookup *k, struct spool *sp, struct config *cfg,
                            const struct receive_ops *ops);
void receive_reload(struct receive *r, struct config *cfg);
/* Serves a listening socket (non-blocking; taken over).  svc_name is the master.cf service with
 * the settings that apply; local: a unix socket for sendmail. */
void receive_listen(struct receive *r, int fd, const char *svc_name, bool local);
/* Closes every listening socket; sessions go on. */
void receive_deaf(struct receive *r);
/* No new clients from now on.  Those that are connected are told 421 4.3.2 and let go: at once,
 * after the answer that they wait for, or after the content that they have begun to send.  Calling
 * it again changes nothing. */
void receive_stop(struct receive *r);
/* The time for that is over: the others are let go now, but for those with a message that the spool
 * has; they are told what became of it. */
void receive_leave(struct receive *r);
/* Sessions in progress, for the shutdown. */
size_t receive_sessions(const struct receive *r);
/* Mistakes in the restriction lists of a configuration, among them an open relay. */
void receive_check(const struct config *cfg, enum diag_level waits, struct diags *d);

#endif
