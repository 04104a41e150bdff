/*
 * route/aliased.c - addresses in the values of aliases; see aliased.h
 */
#include "route/aliased.h"

#include <string.h>

#include "mail/address.h"

/* As local(8) completes it; the external form. */
static void aliased_complete(const struct params *p, const struct addrlist_item *item,
                             struct sbuf *out) {
    struct sbuf whole = {0};
    bool none = item->addr.n == 0; /* "<>" */
    sbuf_add_str(&whole, none ? str_of(p->empty_address_recipient) : item->addr);
    if (none ? strchr(p->empty_address_recipient, '@') == NULL : !item->has_domain)
        sbuf_printf(&whole, "@%s", p->myorigin);
    addr_complete(&whole, 0, NULL, p->append_dot_mydomain ? p->mydomain : NULL);
    sbuf_add_ch(out, '<');
    addr_external(out, sbuf_str(&whole));
    sbuf_add_ch(out, '>');
    sbuf_free(&whole);
}

static void aliased_extend(struct sbuf *addr, struct str extension) {
    struct str local = addr_local(sbuf_str(addr));
    struct sbuf with = {0};
    sbuf_add_str(&with, local);
    sbuf_add_str(&with, extension);
    sbuf_add_str(&with, str_from(sbuf_str(addr), local.n));
    sbuf_free(addr);
    *addr = with;
}

bool aliased_address(const struct params *p, const struct addrlist_item *item, struct str extension,
                     struct sbuf *out) {
    const struct addr_opts any = {.utf8 = true};
    struct sbuf external = {0}, addr = {0};
    size_t len = 0;
    aliased_complete(p, item, &external);
    enum addr_rc rc = addr_parse(sbuf_str(&external), &any, &addr, &len);
    bool good = rc == ADDR_OK && len == external.n;
    if (good && extension.n > 0)
        aliased_extend(&addr, extension);
    if (good)
        sbuf_add_str(out, sbuf_str(&addr));
    sbuf_free(&external);
    sbuf_free(&addr);
    return good;
}
