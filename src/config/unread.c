/*
 * config/unread.c - unread.def as tables; see unread.h
 */
#include "config/unread.h"

#include <stdlib.h>
#include <string.h>

#define UNREAD_REASON(key, text) static const char reason_##key[] = text;
#define REFUSED(where, name, idle, text)
#define REFUSED_SUFFIX(where, suffix, idle, text)
#define HARMLESS(name, reason)
#define HARMLESS_PREFIX(prefix, reason)
#define HARMLESS_SUFFIX(suffix, reason)
#define REFUSED_WORD(kind, name, text)
#define HARMLESS_WORD(kind, name, reason)
#include "config/unread.def"
#undef UNREAD_REASON
#define UNREAD_REASON(key, text)

#undef REFUSED
#undef HARMLESS
#define REFUSED(where, name, idle, text) {#name, sizeof #name - 1, UNREAD_##where, idle, text},
#define HARMLESS(name, reason)           {#name, sizeof #name - 1, UNREAD_NOWHERE, NULL, reason_##reason},
static const struct unread by_name[] = {
#include "config/unread.def"
};
#undef REFUSED
#undef HARMLESS
#define REFUSED(where, name, idle, text)
#define HARMLESS(name, reason)

#undef REFUSED_SUFFIX
#undef HARMLESS_SUFFIX
#define REFUSED_SUFFIX(where, suffix, idle, text)                                                  \
    {suffix, sizeof suffix - 1, UNREAD_##where, idle, text},
#define HARMLESS_SUFFIX(suffix, reason)                                                            \
    {suffix, sizeof suffix - 1, UNREAD_NOWHERE, NULL, reason_##reason},
static const struct unread by_suffix[] = {
#include "config/unread.def"
};
#undef REFUSED_SUFFIX
#undef HARMLESS_SUFFIX
#define REFUSED_SUFFIX(where, suffix, idle, text)
#define HARMLESS_SUFFIX(suffix, reason)

#undef HARMLESS_PREFIX
#define HARMLESS_PREFIX(prefix, reason)                                                            \
    {prefix, sizeof prefix - 1, UNREAD_NOWHERE, NULL, reason_##reason},
static const struct unread by_prefix[] = {
#include "config/unread.def"
};
#undef HARMLESS_PREFIX
#define HARMLESS_PREFIX(prefix, reason)

#define ARGUMENT_CHECK true
#define ARGUMENT_SKIP  false
#undef REFUSED_WORD
#undef HARMLESS_WORD
#define REFUSED_WORD(kind, name, text)    {#name, ARGUMENT_##kind, true, text},
#define HARMLESS_WORD(kind, name, reason) {#name, ARGUMENT_##kind, false, reason_##reason},
static const struct unread_word words[] = {
#include "config/unread.def"
};

#define ROWS(table) (sizeof(table) / sizeof(table)[0])

const struct unread *unread_find(const char *name) {
    size_t n = strlen(name);
    for (size_t i = 0; i < ROWS(by_name); i++)
        if (by_name[i].name_n == n && memcmp(by_name[i].name, name, n) == 0)
            return &by_name[i];
    for (size_t i = 0; i < ROWS(by_suffix); i++) {
        size_t end = by_suffix[i].name_n;
        if (n > end && memcmp(name + n - end, by_suffix[i].name, end) == 0)
            return &by_suffix[i];
    }
    for (size_t i = 0; i < ROWS(by_prefix); i++)
        if (strncmp(name, by_prefix[i].name, by_prefix[i].name_n) == 0)
            return &by_prefix[i];
    return NULL;
}

static void unread_each_of(const struct unread *rows, size_t n, const char *const kinds[2],
                           void (*fn)(void *arg, const struct unread_row *row), void *arg) {
    for (size_t i = 0; i < n; i++)
        fn(arg, &(struct unread_row){kinds[rows[i].where == UNREAD_NOWHERE], rows[i].name,
                                     rows[i].idle == NULL ? "" : rows[i].idle, rows[i].text});
}

void unread_each(void (*fn)(void *arg, const struct unread_row *row), void *arg) {
    static const char *const kinds[][2] = {{"refused", "harmless"},
                                           {"refused suffix", "harmless suffix"},
                                           {"refused prefix", "harmless prefix"}};
    unread_each_of(by_name, ROWS(by_name), kinds[0], fn, arg);
    unread_each_of(by_suffix, ROWS(by_suffix), kinds[1], fn, arg);
    unread_each_of(by_prefix, ROWS(by_prefix), kinds[2], fn, arg);
    for (size_t i = 0; i < ROWS(words); i++)
        fn(arg, &(struct unread_row){words[i].refused ? "refused word" : "harmless word",
                                     words[i].name, "", words[i].text});
}

bool unread_is_refused(struct str name) {
    char *text = str_dup(name);
    const struct unread *u = unread_find(text);
    const struct unread_word *w = unread_word_find(name);
    free(text);
    return (u != NULL && u->where != UNREAD_NOWHERE) || (w != NULL && w->refused);
}

const struct unread_word *unread_word_find(struct str word) {
    for (size_t i = 0; i < ROWS(words); i++)
        if (str_ieq_c(word, words[i].name))
            return &words[i];
    return NULL;
}
