/*
 * cli/container.h - what the environment of a container asks for, as lines of main.cf and secrets
 *
 * One thread.  Nothing here writes a file.  Secrets are overwritten by container_plan_free.
 */
#ifndef PH_CLI_CONTAINER_H
#define PH_CLI_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>

#include "util/str.h"

/* A line of main.cf. */
struct container_line {
    char *name, *value;
    const char *by; /* the variable that asks for it; NULL: it is one of the image's own */
    bool verbatim;  /* $name in it is replaced, as in main.cf */
};

struct container_plan {
    struct container_line *lines;
    size_t n_lines;
    char *login_key, *login_user, *login_password; /* of the relay host; NULL: no login */
    const char *login_by;                          /* the variable of the account */
    char *users;                                   /* "name:password" with ',' or a line's end
                                                    * between two; NULL: there are none */
    const char *users_by;                          /* the variable that says so */
    struct sbuf senders;                           /* rows of a table of who may send */
    char *ports;                                   /* where clients are served */
    size_t wrong;                                  /* variables that were refused, each said */
};

/* Reads environ.  Each variable that is unknown, contradicts another one or has a value that cannot
 * be used is said on standard error, by its name and never with a secret. */
void container_plan_read(struct container_plan *plan, char **environment);
/* Says one more. */
void container_plan_refuse(struct container_plan *plan, const char *variable, const char *why);
/* The image's own line, unless a variable asks for that parameter. */
void container_plan_default(struct container_plan *plan, const char *name, const char *value);
/* A line without which what variable by asks for is not done. */
void container_plan_need(struct container_plan *plan, const char *name, const char *value,
                         const char *by);
void container_plan_free(struct container_plan *plan);

#endif
