/*
 * smtp/content.h - message content on the wire: DATA and BDAT in, dot-stuffing out
 *
 * Whatever comes in, what is kept has CR LF line ends only: a bare LF ends a line of content, CRs
 * before a line's end go, as with Postfix, and any other CR becomes a blank.  The end of DATA is CR
 * LF . CR LF exactly, so what one server takes for the end can never be content for the next (SMTP
 * smuggling, CVE-2023-51764), unless bare_ends says that a bare LF will do.  No state but the
 * struct; one thread each.
 */
#ifndef PH_SMTP_CONTENT_H
#define PH_SMTP_CONTENT_H

#include "util/str.h"

/* Bytes of a line: a longer one counts as long (RFC 5321 section 4.5.3.1.6). */
#define CONTENT_LONG_LINE 998U
/* CRs in a row that may be a line's end, and are only counted till that is known.  Those before
 * them are blanks: bytes that count as no content have a bound. */
#define CONTENT_CRS_MAX 2048U

struct content_in {
    bool bare_ends; /* set before the first byte: LF . LF ends DATA, too */
    bool has_bare;  /* a line ended with a bare LF */
    bool mid_line;  /* the current line has begun */
    bool prev_bare; /* the previous line ended with a bare LF */
    size_t crs;     /* so many CRs came that are the line's end, or blanks if text follows */
    bool has_8bit;
    bool has_dots;   /* a line begins with '.' */
    bool has_long;   /* a line is longer than CONTENT_LONG_LINE */
    size_t line_len; /* of the current line */
};

/* Looks at content that has CR LF line ends already, in pieces: has_8bit and has_long of in say
 * what is in it. */
void content_look(struct content_in *in, struct str content);
/* Decodes DATA; normalised content is appended to out.  Returns true at the end; *used says how
 * much of the input was consumed. */
bool content_data(struct content_in *in, struct str data, struct sbuf *out, size_t *used);
/* Decodes a piece of a BDAT chunk; all of it is consumed. */
void content_bdat(struct content_in *in, struct str data, struct sbuf *out);
/* After the last chunk: completes an unfinished line. */
void content_bdat_end(struct content_in *in, struct sbuf *out);

struct content_out {
    bool mid_line;
    size_t line_len;
};

/* Appends content as DATA wants it: dots stuffed, lines above max (0: none) broken with
 * CR LF SPACE.  Content must have CR LF line ends. */
void content_stuff(struct content_out *o, struct str content, size_t max, struct sbuf *out);
/* The same without dot-stuffing: for BDAT. */
void content_fold(struct content_out *o, struct str content, size_t max, struct sbuf *out);

#endif
