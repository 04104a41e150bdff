/*
 * tests/wire/bytes.h - text and chance for the peers of the wire simulator
 *
 * Shares nothing with src/: what the product does wrong with text must not be wrong here in the
 * same way.  One thread; running out of memory ends the program.
 */
#ifndef PH_TESTS_WIRE_BYTES_H
#define PH_TESTS_WIRE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing piece of memory, zero-terminated behind n; {0} is empty. */
struct bytes {
    char *p;
    size_t n, cap;
};

void bytes_add(struct bytes *b, const void *p, size_t n);
void bytes_text(struct bytes *b, const char *text);
void bytes_char(struct bytes *b, char c);
void bytes_fill(struct bytes *b, char c, size_t n);
void bytes_printf(struct bytes *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Takes n bytes away from the front. */
void bytes_drop(struct bytes *b, size_t n);
void bytes_clear(struct bytes *b);
void bytes_free(struct bytes *b);
/* The text, never NULL; b keeps it. */
const char *bytes_str(const struct bytes *b);
char *bytes_copy(const char *p, size_t n);
bool bytes_equal(const struct bytes *a, const struct bytes *b);
/* Where needle begins in p, or NULL. */
const char *bytes_find(const char *p, size_t n, const char *needle);

void base64_put(struct bytes *out, const void *p, size_t n);
/* False if the text is not base64; blanks at the ends are no part of it. */
bool base64_get(struct bytes *out, const char *p, size_t n);
/* RFC 3461 section 4. */
void xtext_put(struct bytes *out, const void *p, size_t n);
bool xtext_get(struct bytes *out, const char *p, size_t n);

/* A sequence of numbers that follows from its seed alone. */
struct dice {
    uint64_t state;
};

struct dice dice_new(uint64_t seed, uint64_t which);
uint64_t dice_next(struct dice *d);
/* 0 to below - 1; 0 if below is 0. */
unsigned dice_roll(struct dice *d, unsigned below);
/* True percent times in a hundred. */
bool dice_says(struct dice *d, unsigned percent);

#endif
