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

/* Do letters and digits neither go before at, in text, nor stand at end? */
static bool is_word(const char *text, const char *at, const char *end) {
    return (at == text || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)*end);
}

/* The length of the longest login that text has at that place; 0: it has none there. */
static size_t login_at(const char *text, const char *at, json_t *logins) {
    size_t longest = 0, k;
    json_t *login;
    json_array_foreach(logins, k, login) {
        size_t n = json_string_length(login);
        if (n > longest && strncasecmp(at, json_string_value(login), n) == 0 &&
            (n >= LOGIN_MIN || is_word(text, at, at + n)))
            longest = n;
    }
    return longest;
}

static json_t *text_without(const char *text, json_t *logins) {
    struct sbuf b = {0};
    for (const char *at = text; *at != '\0';) {
        size_t n = login_at(text, at, logins);
        if (n > 0)
            sbuf_add_c(&b, INSTEAD);
        else
            sbuf_add_ch(&b, *at);
        at += n > 0 ? n : 1;
    }
    json_t *o = json_text(b.p == NULL ? "" : b.p);
    sbuf_free(&b);
    return o;
}

/* A copy in which no text has one of the logins. */
static json_t *copy_without(json_t *o, json_t *logins) {
    const char *key;
    json_t *v, *copy;
    size_t i;
    if (json_is_string(o))
        return text_without(json_string_value(o), logins);
    if (json_is_array(o)) {
        copy = json_array();
        json_array_foreach(o, i, v) {
            json_array_append_new(copy, copy_without(v, logins));
        }
        return copy;
    }
    if (!json_is_object(o))
        return json_incref(o);
    copy = json_object();
    json_object_foreach(o, key, v) {
        json_object_set_new(copy, key, copy_without(v, logins));
    }
    return copy;
}

/* Does the step say what an alias stands for?  The steps behind it are about those addresses. */
static bool step_opens_alias(json_t *step) {
    return json_is_true(json_object_get(step, TRACE_STANDS)) ||
           (strcmp(json_member(step, "step"), ALIAS_STEP) == 0 &&
            strcmp(json_member(step, "result"), ALIAS_NONE) != 0);
}

/* Stands for all steps about an alias's addresses: anybody may send to an alias, and only global
 * administrators see its addresses and where mail to these goes. */
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
    json_t *logins = json_array();
    for (size_t k = 0; k <= i; k++)
        json_array_append_new(logins, json_string(login_in(json_array_get(steps, k))));
    json_t *copy = copy_without(json_array_get(steps, i), logins);
    json_decref(logins);
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
