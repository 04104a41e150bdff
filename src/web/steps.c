/*
 * web/steps.c - the steps of an explanation or a test; see steps.h
 */
#include "web/steps.h"

#include <ctype.h>
#include <string.h>

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

static const char *login_before(json_t *steps, size_t i) {
    const char *found = NULL;
    for (size_t k = 0; k <= i && found == NULL; k++)
        found = login_in(json_array_get(steps, k));
    return found != NULL && found[0] != '\0' ? found : NULL;
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

static json_t *text_without(const char *text, const char *login) {
    struct sbuf b = {0};
    const char *whole = text;
    for (const char *at; (at = login_at(whole, text, login)) != NULL; text = at + strlen(login)) {
        sbuf_add(&b, text, (size_t)(at - text));
        sbuf_add_c(&b, INSTEAD);
    }
    sbuf_add_c(&b, text);
    json_t *o = json_text(b.p);
    sbuf_free(&b);
    return o;
}

/* A copy in which no text has login. */
static json_t *copy_without(json_t *o, const char *login) {
    const char *key;
    json_t *v, *copy;
    size_t i;
    if (json_is_string(o))
        return text_without(json_string_value(o), login);
    if (json_is_array(o)) {
        copy = json_array();
        json_array_foreach(o, i, v) {
            json_array_append_new(copy, copy_without(v, login));
        }
        return copy;
    }
    if (!json_is_object(o))
        return json_incref(o);
    copy = json_object();
    json_object_foreach(o, key, v) {
        json_object_set_new(copy, key, copy_without(v, login));
    }
    return copy;
}

json_t *steps_shown(json_t *steps, size_t i, bool global) {
    json_t *step = json_array_get(steps, i);
    const char *login = global ? NULL : login_before(steps, i);
    json_t *copy = login == NULL ? json_copy(step) : copy_without(step, login);
    if (!global) {
        json_object_del(copy, "asked");
        json_object_del(copy, "set_at");
        json_object_del(copy, "user");
    }
    return copy;
}

json_t *steps_all_shown(json_t *steps, bool global) {
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(steps); i++)
        json_array_append_new(list, steps_shown(steps, i, global));
    return list;
}
