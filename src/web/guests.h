/*
 * web/guests.h - which connections make room when the page has many
 *
 * The page has WEB_CONNECTIONS places.  A client that sends its request byte by byte, or takes its
 * answer so, keeps one for as long as it likes.  When most places are taken, each new connection
 * therefore ends another one: the oldest of the address that has most of them.
 */
#ifndef PH_WEB_GUESTS_H
#define PH_WEB_GUESTS_H

#include <microhttpd.h>
#include <stdbool.h>

struct netaddr;

/* From so many connections on a new one ends another: fewer than there are places, because a
 * connection that is ended keeps its place for a moment. */
#define GUESTS_MAX 192U

/* For MHD_OPTION_NOTIFY_CONNECTION: *guest is the connection's from its begin to its end. */
void guests_notify(void *cls, struct MHD_Connection *conn, void **guest,
                   enum MHD_ConnectionNotificationCode code);

/* Where the connection comes from, an IPv4 address as such; false: from a unix socket. */
bool guest_peer(struct MHD_Connection *conn, struct netaddr *peer);

/* Keeps the connection from being ended for others, or no longer: while its request is answered,
 * and while an administrator of everything gets the answer. */
void guest_keep(struct MHD_Connection *conn, bool keep);

#endif
