/* Addresses, next hops, table sources, pattern lists. */
#include "mail/address.h"
#include "fuzz.h"
#include "mail/addrlist.h"
#include "maps/map.h"
#include "maps/maps.h"
#include "route/nexthop.h"

static void entry(void *arg, struct str key, struct str value, int line) {
    (void)arg;
    MUST(line > 0 && (key.n == 0 || key.p != NULL) && (value.n == 0 || value.p != NULL));
}

static void remark(void *arg, int line, const char *text) {
    (void)arg;
    MUST(line > 0 && text != NULL);
}

static void xtext(struct str in) {
    struct sbuf plain = {0}, coded = {0}, back = {0};
    xtext_decode(&plain, in);
    xtext_encode(&coded, in);
    bool decoded = xtext_decode(&back, sbuf_str(&coded)); /* what has controls is refused */
    MUST(decoded == !str_has_control(in) && (!decoded || str_eq(sbuf_str(&back), in)));
    sbuf_free(&plain);
    sbuf_free(&coded);
    sbuf_free(&back);
}

/* Every address lies in the list, behind the one before. */
static void address_in_list(void *arg, const struct addrlist_item *item) {
    size_t *last = arg;
    MUST(item->at <= item->end && (item->addr.n == 0 || item->at >= *last));
    *last = item->end > *last ? item->end : *last;
}

static void lists(struct str in) {
    char *spec = str_dup(in), *err = NULL;
    struct str bad;
    if (!matchlist_has_tables(spec)) {
        for (int kind = MATCH_DOMAIN; kind <= MATCH_STRING; kind++) {
            struct matchlist *l = matchlist_open(spec, "/nonexistent", (enum match_kind)kind, true);
            if (matchlist_has(l, STR_LIT("192.0.2.1"), &err) == MATCH_ERROR)
                free(err);
            if (matchlist_has(l, STR_LIT("sub.example.com"), &err) == MATCH_ERROR)
                free(err);
            matchlist_close(l);
        }
    }
    matchlist_check_networks(spec, &bad);
    free(spec);
}

static void pattern_table(const char *type, struct str in) {
    struct sbuf spec = {0}, value = {0};
    sbuf_printf(&spec, "%s:{{%.*s}}", type, STR_FMT(in));
    if (strlen(spec.p) == spec.n) {
        struct map *m = map_open(spec.p, "/nonexistent");
        map_get(m, STR_LIT("user@domain.com"), &value);
        map_get(m, STR_LIT("192.0.2.77"), &value);
        map_close(m);
    }
    sbuf_free(&spec);
    sbuf_free(&value);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct str in = str_make((const char *)p, n > 2000 ? 2000 : n), bad, hop, rest;
    size_t last = 0;
    addrlist_each(in, address_in_list, &last);
    MUST(last <= in.n);
    struct nexthop h;
    fuzz_quiet();
    uint8_t which = fuzz_byte(&in) % 6;
    rest = in;
    if (which == 0) {
        while (nexthop_split(&rest, &hop))
            nexthop_parse(&h, hop, 25);
        nexthop_check(in, &bad);
        addr_valid_host(in);
    } else if (which == 1) {
        struct str local = addr_local(in), domain = addr_domain(in);
        MUST(local.n + domain.n <= in.n);
        addr_strip_ext(local, "+-");
        str_is_ascii(in);
        xtext(in);
    } else if (which == 2) {
        map_source_parse(in, true, entry, remark, NULL);
    } else if (which == 3) {
        lists(in);
    } else {
        pattern_table(which == 4 ? "inline" : "cidr", in);
    }
    return 0;
}
