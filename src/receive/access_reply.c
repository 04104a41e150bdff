/*
 * receive/access_reply.c - what a restriction that refuses says, to the client and in the log
 *
 * The loop's thread.  A reply is put together in the run (access_run.h), which has its code and its
 * text.
 */
#include "receive/access_run.h"

#include "mail/address.h"
#include "util/log.h"

void access_code(struct access_run *a, int64_t code, const char *dsn) {
    a->code = (unsigned)code;
    sbuf_printf(&a->text, "%c%s", code < 500 ? '4' : '5', dsn + 1);
}

unsigned access_checked_code(int64_t code, struct sbuf *text) {
    if (code >= 400 && code < 600)
        return (unsigned)code;
    log_warn("smtpd", "response code configuration error: %lld %s", (long long)code, text->p);
    sbuf_reset(text);
    sbuf_add_c(text, "4.7.1 Service unavailable");
    return 450;
}

enum access_step access_reject(struct access_run *a, int64_t code, const char *dsn,
                               struct str address, const char *text) {
    access_code(a, code, dsn);
    sbuf_add_c(&a->text, " <");
    addr_external(&a->text, address);
    sbuf_printf(&a->text, ">: %s", text);
    return STEP_REJECT;
}

enum access_step access_reject_text(struct access_run *a, unsigned code, const char *text) {
    a->code = code;
    sbuf_add_c(&a->text, text);
    return STEP_REJECT;
}

/* "<client.example[192.0.2.1]>": what the list that is evaluated is about. */
static void add_list_name(const struct access_run *a, struct sbuf *out) {
    sbuf_add_c(out, "<");
    if (a->reader.list == LIST_DATA)
        sbuf_add_c(out, "DATA");
    else if (a->reader.list == LIST_END)
        sbuf_add_c(out, "END-OF-MESSAGE");
    else if (a->reader.list == LIST_CLIENT)
        client_text(a->f.client, out);
    else if (a->reader.list == LIST_HELO)
        sbuf_add_c(out, a->f.helo);
    else
        addr_external(out, a->reader.list == LIST_SENDER ? a->f.sender : a->f.rcpt);
    sbuf_add_c(out, ">");
}

void access_add_name(const struct access_run *a, struct sbuf *out) {
    if (a->inner != NULL)
        sbuf_add_str(out, sbuf_str(&a->inner->name));
    else
        add_list_name(a, out);
}

const char *access_kind(const struct access_run *a) {
    static const char *const kinds[LISTS] = {
        "Client host",       "Helo command", "Sender address", "Recipient address",
        "Recipient address", "Data command", "End-of-data"};
    return a->inner != NULL ? a->inner->kind : kinds[a->reader.list];
}

enum access_step access_unknown(struct access_run *a) {
    access_code(a, 451, "4.3.0");
    sbuf_add_ch(&a->text, ' ');
    access_add_name(a, &a->text);
    sbuf_add_c(&a->text, ": Temporary lookup failure");
    return STEP_FAIL;
}

enum access_step access_misconfigured(struct access_run *a) {
    access_reject_text(a, 451, "4.3.5 Server configuration error");
    return STEP_FAIL;
}

enum access_step access_no_fingerprint(struct access_run *a) {
    log_warn("smtpd", "smtpd_tls_fingerprint_digest: there is no \"%s\"",
             a->f.p->smtpd_tls_fingerprint_digest);
    return access_misconfigured(a);
}

enum access_step access_list_refuses(struct access_run *a, int64_t code, const char *dsn,
                                     const char *why) {
    access_code(a, code, dsn);
    sbuf_add_ch(&a->text, ' ');
    access_add_name(a, &a->text);
    sbuf_printf(&a->text, ": %s rejected: %s", access_kind(a), why);
    return STEP_REJECT;
}

static void access_add_address(struct sbuf *b, const char *name, struct str addr) {
    sbuf_printf(b, " %s=<", name);
    addr_external(b, addr);
    sbuf_add_ch(b, '>');
}

void access_add_facts(const struct access_facts *f, struct sbuf *b) {
    if (f->qid != NULL)
        access_add_address(b, "from", f->sender);
    if (f->qid != NULL && f->rcpt.n > 0)
        access_add_address(b, "to", f->rcpt);
    sbuf_printf(b, " proto=%s", f->esmtp ? "ESMTP" : "SMTP");
    if (f->helo != NULL)
        sbuf_printf(b, " helo=<%s>", f->helo);
    if (f->sasl_user != NULL)
        sbuf_printf(b, " sasl_method=%s sasl_username=%s", f->sasl_method, f->sasl_user);
    if (f->sasl_sender.n > 0)
        sbuf_printf(b, " sasl_sender=%.*s", STR_FMT(f->sasl_sender));
}

void access_add_head(const struct access_facts *f, const char *what, const char *stage,
                     struct sbuf *b) {
    bool queued = f->qid != NULL && f->qid[0] != '\0';
    sbuf_printf(b, "%s: %s: %s from ", queued ? f->qid : "NOQUEUE", what, stage);
    client_text(f->client, b);
    sbuf_add_c(b, ": ");
}

const char *access_stage_name(const struct access_run *a) {
    return a->reader.list == LIST_END    ? "END-OF-MESSAGE"
           : a->reader.list == LIST_DATA ? "DATA"
                                         : "RCPT";
}

void access_note(const struct access_run *a, const char *what, const char *text) {
    struct sbuf b = {0};
    access_add_head(&a->f, what, access_stage_name(a), &b);
    sbuf_printf(&b, "%s;", text);
    access_add_facts(&a->f, &b);
    log_info("smtpd", "%s", b.p);
    sbuf_free(&b);
}
