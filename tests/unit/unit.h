/* What every unit test includes. */
#ifndef PH_TESTS_UNIT_H
#define PH_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/str.h"

/* A directory of the test's own, made before and removed after it. */
static char dir[64];

__attribute__((unused)) static int dir_make(void **state) {
    (void)state;
    strcpy(dir, "/tmp/posthouse-unit-XXXXXX");
    return mkdtemp(dir) == NULL;
}

__attribute__((unused)) static int dir_remove(void **state) {
    char cmd[100];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    return system(cmd);
}

#define assert_str(s, want)                                                                        \
    do {                                                                                           \
        struct str s_ = (s);                                                                       \
        char *got_ = str_dup(s_);                                                                  \
        assert_string_equal(got_, want);                                                           \
        free(got_);                                                                                \
    } while (0)

#endif
