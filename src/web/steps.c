/*
 * web/steps.c - the steps of an explanation or a test; see steps.h
 */
#include "web/steps.h"

#include <ctype.h>
#include <string.h>

#include "route/alias.h"
#include "util/str.h"
#include "web/http.h"

#define INSTEAD   "(account)"
#define AS_MARK   " as account " /* before the name, in the step of the relay record */
#define LOGIN_MIN 3U             /* a shorter name is found as a word alone */

/* The account's name, if the step says it; NULL. */
static const char *login_in(json_t *step) {
    const char *user = json_string_value(json_object_get(step, "user"));
    const char *as = strstr(json_member(step, "result"), AS_MARK);
    if (user != NULL)
        return user;
    return strcmp(json_member(step, "step"), "relay record") == 0 && as != NULL
               ? as + strlen(AS_MARK)
               : NULL;
}

static bool in_word(char c) {
    return isalnum((unsigned char)c) != 0;
}

/* Where login stands in text, from *at on, or NULL. */
static const char *login_at(const char *text, const char *at, const char *login) {
    size_t n = strlen(login);
    while ((at = strcasestr(at, login)) != NULL && n < LOGIN_MIN &&
           ((at > text && in_word(at[-1])) || in_word(at[n])))
        at++;
    return at;
}

/* Where text, from at on, first has an account that one of the steps up to i names, or NULL; *len:
 * of the longest one that begins there. */
static const char *login_next(const char *text, const char *at, json_t *steps, size_t i,
                              size_t *len) {
    const char *first = NULL;
    *len = 0;
    for (size_t k = 0; k <= i; k++) {
        const char *login = login_in(json_array_get(steps, k));
        size_t n = login == NULL ? 0 : strlen(login);
        const char *found = n == 0 ? NULL : login_at(text, at, login);
        if (found == NULL || (first != NULL && (found > first || (found == first && n <= *len))))
            continue;
        first = found;
        *len = n;
    }
    return first;
}

static json_t *text_without(const char *text, json_t *steps, size_t i) {
    struct sbuf b = {0};
    const char *rest = text, *at;
    size_t len;
    for (; (at = login_next(text, rest, steps, i, &len)) != NULL; rest = at + len) {
        sbuf_add(&b, rest, (size_t)(at - rest));
        sbuf_add_c(&b, INSTEAD);
    }
    sbuf_add_c(&b, rest);
    json_t *o = json_text(b.p == NULL ? "" : b.p);
    sbuf_free(&b);
    return o;
}

/* A copy in which no text has an account that steps up to i name. */
static json_t *copy_without(json_t *o, json_t *steps, size_t i) {
    const char *key;
    json_t *v, *copy;
    size_t k;
    if (json_is_string(o))
        return text_without(json_string_value(o), steps, i);
    if (json_is_array(o)) {
        copy = json_array();
        json_array_foreach(o, k, v) {
            json_array_append_new(copy, copy_without(v, steps, i));
        }
        return copy;
    }
    if (!json_is_object(o))
        return json_incref(o);
    copy = json_object();
    json_object_foreach(o, key, v) {
        json_object_set_new(copy, key, copy_without(v, steps, i));
    }
    return copy;
}

/* Does the step say what an alias stands for?  The steps behind it are about those addresses. */
static bool step_opens_alias(json_t *step) {
    return strcmp(json_member(step, "step"), ALIAS_STEP) == 0 &&
           strcmp(json_member(step, "result"), ALIAS_NONE) != 0;
}

/* Stands for all steps about an alias's addresses: anybody may send to an alias, and only those who
 * administer the server see whose addresses these are and where their mail goes. */
static json_t *step_of_alias(void) {
    return json_pack("{s:s, s:s}", "step", "alias", "result",
                     "the recipient is an alias of this server: what it stands for, and what "
                     "becomes of mail to that, is shown to global administrators alone");
}

json_t *steps_shown(json_t *steps, size_t i, bool global) {
    if (global)
        return json_copy(json_array_get(steps, i));
    for (size_t k = 0; k < i; k++)
        if (step_opens_alias(json_array_get(steps, k)))
            return NULL;
    if (step_opens_alias(json_array_get(steps, i)))
        return step_of_alias();
    json_t *copy = copy_without(json_array_get(steps, i), steps, i);
    json_object_del(copy, "asked");
    json_object_del(copy, "set_at");
    json_object_del(copy, "user");
    return copy;
}

json_t *steps_all_shown(json_t *steps, bool global) {
    json_t *list = json_array(), *step;
    for (size_t i = 0; i < json_array_size(steps); i++)
        if ((step = steps_shown(steps, i, global)) != NULL)
            json_array_append_new(list, step);
    return list;
}
