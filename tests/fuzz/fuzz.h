/*
 * What the fuzz targets share: input taken apart piece by piece, and log lines thrown away.
 */
#ifndef PH_TESTS_FUZZ_H
#define PH_TESTS_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"
#include "util/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* A property of the code under test does not hold. */
#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond))                                                                               \
            abort();                                                                               \
    } while (0)

static inline void fuzz_quiet(void) {
    static int done;
    if (!done)
        log_open(&(struct log_conf){.name = "fuzz", .file = "/dev/null"});
    done = 1;
}

static inline uint8_t fuzz_byte(struct str *in) {
    if (in->n == 0)
        return 0;
    uint8_t b = (uint8_t)in->p[0];
    *in = str_from(*in, 1);
    return b;
}

/* Up to max bytes. */
static inline struct str fuzz_piece(struct str *in, size_t max) {
    size_t n = in->n < max ? in->n : max;
    struct str s = str_make(in->p, n);
    *in = str_from(*in, n);
    return s;
}

/* Up to the next line feed, which is dropped. */
static inline struct str fuzz_line(struct str *in) {
    const char *nl = in->n == 0 ? NULL : memchr(in->p, '\n', in->n);
    size_t n = nl == NULL ? in->n : (size_t)(nl - in->p);
    struct str s = str_make(in->p, n);
    *in = str_from(*in, nl == NULL ? n : n + 1);
    return s;
}

#endif
