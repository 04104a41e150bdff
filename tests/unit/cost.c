/* What parsers of peers' text cost: of four times as many bytes, about four times as much, whatever
 * they are and however small the pieces that they come in. */
#include "unit.h"

#include <time.h>

#include "mail/address.h"
#include "mail/addrlist.h"
#include "mail/edit.h"
#include "mail/header.h"
#include "mail/words.h"
#include "receive/access.h"
#include "route/alias.h"
#include "route/aliased.h"
#include "route/nexthop.h"
#include "smtp/command.h"
#include "smtp/content.h"
#include "smtp/reply.h"
#include "smtp/sasl.h"
#include "smtp/withhold.h"
#include "util/codec.h"
#include "util/idn.h"

/* Bytes of the shorter text.  A cost that grows with the square shows: 4 KiB of it hide behind the
 * calls. */
#define SHORT 16384U
/* A text of four times the bytes may cost at most so many times as much, and a moment more. */
#define TIMES  10
#define MOMENT (CLOCKS_PER_SEC / 500)

/* -- what is fed: text in pieces of that many bytes -- */

/* As a connection keeps input: take uses bytes of what has come, and is offered the rest with the
 * next piece. */
static void feed(struct str text, size_t piece, size_t (*take)(void *arg, struct str come),
                 void *arg) {
    struct sbuf kept = {0};
    for (size_t at = 0; at < text.n; at += piece) {
        size_t n = text.n - at < piece ? text.n - at : piece, used = 0, k;
        sbuf_add(&kept, text.p + at, n);
        do {
            k = take(arg, str_from(sbuf_str(&kept), used));
            used += k;
        } while (k > 0 && used < kept.n);
        sbuf_drop(&kept, used);
    }
    sbuf_free(&kept);
}

struct fed {
    struct content_in in;
    struct header_edit edit;
    struct header_scan scan;
    struct smtp_reply reply;
    struct sbuf raw, out;
};

static void fed_free(struct fed *f) {
    header_scan_free(&f->scan);
    smtp_reply_free(&f->reply);
    sbuf_free(&f->raw);
    sbuf_free(&f->out);
}

static size_t take_data(void *arg, struct str come) {
    struct fed *f = arg;
    size_t used = 0;
    content_data(&f->in, come, &f->out, &used);
    return used;
}

static void feed_data(struct str text, size_t piece) {
    struct fed f = {.in = {0}};
    feed(text, piece, take_data, &f);
    fed_free(&f);
}

static size_t take_chunk(void *arg, struct str come) {
    struct fed *f = arg;
    content_bdat(&f->in, come, &f->out);
    return come.n;
}

static void feed_chunks(struct str text, size_t piece) {
    struct fed f = {.in = {0}};
    feed(text, piece, take_chunk, &f);
    content_bdat_end(&f.in, &f.out);
    fed_free(&f);
}

static size_t take_header(void *arg, struct str come) {
    static const struct edit_rules rules = {"bcc, content-length", "o.example", "d.example"};
    struct fed *f = arg;
    content_bdat(&f->in, come, f->edit.ended ? &f->out : &f->raw);
    if (!f->edit.ended)
        header_edit(&f->edit, &rules, &f->raw, false, &f->out);
    header_scan(&f->scan, sbuf_str(&f->out), false);
    return come.n;
}

/* As receive/intake.c does with content. */
static void feed_header(struct str text, size_t piece) {
    struct fed f = {.in = {0}};
    feed(text, piece, take_header, &f);
    fed_free(&f);
}

static size_t take_reply(void *arg, struct str come) {
    struct fed *f = arg;
    size_t used = 0;
    enum reply_rc rc = smtp_reply_feed(&f->reply, come, &used);
    if (rc != REPLY_MORE)
        smtp_reply_reset(&f->reply);
    return rc == REPLY_BAD ? come.n : used;
}

static void feed_reply(struct str text, size_t piece) {
    struct fed f = {.in = {0}};
    feed(text, piece, take_reply, &f);
    fed_free(&f);
}

/* -- what gets a whole text -- */

static void no_address(void *arg, const struct addrlist_item *item) {
    size_t *n = arg;
    *n += item->addr.n;
}

static void read_list(struct str text, size_t piece) {
    size_t n = 0;
    (void)piece;
    addrlist_each(text, no_address, &n);
}

static void read_command(struct str text, size_t piece) {
    struct str args, key, value;
    (void)piece;
    smtp_verb_parse(text, &args);
    while (smtp_param_next(&args, &key, &value)) {
    }
}

static void read_address(struct str text, size_t piece) {
    struct addr_opts o = {.utf8 = true};
    struct sbuf out = {0}, shown = {0};
    size_t n;
    (void)piece;
    addr_parse(text, &o, &out, &n);
    addr_external(&shown, text);
    xtext_decode(&out, text);
    uxtext_ascii(&out, text);
    addr_is_dns_name(text);
    sbuf_free(&out);
    sbuf_free(&shown);
}

static void read_texts(struct str text, size_t piece) {
    struct sbuf out = {0};
    (void)piece;
    words_add_name(&out, text, STR_LIT("utf-8"), "\r\n ");
    sbuf_add_json(&out, text);
    sbuf_add_safe(&out, text);
    addr_phrase(&out, text);
    base64_decode(&out, text);
    percent_decode(&out, text);
    sasl_filter(text, STR_LIT("!gssapi, static:rest"), &out);
    sasl_choose(sbuf_str(&out), 0);
    sbuf_free(&out);
}

static void read_withheld(struct str text, size_t piece) {
    struct withhold w = {0};
    (void)piece;
    withhold_add_password(&w, STR_LIT("0.0 00000000 aaaa 5.7"));
    withhold_matches(&w, text);
    withhold_clear(&w);
}

/* -- values of tables: who writes them is often no administrator of this machine -- */

static void read_alias(struct str text, size_t piece) {
    struct str rest = text, item;
    (void)piece;
    while (alias_item_next(&rest, &item))
        alias_item_kind(item);
}

static void read_access_row(struct str text, size_t piece) {
    (void)piece;
    access_action_unknown(text);
}

static void read_hops(struct str text, size_t piece) {
    struct str bad;
    struct sbuf out = {0};
    (void)piece;
    nexthop_check(text, &bad);
    nexthop_check_lmtp(text, &bad);
    nexthop_to_ascii(text, false, &out);
    sbuf_free(&out);
}

/* virtual(5), and what another server or a database answers for it. */
static void read_virtual(struct str text, size_t piece) {
    static const struct params p = {.myorigin = "o.example", .mydomain = "d.example"};
    struct sbuf out = {0};
    struct addrlist_item item = {.addr = text, .has_domain = true};
    read_list(text, piece);
    aliased_address(&p, &item, STR_LIT("+x"), &out);
    sbuf_free(&out);
}

/* A domain of an address has a thousand bytes at most. */
static void read_domain(struct str text, size_t piece) {
    struct sbuf out = {0};
    (void)piece;
    idn_to_ascii(str_make(text.p, text.n / 64), false, &out, NULL);
    idn_spellings(str_make(text.p, text.n / 64), false, &out, &out);
    sbuf_free(&out);
}

#define WORDS 10

/* Two or three of the words, said again and again behind begin, are given to give. */
static const struct {
    const char *name;
    void (*give)(struct str text, size_t piece);
    bool pieces;
    const char *begin;
    const char *words[WORDS];
} peers[] = {
    {"DATA", feed_data, true, "", {"\r", "\n", ".", "a", "\r\n", "\xc3\xa9"}},
    {"BDAT", feed_chunks, true, "", {"\r", "\n", ".", "a", "\r\n"}},
    {"header section",
     feed_header,
     true,
     "",
     {"\r\n", "To: a", ",\r\n b", "X:", " ", ">From ", "a"}},
    {"a long field", feed_header, true, "To: ", {"(", ",", "a", "\r\n ", "<"}},
    {"Message-Id", feed_header, true, "Message-Id: ", {"\r\n ", "a", "\t"}},
    {"reply", feed_reply, true, "", {"250-", "\r\n", "a", "\xc3", "\r"}},
    {"addresses", read_list, false, "", {"(", ")", "<", ">", "\"", "\\", ",", "a", "@", "["}},
    {"groups", read_list, false, "", {":", ";", "a ", "<@", ".", "]", "@b:"}},
    {"command", read_command, false, "MAIL FROM:<a> ", {" ", "=", "a", "\t"}},
    {"address",
     read_address,
     false,
     "<",
     {"\"", "\\", "@a", ",", "[", "]", ":", "\\x{1", "}", "."}},
    {"texts", read_texts, false, "", {"\xc3\xa9", "\xc2", "\"", " ", "a", "%4", "=", ",", "\\"}},
    {"withheld", read_withheld, false, "", {"0", "0.0 ", "\n", "a", ".", " "}},
    {"alias", read_alias, false, "", {"\"", ",", "a", " ", "\\", ":include:/", "|", "("}},
    {"virtual", read_virtual, false, "", {"\"", ",", "a", "@", "(", ")", "<", "\\"}},
    {"access row", read_access_row, false, "", {"a ", "{", "}", ",", "permit ", "450 "}},
    {"next hops",
     read_hops,
     false,
     "",
     {"[", "]", ":", "a", ", ", "inet:", "unix:", ".", "\u00e9"}},
    {"domain",
     read_domain,
     false,
     "",
     {"\u00e9", "e\u0301", "\u00b7", "l", "\u0660", "\u200d", ".", "\u1100\u1161"}},
};

/* -- the measure -- */

static clock_t time_of(size_t peer, const char *word, size_t n, size_t piece) {
    struct sbuf text = {0};
    sbuf_add_c(&text, peers[peer].begin);
    while (text.n < n)
        sbuf_add_c(&text, word);
    clock_t begun = clock();
    peers[peer].give(sbuf_str(&text), piece);
    clock_t used = clock() - begun;
    sbuf_free(&text);
    return used;
}

/* What costs most. */
struct worst {
    double ns; /* a byte */
    size_t piece;
    char word[40];
};

static void worst_show(const struct worst *w, const char *name) {
    struct sbuf word = {0};
    sbuf_add_json(&word, str_of(w->word));
    printf("%s: at most %.0f ns a byte, for %s in pieces of %zu\n", name, w->ns, word.p, w->piece);
    sbuf_free(&word);
}

/* Text that is four times as long, and that something else may have made slow: then it is measured
 * again. */
static void measure(size_t peer, const char *word, size_t piece, struct worst *w) {
    clock_t less = 0, more = 0;
    for (int i = 0; i < 5; i++) {
        less = time_of(peer, word, SHORT, piece);
        more = time_of(peer, word, 4 * SHORT, piece);
        if (more < TIMES * less + MOMENT)
            break;
    }
    double ns = 1e9 * (double)more / CLOCKS_PER_SEC / (4 * SHORT);
    if (ns > w->ns) {
        *w = (struct worst){.ns = ns, .piece = piece};
        snprintf(w->word, sizeof w->word, "%s", word);
    }
    if (more < TIMES * less + MOMENT)
        return;
    printf("%ld us for %u bytes, %ld for four times as many\n", (long)less, SHORT, (long)more);
    worst_show(w, peers[peer].name);
    fail();
}

static void measure_peer(size_t peer) {
    const char *const *w = peers[peer].words;
    struct worst worst = {.ns = 0};
    size_t n = 0;
    char word[40];
    while (n < WORDS && w[n] != NULL)
        n++;
    size_t pairs = n * n, all = n > 5 ? pairs : pairs * n;
    for (size_t i = 0; i < all; i++) {
        snprintf(word, sizeof word, "%s%s%s", i < pairs ? "" : w[i / pairs], w[i / n % n],
                 w[i % n]);
        measure(peer, word, 4 * SHORT, &worst);
        if (peers[peer].pieces)
            measure(peer, word, 1, &worst);
    }
    worst_show(&worst, peers[peer].name);
}

static void test_cost_of_peers_texts(void **state) {
    (void)state;
    for (size_t peer = 0; peer < sizeof peers / sizeof peers[0]; peer++)
        measure_peer(peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cost_of_peers_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
