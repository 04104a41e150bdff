/*
 * daemon/inherit.c - descriptors that a supervisor has left to the next one; see inherit.h
 */
#include "daemon/inherit.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/mem.h"
#include "util/str.h"

#define INHERIT_MOST 65536U

static struct {
    char **names; /* NULL: taken, or never there */
    size_t n;
} inherited;

/* How many were passed to this process. */
static size_t inherit_count(void) {
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    uint64_t of = 0, n = 0;
    if (pid == NULL || count == NULL || !str_u64(str_of(pid), &of) || !str_u64(str_of(count), &n))
        return 0;
    return of == (uint64_t)getpid() && n <= INHERIT_MOST ? (size_t)n : 0;
}

void inherit_begin(void) {
    const char *names = getenv("LISTEN_FDNAMES");
    struct str rest = str_of(names == NULL ? "" : names), name;
    inherited.n = inherit_count();
    inherited.names = mem_zalloc((inherited.n + 1) * sizeof *inherited.names);
    for (size_t i = 0; i < inherited.n; i++) {
        int fd = INHERIT_FIRST + (int)i;
        bool named = str_split(&rest, ":", &name);
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
            inherited.names[i] = str_dup(named ? name : STR_LIT("unknown"));
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

int inherit_take(const char *name) {
    for (size_t i = 0; i < inherited.n; i++)
        if (inherited.names[i] != NULL && strcmp(inherited.names[i], name) == 0) {
            free(inherited.names[i]);
            inherited.names[i] = NULL;
            return INHERIT_FIRST + (int)i;
        }
    return -1;
}

void inherit_end(void) {
    for (size_t i = 0; i < inherited.n; i++)
        if (inherited.names[i] != NULL) {
            close(INHERIT_FIRST + (int)i);
            free(inherited.names[i]);
        }
    free(inherited.names);
    inherited.names = NULL;
    inherited.n = 0;
}
