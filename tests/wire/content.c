/*
 * tests/wire/content.c - content of messages; see content.h
 */
#include "content.h"

#include <stdlib.h>
#include <string.h>

/* One line as it is meant; on the wire a dot at its beginning is doubled (data). */
static void put_line(struct bytes *out, bool data, const char *p, size_t n) {
    if (data && n > 0 && p[0] == '.')
        bytes_char(out, '.');
    bytes_add(out, p, n);
    bytes_text(out, "\r\n");
}

static void put_text(struct bytes *out, bool data, const char *text) {
    put_line(out, data, text, strlen(text));
}

/* A line of n letters. */
static void put_letters(struct dice *d, struct bytes *out, size_t n) {
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
    unsigned from = dice_roll(d, 26);
    for (size_t take; n > 0; n -= take) {
        take = n < 52 ? n : 52; /* a whole number of alphabets */
        bytes_add(out, letters + from, take);
    }
    bytes_text(out, "\r\n");
}

static void put_large(struct dice *d, struct bytes *out, size_t size) {
    for (unsigned i = 0; out->n < size; i++) {
        bytes_printf(out, "X-Field-%u: ", i);
        put_letters(d, out, 1 + dice_roll(d, 900));
        if (dice_says(d, 20)) {
            bytes_text(out, "\t");
            put_letters(d, out, 1 + dice_roll(d, 70));
        }
    }
    bytes_text(out, "\r\n");
}

static void put_head(struct dice *d, enum content_head head, size_t size, struct bytes *out) {
    switch (head) {
    case HEAD_USUAL:
        bytes_text(out, "From: Ann <ann@alpha.example>\r\nTo: joe@far.example\r\nSubject: hello\r\n"
                        "Date: Thu, 26 Nov 2026 10:00:00 +0000\r\n"
                        "Message-Id: <1@client.wire.example>\r\n\r\n");
        break;
    case HEAD_BARE:
        bytes_text(out, "Subject: little\r\n\r\n");
        break;
    case HEAD_EMPTY:
        bytes_text(out, "\r\n");
        break;
    case HEAD_FOLDED:
        bytes_text(out, " folded from nothing\r\nSubject: x\r\n y\r\n\tz\r\n\r\n");
        break;
    case HEAD_LARGE:
        put_large(d, out, size);
        break;
    case HEAD_HOPS:
        for (unsigned i = 0, n = 40 + dice_roll(d, 20); i < n; i++)
            bytes_printf(out, "Received: from h%u by h%u; Thu, 26 Nov 2026 10:00:00 +0000\r\n", i,
                         i + 1);
        bytes_text(out, "\r\n");
        break;
    case HEAD_HIDDEN:
        bytes_text(out, "Return-Path: <old@alpha.example>\r\nSubject: seen\r\n"
                        "BCC: one@hidden.example,\r\n\ttwo@hidden.example\r\nX-Bcc: seen\r\n"
                        "resent-bcc:\r\nTo: joe@far.example\r\nContent-Length : 7\r\n\r\n"
                        "Bcc: seen\r\n");
        break;
    case HEAD_ONLY:
        bytes_text(out, "Subject: nothing else\r\nX-Last: yes\r\n");
        break;
    default:
        break;
    }
}

static void put_dots(struct dice *d, struct bytes *out, bool data) {
    static const char *const lines[] = {".", "..", "...", ".x", " .", "x.", ". ", "..x", ".\tx"};
    put_text(out, data, lines[dice_roll(d, sizeof lines / sizeof lines[0])]);
}

static void put_long(struct dice *d, struct bytes *out) {
    static const size_t sizes[] = {996,  997,  998,  999,  1000, 1001, 1995, 1996,
                                   1998, 2046, 2047, 2048, 2049, 2050, 5000, 70000};
    size_t n = sizes[dice_roll(d, sizeof sizes / sizeof sizes[0])];
    if (dice_says(d, 70)) {
        put_letters(d, out, n);
        return;
    }
    for (size_t i = 0; i < n; i += 2)
        bytes_text(out, "\xc3\xa4");
    bytes_text(out, "\r\n");
}

static void put_controls(struct dice *d, struct bytes *out) {
    char line[40];
    size_t n = 1 + dice_roll(d, sizeof line - 1);
    for (size_t i = 0; i < n; i++) {
        line[i] = (char)dice_roll(d, 256);
        if (line[i] == '\r' || line[i] == '\n' || (i == 0 && line[i] == '.'))
            line[i] = '\0';
    }
    bytes_add(out, line, n);
    bytes_text(out, "\r\n");
}

static void put_ends(struct dice *d, struct bytes *out) {
    static const char *const pieces[] = {"a\rb\r\n",   "a\nb\r\n", "a\r\r\n",
                                         "a\n\n\r\n",  "\rx\r\n",  "x\r\rb\r\n",
                                         "a\n..b\r\n", "\n\n\n",   "a\r\r\r\n"};
    bytes_text(out, pieces[dice_roll(d, sizeof pieces / sizeof pieces[0])]);
}

static void put_commands(struct dice *d, struct bytes *out, bool data) {
    static const char *const lines[] = {"RSET",
                                        "QUIT",
                                        "DATA",
                                        "BDAT 5 LAST",
                                        "NOOP",
                                        "MAIL FROM:<forged@evil.example>",
                                        "RCPT TO:<forged@far.example>",
                                        "EHLO x",
                                        "STARTTLS"};
    put_text(out, data, lines[dice_roll(d, sizeof lines / sizeof lines[0])]);
}

static void put_piece(struct dice *d, enum content_text text, size_t left, bool data,
                      struct bytes *out) {
    switch (text) {
    case TEXT_DOTS:
        put_dots(d, out, data);
        break;
    case TEXT_LONG:
        put_long(d, out);
        break;
    case TEXT_HUGE:
        put_letters(d, out, left > 2 ? left - 2 : 0);
        break;
    case TEXT_8BIT:
        put_text(out, data,
                 "Gr\xc3\xbc\xc3\x9f"
                 "e \xff\xfe aus \xe9 der Ferne");
        break;
    case TEXT_CONTROLS:
        put_controls(d, out);
        break;
    case TEXT_ENDS:
        put_ends(d, out);
        break;
    case TEXT_COMMANDS:
        put_commands(d, out, data);
        break;
    default:
        put_letters(d, out, left > 72 ? 20 + dice_roll(d, 50) : left > 2 ? left - 2 : 0);
        break;
    }
}

void content_make(struct dice *d, enum content_head head, enum content_text text, size_t size,
                  bool data, struct bytes *out) {
    put_head(d, head, size, out);
    while (out->n < size && head != HEAD_ONLY)
        put_piece(d, text, size - out->n, data, out);
    if (text == TEXT_BLANKS)
        bytes_text(out, "\r\n\r\n\r\n");
    if (!data) {
        if (out->n > 2 && dice_says(d, 20)) /* the last line without its end, or half of it */
            out->n -= 1 + dice_roll(d, 2);
        return;
    }
    if (out->n > 0 && (out->n < 2 || memcmp(out->p + out->n - 2, "\r\n", 2) != 0))
        bytes_text(out, "\r\n");
    bytes_text(out, ".\r\n");
}

size_t content_size(struct dice *d) {
    static const size_t at[] = {0,    1,    2,     3,     78,     512,    998,    1024,
                                2048, 4096, 16384, 65536, 131072, 262144, 327680, 400000};
    unsigned n = sizeof at / sizeof at[0];
    size_t base = at[dice_says(d, 60) ? dice_roll(d, 9) : dice_roll(d, n)];
    size_t off = base > 512 ? 300 : 2;
    size_t size = base + dice_roll(d, (unsigned)(2 * off));
    return size > off ? size - off : 0;
}

static const char *const vectors[] = {"\n.\n",       "\n.\r\n", "\r.\r",       "\r\n.\n",
                                      "\r\n.\r",     "\r.\r\n", "\n\n.\r\n",   "\r\r\n.\r\r\n",
                                      "\r\n.\r\r\n", "\n.\r",   "\r\n\0.\r\n", "\r\n.\n\r\n"};

unsigned content_vectors(void) {
    return sizeof vectors / sizeof vectors[0];
}

void content_smuggle(unsigned vector, bool data, struct bytes *out) {
    bytes_text(out, "Subject: innocent\r\n\r\nfirst");
    if (vector == 10)
        bytes_add(out, "\r\n\0.\r\n", 6);
    else
        bytes_text(out, vectors[vector % content_vectors()]);
    bytes_text(out, "MAIL FROM:<forged@evil.example>\r\nRCPT TO:<forged@far.example>\r\n"
                    "DATA\r\nSubject: forged\r\n\r\nforged\r\n");
    if (data)
        bytes_text(out, ".\r\n");
}
