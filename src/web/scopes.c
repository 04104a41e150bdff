/*
 * web/scopes.c - the names of what a token may do; see token.h
 */
#include "web/token.h"

#include "web/web.h"

static const struct {
    const char *name;
    unsigned scope;
} scopes[] = {{"read", SCOPE_READ},   {"accounts", SCOPE_ACCOUNTS}, {"relays", SCOPE_RELAYS},
              {"queue", SCOPE_QUEUE}, {"test", SCOPE_TEST},         {"metrics", SCOPE_METRICS}};

#define N_SCOPES (sizeof scopes / sizeof scopes[0])

unsigned scope_named(struct str name) {
    for (size_t i = 0; i < N_SCOPES; i++)
        if (str_eq_c(name, scopes[i].name))
            return scopes[i].scope;
    return 0;
}

unsigned token_scopes(const char *list) {
    struct str rest = str_of(list), one;
    unsigned all = 0;
    while (str_split(&rest, ", ", &one))
        all |= scope_named(one);
    return all;
}
