/*
 * accounts/values.c - what may stand in the accounts store; see values.h
 */
#include "accounts/values.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

#include "mail/address.h"
#include "maps/maps.h"
#include "route/nexthop.h"

bool value_account_ok(struct str text) {
    bool blank = false;
    if (str_eq_c(text, "<>"))
        return true;
    for (size_t i = 0; i < text.n; i++)
        blank = blank || (unsigned char)text.p[i] <= ' ' || text.p[i] == 0x7f;
    return !blank && text.n > 0 && text.n <= VALUE_MAX && addr_valid_host(addr_domain(text)) &&
           text.p[0] != '<';
}

const char *value_relayhost_bad(struct str text, struct str *bad) {
    struct sbuf plain = {0};
    *bad = text;
    if (str_eq_c(text, "DUNNO"))
        return NULL;
    if (text.n > VALUE_MAX)
        return "more than 255 bytes";
    if (str_has_control(text))
        return "it has a tab or another control character";
    if (str_trim(text).n == 0)
        return "empty";
    bool prefixed = nexthop_without_transport(text, &plain);
    const char *why = nexthop_check(prefixed ? sbuf_str(&plain) : text, bad);
    if (prefixed) /* *bad must outlive plain */
        *bad = text;
    sbuf_free(&plain);
    return why;
}

static bool name_ok(struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && c != '-' && c != '_' && c != '.')
            return false;
    }
    return s.n > 0;
}

/* inet:host:port and unix:path, as lmtp has them. */
static const char *lmtp_bad(struct str hop, struct str *bad) {
    struct nexthop at;
    *bad = hop;
    if (str_istarts(hop, "unix:"))
        return hop.n > 5 ? NULL : "unix: and no path of a socket";
    if (str_istarts(hop, "inet:"))
        hop = str_from(hop, 5);
    return nexthop_parse(&at, hop, 24);
}

const char *value_transport_bad(struct str text, struct str *bad) {
    ptrdiff_t colon = str_chr(text, ':');
    struct str name = str_make(text.p, colon < 0 ? text.n : (size_t)colon);
    struct str hop = colon < 0 ? STR_LIT("") : str_from(text, (size_t)colon + 1);
    *bad = text;
    if (text.n > VALUE_MAX)
        return "more than 255 bytes";
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] <= ' ' || text.p[i] == 0x7f)
            return "it has a blank or a control character";
    if (text.n == 0)
        return "empty";
    if (name.n > 0 && !name_ok(name)) {
        *bad = name;
        return "not a transport's name; write transport:next hop, as in smtp:[mail.example.com]:25";
    }
    if (hop.n > 0 && str_eq_c(name, "lmtp"))
        return lmtp_bad(hop, bad);
    if (hop.n > 0 && (str_eq_c(name, "smtp") || str_eq_c(name, "relay") || name.n == 0))
        return nexthop_check(hop, bad);
    return NULL;
}

void value_version(struct str text, char out[VALUE_VERSION]) {
    unsigned char md[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)text.p, text.n, md);
    for (size_t i = 0; i < (VALUE_VERSION - 1) / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", md[i]);
}

bool value_net_ok(const char *nets, const char *client) {
    if (nets[0] == '\0')
        return true;
    struct matchlist *l = matchlist_open(nets, NULL, MATCH_NETWORK, 0);
    char *err = NULL;
    bool ok = matchlist_has(l, str_of(client), &err) == MATCH_YES;
    free(err);
    matchlist_close(l);
    return ok;
}
