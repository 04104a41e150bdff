/*
 * tests/wire/ledger_text.c - text as the ledger reads it: addresses, content, tokens
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ledger_inside.h"

char *address_plain(const char *text, const char *origin) {
    struct bytes out = {0};
    if (text[0] == '@' && strchr(text, ':') != NULL)
        text = strchr(text, ':') + 1;
    bool quoted = false;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"') {
            quoted = !quoted;
            continue;
        }
        if (*p == '\\' && quoted && p[1] != '\0')
            p++;
        bytes_char(&out, *p);
    }
    if (out.n > 0 && strchr(out.p, '@') == NULL)
        bytes_printf(&out, "@%s", origin);
    if (out.n > 0 && out.p[out.n - 1] == '.' && strchr(out.p, '@') != NULL)
        out.p[--out.n] = '\0';
    return out.p == NULL ? bytes_copy("", 0) : out.p;
}

bool address_numbers(const char *addr, unsigned *mail, unsigned *rcpt) {
    const char *end = strrchr(addr, '@');
    if (strncmp(addr, "owner-", 6) == 0) /* of a list: reports come there */
        return false;
    for (const char *p = addr; *p != '\0' && (end == NULL || p < end); p++) {
        int used = 0;
        if (*p == 'm' && isdigit((unsigned char)p[1]) &&
            sscanf(p, "m%ur%u%n", mail, rcpt, &used) == 2 && used > 0)
            return true;
    }
    return false;
}

/* One line of content without its end; CRs before it go, another CR is a blank. */
static void put_line(struct bytes *out, const char *p, size_t n) {
    size_t at = out->n;
    while (n > 0 && p[n - 1] == '\r')
        n--;
    bytes_add(out, p, n);
    for (char *cr = out->p + at; (cr = memchr(cr, '\r', out->n - (size_t)(cr - out->p))) != NULL;)
        *cr = ' ';
    bytes_add(out, "\r\n", 2);
}

void content_normal(const char *p, size_t n, bool data, struct bytes *out) {
    bool whole = true; /* the line before ended with CR LF */
    while (n > 0) {
        const char *lf = memchr(p, '\n', n);
        size_t used = lf == NULL ? n : (size_t)(lf - p) + 1, len = lf == NULL ? n : used - 1;
        bool crlf = lf != NULL && len > 0 && p[len - 1] == '\r';
        const char *line = p;
        if (crlf)
            len--;
        if (data && len == 1 && line[0] == '.' && crlf && whole)
            return;
        if (data && len > 1 && line[0] == '.') {
            line++;
            len--;
        }
        put_line(out, line, len);
        whole = crlf;
        p += used;
        n -= used;
    }
}

void word_at(const char *p, char word[32]) {
    size_t n = 0;
    while (n < 31 && isalnum((unsigned char)p[n]))
        n++;
    memcpy(word, p, n);
    word[n] = '\0';
}

size_t received_field(const char *p, size_t n, char qid[32]) {
    size_t end = 0;
    qid[0] = '\0';
    if (n < 10 || memcmp(p, "Received: ", 10) != 0)
        return 0;
    do {
        const char *lf = memchr(p + end, '\n', n - end);
        if (lf == NULL)
            return 0;
        end = (size_t)(lf - p) + 1;
    } while (end < n && (p[end] == ' ' || p[end] == '\t'));
    const char *id = bytes_find(p, end, " id ");
    const char *tab = bytes_find(p, end, "\tid ");
    if (id == NULL || (tab != NULL && tab < id))
        id = tab;
    if (id != NULL)
        word_at(id + 4, qid);
    return end;
}

/* "from HELO (NAME [ADDRESS])": a name that holds none of what begins a comment or an address; a
 * host's name, or unknown. */
static bool is_from_line(const char *p, size_t n) {
    static const char before[] = "Received: from ";
    size_t i = sizeof before - 1;
    if (n < i || memcmp(p, before, i) != 0)
        return false;
    while (i < n && (unsigned char)p[i] > ' ' && p[i] != 0x7f && strchr("<>()\\\";@", p[i]) == NULL)
        i++;
    if (i == sizeof before - 1 || i + 2 > n || memcmp(p + i, " (", 2) != 0)
        return false;
    for (i += 2; i < n && (isalnum((unsigned char)p[i]) || strchr("-._", p[i]) != NULL); i++) {
    }
    if (i + 2 > n || memcmp(p + i, " [", 2) != 0)
        return false;
    for (i += 2; i < n && (isxdigit((unsigned char)p[i]) || strchr(".:IPv", p[i]) != NULL); i++) {
    }
    return i + 2 == n && memcmp(p + i, "])", 2) == 0;
}

static bool begins(const char *p, size_t n, const char *with) {
    return n >= strlen(with) && memcmp(p, with, strlen(with)) == 0;
}

/* One of the lines that follow it. */
static bool is_later_line(const char *p, size_t n) {
    static const char *const known[] = {"\t(using TLSv1.",
                                        "\t(No client certificate requested)",
                                        "\t(Authenticated sender: ",
                                        "\tby posthouse.test (Posthouse) with ",
                                        "\tfor <",
                                        "\tid "};
    static const char *const days[] = {"\tMon, ", "\tTue, ", "\tWed, ", "\tThu, ",
                                       "\tFri, ", "\tSat, ", "\tSun, "};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (begins(p, n, known[i]))
            return true;
    for (size_t i = 0; i < 7; i++)
        if (begins(p, n, days[i]))
            return true;
    return false;
}

char *received_forged(const char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        const char *lf = memchr(p + i, '\n', n - i);
        size_t len = lf == NULL ? n - i : (size_t)(lf - p) - i;
        size_t text = len > 0 && p[i + len - 1] == '\r' ? len - 1 : len;
        if (i == 0 ? !is_from_line(p, text) : !is_later_line(p + i, text))
            return bytes_copy(p + i, text);
        i += len + 1;
    }
    return NULL;
}

/* Length of the field name of a header line; 0: it is none. */
static size_t name_length(const char *p, size_t n) {
    size_t i = 0;
    while (i < n && p[i] > ' ' && p[i] < 0x7f && p[i] != ':')
        i++;
    size_t colon = i;
    while (colon < n && (p[colon] == ' ' || p[colon] == '\t'))
        colon++;
    return colon < n && p[colon] == ':' ? i : 0;
}

static const char *const added_names[] = {"message-id", "date", "from"};
/* Fields that must not leave: message_drop_headers as it is if main.cf says nothing. */
static const char *const hidden_names[] = {"bcc", "content-length", "resent-bcc", "return-path"};

struct head {
    size_t end;   /* where the section ends */
    bool follows; /* text follows without an empty line */
    bool has[3];  /* of added_names */
};

static struct head head_of(const struct bytes *b) {
    struct head h = {0};
    while (h.end < b->n) {
        const char *p = b->p + h.end, *lf = memchr(p, '\n', b->n - h.end);
        size_t n = lf == NULL ? b->n - h.end : (size_t)(lf - p) + 1;
        bool folded = p[0] == ' ' || p[0] == '\t';
        if (h.end == 0 || !folded) { /* the first line continues nothing */
            size_t name = folded ? 0 : name_length(p, n);
            h.follows = name == 0 && p[0] != '\r';
            if (name == 0)
                return h;
            for (int i = 0; i < 3; i++)
                if (strlen(added_names[i]) == name && strncasecmp(p, added_names[i], name) == 0)
                    h.has[i] = true;
        }
        h.end += n;
    }
    return h;
}

static bool is_hidden(const char *p, size_t name) {
    for (size_t i = 0; i < sizeof hidden_names / sizeof hidden_names[0]; i++)
        if (strlen(hidden_names[i]) == name && strncasecmp(p, hidden_names[i], name) == 0)
            return true;
    return false;
}

/* What is to come of b, whose header section ends at end: no hidden field. */
static struct bytes without_hidden(const struct bytes *b, size_t end) {
    struct bytes out = {0};
    bool hidden = false;
    for (size_t i = 0, n; i < end; i += n) {
        const char *p = b->p + i, *lf = memchr(p, '\n', end - i);
        n = lf == NULL ? end - i : (size_t)(lf - p) + 1;
        if (p[0] != ' ' && p[0] != '\t')
            hidden = is_hidden(p, name_length(p, n));
        if (!hidden)
            bytes_add(&out, p, n);
    }
    bytes_add(&out, bytes_str(b) + end, b->n - end);
    return out;
}

/* Where a walk over both texts stands. */
struct walk {
    const struct bytes *sent;
    const char *came;
    size_t n, i, j; /* i in came, j in sent */
    size_t line;    /* bytes of came's line so far */
    size_t limit;
};

/* Fields that the product has added, and the empty line that was missing. */
static bool skip_added(struct walk *w, const struct head *h) {
    bool more = true;
    while (more) {
        more = false;
        for (int k = 0; k < 3; k++) {
            size_t name = strlen(added_names[k]);
            if (h->has[k] || w->n - w->i <= name ||
                strncasecmp(w->came + w->i, added_names[k], name) != 0 ||
                w->came[w->i + name] != ':')
                continue;
            const char *lf = memchr(w->came + w->i, '\n', w->n - w->i);
            if (lf == NULL)
                return false;
            w->i = (size_t)(lf - w->came) + 1;
            more = true;
        }
    }
    w->line = 0;
    if (!h->follows)
        return true;
    if (w->n - w->i < 2 || memcmp(w->came + w->i, "\r\n", 2) != 0)
        return false;
    w->i += 2;
    return true;
}

static bool is_break(const struct walk *w) {
    return w->limit > 0 && w->line + 4 >= w->limit && w->n - w->i >= 3 &&
           memcmp(w->came + w->i, "\r\n ", 3) == 0;
}

/* One byte that is the same, or one break; false: they differ. */
static bool walk_on(struct walk *w) {
    if (w->i < w->n && w->j < w->sent->n && w->came[w->i] == w->sent->p[w->j]) {
        w->line = w->came[w->i] == '\n' ? 0 : w->line + 1;
        w->i++;
        w->j++;
        return true;
    }
    if (!is_break(w))
        return false;
    w->i += 3;
    w->line = 1;
    return true;
}

static void show(char *out, size_t out_n, const char *p, size_t n) {
    size_t at = 0;
    for (size_t i = 0; i < n && i < 40 && at + 5 < out_n; i++) {
        unsigned char c = (unsigned char)p[i];
        at += (size_t)snprintf(out + at, out_n - at, c >= ' ' && c < 0x7f ? "%c" : "\\x%02x", c);
    }
    out[at] = '\0';
}

/* content_differs, of what the client sent without hidden fields. */
static const char *visible_differs(const struct bytes *sent, const char *came, size_t n,
                                   size_t limit, char *where, size_t where_n) {
    struct head h = head_of(sent);
    struct walk w = {.sent = sent, .came = came, .n = n, .limit = limit};
    bool added = false;
    char a[200], b[200];
    while (w.i < w.n || w.j < sent->n || !added) {
        if (!added && w.j == h.end) {
            added = true;
            if (!skip_added(&w, &h)) {
                snprintf(where, where_n, "no empty line behind the header, at %zu", w.i);
                return where;
            }
            continue;
        }
        if (!walk_on(&w)) {
            show(a, sizeof a, came + w.i, w.n - w.i);
            show(b, sizeof b, bytes_str(sent) + w.j, sent->n - w.j);
            snprintf(where, where_n, "at %zu of %zu came \"%s\", but at %zu of %zu stands \"%s\"",
                     w.i, w.n, a, w.j, sent->n, b);
            return where;
        }
        if (w.limit > 0 && w.line > w.limit + 1) { /* the CR counts */
            snprintf(where, where_n, "a line longer than %zu bytes", w.limit);
            return where;
        }
    }
    return NULL;
}

const char *content_differs(const struct bytes *sent, const char *came, size_t n, size_t limit,
                            char *where, size_t where_n) {
    struct bytes visible = without_hidden(sent, head_of(sent).end);
    const char *why = visible_differs(&visible, came, n, limit, where, where_n);
    bytes_free(&visible);
    return why;
}

int control_in(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)p[i] < ' ' && p[i] != '\t') || p[i] == 0x7f)
            return (unsigned char)p[i];
    return -1;
}

unsigned token_in(const char *p, size_t n) {
    unsigned found = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        bool begins = i == 0 || !isalnum((unsigned char)p[i - 1]);
        if (!begins || p[i] != 'w' || !isdigit((unsigned char)p[i + 1]))
            continue;
        unsigned v = 0;
        size_t k = i + 1;
        while (k < n && isdigit((unsigned char)p[k]) && v < 1000000)
            v = v * 10 + (unsigned)(p[k++] - '0');
        if (k == n || !isalnum((unsigned char)p[k]))
            found = v;
    }
    return found;
}
