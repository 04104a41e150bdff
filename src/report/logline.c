/*
 * report/logline.c - lines of the mail log; see logline.h
 */
#include "report/logline.h"

#include "mail/address.h"
#include "util/clock.h"
#include "util/log.h"

/* Control characters become '?' here: the log sink, which does so for all texts, sees no more than
 * what is before a NUL. */
static void logline_add_addr(struct sbuf *b, struct str internal) {
    struct sbuf shown = {0};
    addr_external(&shown, internal);
    sbuf_add_ch(b, '<');
    sbuf_add_safe(b, sbuf_str(&shown));
    sbuf_add_ch(b, '>');
    sbuf_free(&shown);
}

void logline_delivery(const char *name, const char *service, const char *qid,
                      const struct rcpt *rcpt, const char *relay, unsigned conn_use,
                      const struct logline_times *t, const struct mailerr *e) {
    struct sbuf b = {0};
    int64_t conn = t->conn_us == 0            ? t->end_us
                   : t->conn_us < t->begin_us ? t->begin_us
                                              : t->conn_us;
    sbuf_printf(&b, "%s: to=", qid);
    logline_add_addr(&b, rcpt->addr);
    if (rcpt->orig.n > 0 && !str_ieq(rcpt->orig, rcpt->addr)) {
        sbuf_add_c(&b, ", orig_to=");
        logline_add_addr(&b, rcpt->orig);
    }
    sbuf_printf(&b, ", relay=%s, ", relay);
    if (conn_use > 1)
        sbuf_printf(&b, "conn_use=%u, ", conn_use);
    sbuf_add_c(&b, "delay=");
    clock_add_delay(&b, t->end_us - t->arrival_us);
    sbuf_add_c(&b, ", delays=");
    clock_add_delay(&b, t->active_us - t->arrival_us);
    sbuf_add_ch(&b, '/');
    clock_add_delay(&b, t->begin_us - t->active_us);
    sbuf_add_ch(&b, '/');
    clock_add_delay(&b, conn - t->begin_us);
    sbuf_add_ch(&b, '/');
    clock_add_delay(&b, t->end_us - conn);
    if (t->tls != NULL && t->tls[0] != '\0')
        sbuf_printf(&b, ", tls=%s", t->tls);
    sbuf_printf(&b, ", dsn=%s, status=%s (%s)", e->dsn, mail_status_name(e->status),
                e->text == NULL ? "" : e->text);
    log_as(name, service, "%s", b.p);
    sbuf_free(&b);
}

void logline_active(const struct envelope *e, uint32_t nrcpt) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s: from=", e->qid);
    logline_add_addr(&b, e->sender);
    log_info("qmgr", "%s, size=%llu, nrcpt=%u (queue active)", b.p, (unsigned long long)e->size,
             nrcpt);
    sbuf_free(&b);
}

void logline_removed(const char *qid) {
    log_info("qmgr", "%s: removed", qid);
}

void logline_expired(const struct envelope *e, bool forced) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s: from=", e->qid);
    logline_add_addr(&b, e->sender);
    log_info("qmgr", "%s, status=%sexpired, returned to sender", b.p, forced ? "force-" : "");
    sbuf_free(&b);
}
