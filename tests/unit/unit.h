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

#define assert_str(s, want)                                                                        \
    do {                                                                                           \
        struct str s_ = (s);                                                                       \
        char *got_ = str_dup(s_);                                                                  \
        assert_string_equal(got_, want);                                                           \
        free(got_);                                                                                \
    } while (0)

#endif
