/*
 * util/mem.h - allocation that does not return NULL
 *
 * Small, bounded objects only.  What an outsider can make large (messages, recipients, lines) is
 * counted against a budget first and refused with 452 when that is spent; an allocation that
 * fails after that ends the process, which the supervisor restarts from the spool.
 */
#ifndef PH_UTIL_MEM_H
#define PH_UTIL_MEM_H

#include <stddef.h>

void *mem_alloc(size_t n) __attribute__((malloc, returns_nonnull, warn_unused_result));
/* Zeroed. */
void *mem_zalloc(size_t n) __attribute__((malloc, returns_nonnull, warn_unused_result));
void *mem_realloc(void *p, size_t n) __attribute__((returns_nonnull, warn_unused_result));
char *mem_strdup(const char *s) __attribute__((malloc, returns_nonnull, warn_unused_result));
/* Overwrites a secret before its memory is freed. */
void mem_wipe(void *p, size_t n);

#define MEM_NEW(type) ((type *)mem_zalloc(sizeof(type)))

#endif
