/*
 * tests/wire/content.h - content of messages, as clients send it over the wire
 */
#ifndef PH_TESTS_WIRE_CONTENT_H
#define PH_TESTS_WIRE_CONTENT_H

#include "bytes.h"

enum content_head {
    HEAD_USUAL,
    HEAD_BARE,   /* Subject only: From, Date and Message-Id are missing */
    HEAD_NONE,   /* text at once, without an empty line */
    HEAD_EMPTY,  /* an empty line at once */
    HEAD_FOLDED, /* begins with a blank */
    HEAD_LARGE,  /* about `size` bytes of header fields */
    HEAD_HOPS,   /* many Received fields */
    HEAD_ONLY,   /* no empty line and no text */
    HEAD_HIDDEN, /* with fields that must not leave, in any case, folded */
    HEAD_COUNT
};

enum content_text {
    TEXT_LINES,
    TEXT_DOTS,
    TEXT_LONG, /* lines around the limits */
    TEXT_HUGE, /* one line of all of it */
    TEXT_8BIT,
    TEXT_CONTROLS, /* NUL and others */
    TEXT_ENDS,     /* CR and LF alone, CR CR LF */
    TEXT_BLANKS,   /* ends in empty lines */
    TEXT_COMMANDS, /* lines that are SMTP commands */
    TEXT_COUNT
};

/* About size bytes of content (without its end) in what a client sends: for DATA (data) dots are
 * stuffed and the end is added; for BDAT they are not. */
void content_make(struct dice *d, enum content_head head, enum content_text text, size_t size,
                  bool data, struct bytes *out);
/* Sizes around every threshold of the product. */
size_t content_size(struct dice *d);
unsigned content_vectors(void);
/* A message with something that other servers take for its end, and a message of a forger behind
 * it (for "forged@…", without numbers); ended in order. */
void content_smuggle(unsigned vector, bool data, struct bytes *out);

#endif
