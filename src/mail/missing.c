/*
 * mail/missing.c - see missing.h
 */
#include "mail/missing.h"

#include "mail/envelope.h"
#include "util/clock.h"

static void missing_add_id(struct header_scan *h, const struct missing *m, struct sbuf *out) {
    if (h->resent) {
        sbuf_add_c(out, "Resent-Message-Id: ");
        qid_message_id(out, m->qid, m->arrival_us, m->host);
    } else {
        qid_message_id(&h->message_id, m->qid, m->arrival_us, m->host);
        sbuf_printf(out, "Message-Id: %s", h->message_id.p);
    }
    sbuf_add_c(out, "\r\n");
}

void missing_add(struct header_scan *h, const struct missing *m, struct sbuf *out) {
    const char *again = h->resent ? "Resent-" : "";
    if (!(h->resent ? h->has_resent_id : h->has_message_id))
        missing_add_id(h, m, out);
    if (!(h->resent ? h->has_resent_date : h->has_date)) {
        sbuf_printf(out, "%sDate: ", again);
        clock_add_rfc5322(out, m->arrival_us);
        sbuf_add_c(out, "\r\n");
    }
    if (!(h->resent ? h->has_resent_from : h->has_from)) {
        sbuf_printf(out, "%sFrom: ", again);
        sbuf_add_str(out, m->author);
        sbuf_add_c(out, "\r\n");
    }
}
