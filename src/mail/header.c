/*
 * mail/header.c - the header section of a message; see header.h
 */
#include "mail/header.h"

#include <string.h>

struct str header_field_name(struct str line) {
    size_t n = 0;
    while (n < line.n && line.p[n] > ' ' && line.p[n] < 0x7f && line.p[n] != ':')
        n++;
    size_t colon = n;
    while (colon < line.n && (line.p[colon] == ' ' || line.p[colon] == '\t'))
        colon++;
    return n > 0 && colon < line.n && line.p[colon] == ':' ? str_make(line.p, n) : STR_NONE;
}

bool header_is_mbox_line(struct str line) {
    while (line.n > 0 && line.p[0] == '>')
        line = str_from(line, 1);
    return line.n >= 5 && memcmp(line.p, "From ", 5) == 0;
}

/* A field "Resent-NAME". */
static void note_resent(struct header_scan *h, struct str name) {
    h->resent = true;
    h->has_resent_from = h->has_resent_from || str_ieq_c(name, "from");
    h->has_resent_date = h->has_resent_date || str_ieq_c(name, "date");
    h->has_resent_id = h->has_resent_id || str_ieq_c(name, "message-id");
}

/* A line of the field TLS-Required:, which says "no", or nothing that is known.  As in Postfix, a
 * blank behind the word makes it another one. */
static void note_tls_required(struct header_scan *h, struct str words) {
    while (words.n > 0 && (words.p[0] == ' ' || words.p[0] == '\t'))
        words = str_from(words, 1);
    if (words.n == 0)
        return;
    bool no = h->tls_field == TLS_FIELD_EMPTY && str_ieq_c(words, "no");
    if (h->tls_field == TLS_FIELD_NO)
        h->tls_optional--;
    if (no)
        h->tls_optional++;
    h->tls_field = no ? TLS_FIELD_NO : TLS_FIELD_OTHER;
}

static void note_field(struct header_scan *h, struct str name, struct str value) {
    if (str_ieq_c(name, "received"))
        h->received++;
    else if (str_ieq_c(name, "from"))
        h->has_from = true;
    else if (str_ieq_c(name, "date"))
        h->has_date = true;
    else if (str_ieq_c(name, "to") || str_ieq_c(name, "cc"))
        h->has_to = true;
    if (str_istarts(name, "resent-"))
        note_resent(h, str_from(name, 7));
    h->tls_field = str_ieq_c(name, "tls-required") ? TLS_FIELD_EMPTY : TLS_FIELD_NONE;
    if (h->tls_field == TLS_FIELD_EMPTY)
        note_tls_required(h, value);
    h->in_message_id = str_ieq_c(name, "message-id") && !h->has_message_id;
    if (h->in_message_id) {
        h->has_message_id = true;
        value = str_trim(value);
        if (value.n > HEADER_ID_MAX)
            value.n = HEADER_ID_MAX;
        sbuf_add_str(&h->message_id, value);
    }
}

/* The next line of a folded field. */
static void note_folded(struct header_scan *h, struct str line) {
    struct str more = str_trim(line);
    if (h->tls_field != TLS_FIELD_NONE)
        note_tls_required(h, line);
    if (!h->in_message_id || more.n == 0 || h->message_id.n + 1 + more.n > HEADER_ID_MAX)
        return;
    if (h->message_id.n > 0)
        sbuf_add_ch(&h->message_id, ' ');
    sbuf_add_str(&h->message_id, more);
}

static void scan_line(struct header_scan *h, struct str line, size_t at) {
    bool first = !h->begun;
    h->begun = true;
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    if (!first && line.n > 0 && (line.p[0] == ' ' || line.p[0] == '\t')) {
        note_folded(h, line);
        return;
    }
    size_t n = header_field_name(line).n;
    if (n == 0) {
        h->ended = true;
        h->no_separator = line.n > 0;
        h->end = at;
        return;
    }
    struct str rest = str_from(line, n);
    note_field(h, str_make(line.p, n), str_from(rest, (size_t)str_chr(rest, ':') + 1));
}

/* Goes over the next line, or what there is of it; false if it has to wait for the rest. */
static bool next_line(struct header_scan *h, struct str content, bool last) {
    struct str rest = str_from(content, h->at);
    ptrdiff_t nl = str_chr(rest, '\n');
    size_t n = nl < 0 ? rest.n : (size_t)nl;
    if (nl < 0 && !last && !h->mid_line && n < HEADER_LINE_MAX)
        return false;
    if (!h->mid_line)
        scan_line(h, str_make(rest.p, n < HEADER_LINE_MAX ? n : HEADER_LINE_MAX), h->at);
    for (size_t i = 0; i < n && !h->ended && !h->is_utf8; i++)
        h->is_utf8 = (unsigned char)rest.p[i] >= 0x80;
    h->mid_line = nl < 0;
    h->at += nl < 0 ? n : n + 1;
    return true;
}

void header_skip_received(struct header_scan *h, size_t n) {
    h->at = n;
    h->received = 1;
}

void header_scan(struct header_scan *h, struct str content, bool last) {
    while (!h->ended && h->at < content.n && next_line(h, content, last)) {
    }
    if (last && !h->ended) {
        h->ended = true;
        h->end = content.n;
    }
}

void header_drop(struct header_scan *h, size_t n) {
    h->at -= n;
}

void header_scan_free(struct header_scan *h) {
    sbuf_free(&h->message_id);
}
