/*
 * receive/rewrite.c - local_header_rewrite_clients; see rewrite.h
 *
 * A word that permits ends the list, as in Postfix; sendmail(1) is local whatever the list says,
 * but for sendmail -G.
 */
#include "receive/rewrite.h"

#include <stdlib.h>

#include "maps/maps.h"
#include "receive/clientcert.h"
#include "receive/forwarded.h"
#include "util/log.h"

#define LIST_SEPS ", \t\r\n"

static enum cmd rewrite_go(struct session *s);

static enum cmd rewrite_over(struct session *s, bool local, bool unknown) {
    s->tx->local_headers = local;
    s->tx->local_unknown = unknown;
    return s->tx->rewrite_then(s);
}

/* What a list or a table says: yes, an error, or that the next word is asked. */
static void rewrite_answer(struct session *s, bool yes, bool error) {
    s->tx->rewrite_asked = 0;
    enum cmd rc = yes || error ? rewrite_over(s, yes, error) : rewrite_go(s);
    if (rc != CMD_WAIT)
        smtpd_answered(s, rc);
}

static void on_rewrite_network(void *arg, enum match_rc rc) {
    rewrite_answer(arg, rc == MATCH_YES, rc == MATCH_ERROR);
}

static void on_rewrite_table(void *arg, const struct maps_answer *ans) {
    rewrite_answer(arg, ans->rc == MAP_FOUND, ans->rc == MAP_ERROR);
}

/* permit_mynetworks; MATCH_YES, MATCH_NO or MATCH_ERROR unless a question is open now. */
static enum match_rc rewrite_in_mynetworks(struct session *s) {
    enum match_rc now = MATCH_NO;
    s->tx->rewrite_asked = client_match_now(&s->client, s->r->lookup, s->p, "mynetworks",
                                            s->p->mynetworks, &now, on_rewrite_network, s);
    return now;
}

static void rewrite_ask_table(struct session *s, struct str table) {
    char *spec = str_dup(table);
    struct maps_key key = {str_of(s->client.addr), false};
    s->tx->rewrite_asked =
        lookup_maps(s->r->lookup, "smtpd", spec, VALUES_JOINED, &key, 1, on_rewrite_table, s);
    free(spec);
}

/* permit_tls_clientcerts, or permit_tls_all_clientcerts (all); as rewrite_in_mynetworks. */
static enum match_rc rewrite_clientcerts(struct session *s, bool all) {
    if (s->cert == NULL)
        return MATCH_NO;
    if (all && s->cert->trusted)
        return MATCH_YES;
    if (s->cert->print == NULL)
        return MATCH_ERROR;
    if (s->p->relay_clientcerts[0] == '\0')
        return MATCH_NO;
    s->tx->rewrite_asked = clientcert_ask(s->cert, s->r->lookup, s->p, on_rewrite_table, s);
    return MATCH_NO;
}

/* One word; MATCH_NO: the next one, if no question is open. */
static enum match_rc rewrite_word(struct session *s, struct str word) {
    if (str_ieq_c(word, "permit_inet_interfaces"))
        return cfg_is_own_address(s->cfg, s->client.addr) ? MATCH_YES : MATCH_NO;
    if (str_ieq_c(word, "permit_mynetworks"))
        return rewrite_in_mynetworks(s);
    if (str_ieq_c(word, "permit_sasl_authenticated"))
        return s->sasl_user != NULL ? MATCH_YES : MATCH_NO;
    if (str_ieq_c(word, "permit_tls_clientcerts"))
        return rewrite_clientcerts(s, false);
    if (str_ieq_c(word, "permit_tls_all_clientcerts"))
        return rewrite_clientcerts(s, true);
    if (map_looks_like(word))
        rewrite_ask_table(s, word);
    return MATCH_NO; /* check_address_map: a table follows */
}

static enum cmd rewrite_go(struct session *s) {
    struct transaction *tx = s->tx;
    struct str word;
    while (str_split_braces(&tx->rewrite_rest, LIST_SEPS, &word)) {
        enum match_rc rc = rewrite_word(s, word);
        if (tx->rewrite_asked != 0)
            return CMD_WAIT;
        if (rc != MATCH_NO)
            return rewrite_over(s, rc == MATCH_YES, rc == MATCH_ERROR);
    }
    return rewrite_over(s, false, false);
}

enum cmd rewrite_ask(struct session *s, enum cmd (*then)(struct session *s)) {
    bool local;
    s->tx->rewrite_then = then;
    s->tx->rewrite_rest = str_of(s->p->local_header_rewrite_clients);
    if (forwarded_source(s, &local))
        return rewrite_over(s, local, false);
    return s->client.local ? rewrite_over(s, !s->tx->is_remote, false) : rewrite_go(s);
}
