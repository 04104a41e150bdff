/*
 * util/threads.h - is there room for threads?
 *
 * For libraries that start threads of their own and do not say that they could not: libuv ends the
 * process then, and libunbound never answers.
 */
#ifndef PH_UTIL_THREADS_H
#define PH_UTIL_THREADS_H

#include <stdbool.h>

#define THREADS_FIT_MAX 8U

/* Could the process have n threads more, THREADS_FIT_MAX at most?  It had them for a moment. */
bool threads_fit(unsigned n);

#endif
