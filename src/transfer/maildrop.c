/*
 * transfer/maildrop.c - mail that Postfix has not picked up yet; see maildrop.h
 */
#include "transfer/maildrop.h"

#include <string.h>

#include "mail/address.h"
#include "mail/edit.h"
#include "mail/missing.h"
#include "mail/words.h"
#include "util/clock.h"

struct completing {
    struct queuefile *q;
    const struct params *p;
    const char *qid;
};

/* -- addresses -- */

/* Appends the address as it is when it is complete; its length counts until texts grows no more. */
static void drop_address(const struct params *p, struct str *addr, struct sbuf *texts) {
    size_t at = texts->n;
    sbuf_add_str(texts, *addr);
    addr_complete(texts, at, p->append_at_myorigin ? p->myorigin : NULL,
                  p->append_dot_mydomain ? p->mydomain : NULL);
    addr->n = texts->n - at;
}

static void drop_place(struct str *addr, const struct sbuf *texts, size_t *at) {
    addr->p = sbuf_str(texts).p + *at;
    *at += addr->n;
}

static void drop_addresses(struct completing *c, struct sbuf *texts) {
    struct queuefile *q = c->q;
    size_t at = texts->n;
    drop_address(c->p, &q->sender, texts);
    for (size_t i = 0; i < q->n_rcpts; i++)
        drop_address(c->p, &q->rcpts[i].r.addr, texts);
    drop_place(&q->sender, texts, &at);
    for (size_t i = 0; i < q->n_rcpts; i++)
        drop_place(&q->rcpts[i].r.addr, texts, &at);
}

/* -- the header -- */

static void author_put(const struct completing *c, struct sbuf *out) {
    struct str name = c->q->full_name;
    if (c->q->sender.n == 0) {
        sbuf_add_c(out, "MAILER-DAEMON");
        return;
    }
    if (name.n > 0) {
        words_add_name(out, name, str_of(c->p->full_name_encoding_charset), "\r\n\t");
        sbuf_add_c(out, " <");
    }
    addr_external(out, c->q->sender);
    if (name.n > 0)
        sbuf_add_ch(out, '>');
}

static void missing_put(const struct completing *c, struct header_scan *h, struct sbuf *out) {
    struct sbuf author = {0};
    author_put(c, &author);
    struct missing m = {c->qid, c->q->arrival_us, c->p->myhostname, sbuf_str(&author)};
    missing_add(h, &m, out);
    if (h->no_separator)
        sbuf_add_c(out, "\r\n");
    sbuf_free(&author);
}

static void received_put(const struct completing *c, uid_t uid, struct sbuf *out) {
    sbuf_printf(out, "Received: by %s (%s, from userid %lu)\r\n\tid %s; ", c->p->myhostname,
                c->p->mail_name, (unsigned long)uid, c->qid);
    clock_add_rfc5322(out, c->q->arrival_us);
    sbuf_add_c(out, "\r\n");
}

static uint32_t header_needs(const struct queuefile *q, const struct header_scan *h,
                             const struct params *p) {
    struct str classes = str_of(p->smtputf8_autodetect_classes);
    bool detects =
        p->smtputf8_enable && (list_has_word(classes, "all") || list_has_word(classes, "sendmail"));
    bool utf8 = h->is_utf8 || !str_is_ascii(q->sender);
    for (size_t i = 0; i < q->n_rcpts && !utf8; i++)
        utf8 = !str_is_ascii(q->rcpts[i].r.addr);
    return (h->is_utf8 ? ENV_UTF8_HEADER : 0U) | (detects && utf8 ? ENV_SMTPUTF8 : 0U) |
           (h->tls_optional > 0 && p->tls_required_enable ? ENV_TLS_OPTIONAL : 0U);
}

static void header_complete(struct completing *c, uid_t uid) {
    const struct params *p = c->p;
    struct edit_rules rules = {.drop = p->message_drop_headers,
                               .origin = p->append_at_myorigin ? p->myorigin : NULL,
                               .domain = p->append_dot_mydomain ? p->mydomain : NULL};
    struct header_edit edit = {0};
    struct header_scan h = {0};
    struct sbuf all = {0}, out = {0};
    received_put(c, uid, &all);
    header_skip_received(&h, all.n);
    header_edit(&edit, &rules, &c->q->content, true, &all);
    header_scan(&h, sbuf_str(&all), true);
    size_t end = h.ended ? h.end : all.n;
    sbuf_add_str(&out, str_make(all.p, end));
    missing_put(c, &h, &out);
    sbuf_add_str(&out, str_from(sbuf_str(&all), end));
    c->q->flags |= header_needs(c->q, &h, p);
    sbuf_free(&c->q->content);
    c->q->content = out;
    sbuf_free(&all);
    header_scan_free(&h);
}

void maildrop_complete(struct queuefile *q, const struct config *cfg, const char *qid, uid_t uid,
                       struct sbuf *texts) {
    struct completing c = {q, &cfg->p, qid};
    drop_addresses(&c, texts);
    header_complete(&c, uid);
}
