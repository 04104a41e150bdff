/*
 * receive/client.c - the client at the other end of a session; see client.h
 */
#include "receive/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

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
    sbuf_add_c(b, client_name(c));
    sbuf_add_ch(b, '[');
    sbuf_add_c(b, c->addr);
    sbuf_add_ch(b, ']');
    return b->p;
}

uint32_t client_match_now(const struct client *c, struct lookup *k, const struct params *p,
                          const char *name, const char *list, enum match_rc *now,
                          lookup_match_fn fn, void *arg) {
    struct sbuf key = {0};
    *now = c->local ? MATCH_YES : MATCH_NO;
    if (c->local || list[0] == '\0')
        return 0;
    unsigned how = match_how(list_has_word(str_of(p->parent_domain_matches_subdomains), name),
                             p->enable_idna2003_compatibility);
    sbuf_add_c(&key, c->addr);
    sbuf_add_ch(&key, ' ');
    sbuf_add_c(&key, client_name(c));
    uint32_t tag =
        lookup_match_now(k, "smtpd", list, MATCH_NETWORK, how, sbuf_str(&key), now, fn, arg);
    sbuf_free(&key);
    return tag;
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
    free(c->reverse_name);
    free(c->name);
    c->name = NULL;
}
