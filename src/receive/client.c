/*
 * receive/client.c - who is at the other end of a session; see client.h
 */
#include "receive/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "maps/maps.h"

const char *client_key(const struct client *c, char key[CLIENT_KEY_MAX]) {
    if (!c->local)
        return c->addr;
    snprintf(key, CLIENT_KEY_MAX, "user %u", c->uid);
    return key;
}

const char *client_name(const struct client *c) {
    return c->name == NULL ? "unknown" : c->name;
}

const char *client_text(const struct client *c, struct sbuf *b) {
    sbuf_printf(b, "%s[%s]", client_name(c), c->addr);
    return b->p;
}

bool client_is_in(const struct client *c, const char *networks) {
    char *err = NULL;
    if (c->local)
        return true;
    if (matchlist_has_tables(networks))
        return false;
    struct matchlist *l = matchlist_open(networks, NULL, MATCH_NETWORK, false);
    bool yes = matchlist_has(l, str_of(c->addr), &err) == MATCH_YES;
    matchlist_close(l);
    free(err);
    return yes;
}

enum bare_newline bare_newline_of(const char *word) {
    static const struct {
        const char *word;
        enum bare_newline bare;
    } words[] = {{"no", BARE_TAKEN},
                 {"yes", BARE_NORMALIZED},
                 {"normalize", BARE_NORMALIZED},
                 {"note", BARE_NOTED},
                 {"reject", BARE_REJECTED}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasecmp(word, words[i].word) == 0)
            return words[i].bare;
    return BARE_UNSET;
}

void client_clear(struct client *c) {
    free(c->name);
    c->name = NULL;
}
