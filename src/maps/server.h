/*
 * maps/server.h - the lookup process's work: answering questions about tables
 *
 * Reads questions from the channels on the calling thread and answers them on worker threads, so
 * that a slow table delays only those that asked it.
 */
#ifndef PH_MAPS_SERVER_H
#define PH_MAPS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "maps/map.h"
#include "util/ipc.h"

struct lookup_server;

/* Is spec a table (list) that the configuration names?  The relay may ask for no other. */
typedef bool (*lookup_allowed_fn)(void *arg, const char *spec);

/* Is that user's password?  As lookup_verify of query.h says; *err (the server frees) with
 * MAP_ERROR. On worker threads. */
typedef enum map_rc (*lookup_verify_fn)(void *arg, const char *user, const char *password,
                                        bool secure, const char *client, struct sbuf *value,
                                        char **err);

struct lookup_server *lookup_server_new(size_t workers, const char *dir);
/* How many workers it has: fewer than it was to have where the system has no room for threads. */
size_t lookup_server_workers(const struct lookup_server *s);
/* A channel to a loop of the relay; taken over. */
void lookup_server_add(struct lookup_server *s, int fd);
void lookup_server_allow(struct lookup_server *s, lookup_allowed_fn fn, void *arg);
void lookup_server_verify(struct lookup_server *s, lookup_verify_fn fn, void *arg);
/* Tells every channel that this process ends in order: nothing that it was asked is to blame. */
void lookup_server_bye(struct lookup_server *s);
/* One answer, on the calling thread: a whole message is appended to out.  head->type is
 * LOOKUP_MAPS, LOOKUP_MATCH, LOOKUP_TRACED, LOOKUP_VERIFY or LOOKUP_FORGET; malformed fields are
 * answered with an error. */
void lookup_server_answer(struct lookup_server *s, const struct ipc_head *head, struct str fields,
                          struct sbuf *out);
/* Serves until control_fd is readable; returns then, to be called again. */
void lookup_server_run(struct lookup_server *s, int control_fd);

#endif
