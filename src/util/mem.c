/*
 * util/mem.c - allocation that does not return NULL; see mem.h
 *
 * Any thread.  Fails by ending the process with one line on standard error.
 */
#include "util/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p, size_t n) {
    if (p == NULL) {
        fprintf(stderr, "fatal: out of memory allocating %zu bytes\n", n);
        abort();
    }
    return p;
}

void *mem_alloc(size_t n) {
    return checked(malloc(n == 0 ? 1 : n), n);
}

void *mem_zalloc(size_t n) {
    return checked(calloc(1, n == 0 ? 1 : n), n);
}

void *mem_realloc(void *p, size_t n) {
    return checked(realloc(p, n == 0 ? 1 : n), n);
}

char *mem_strdup(const char *s) {
    return checked(strdup(s), strlen(s));
}

void mem_wipe(void *p, size_t n) {
    explicit_bzero(p, n);
}
