/*
 * deliver/again.c - do the tables still say what a kept connection was made with?
 *
 * A connection has the TLS policy and the login of its first mail.  Rows change without a reload,
 * so before further mail goes over the connection the tables are asked again, once in AGAIN_MS at
 * most.  An answer that is another one, or none, ends the connection, and the mail begins with a
 * new one.  Of a relay record no table is asked: its text is compared with that of each mail
 * (txn_fits).
 *
 * The session's loop only.  s->tag is the question's, as in the stages before.
 */
#include "deliver/session.h"

#define AGAIN_MS 1000

bool again_is_due(const struct dsess *s) {
    return s->d->loop->now_ms - s->asked_ms > AGAIN_MS &&
           (policy_is_asked(s) || credentials_are_asked(s));
}

/* The tables have said the same again, or something else. */
static void again_over(struct dsess *s, bool same) {
    s->asked_ms = s->d->loop->now_ms;
    s->resume(s, same ? s->mail->more(s) : STEP_RECONNECT);
}

static void again_on_login(void *arg, const struct maps_answer *a) {
    struct dsess *s = arg;
    s->tag = 0;
    again_over(s, a->rc != MAP_ERROR && answer_mark(a) == s->login_mark);
}

static void again_on_policy(void *arg, const struct maps_answer *a) {
    struct dsess *s = arg;
    bool same = a->rc != MAP_ERROR && answer_mark(a) == s->policy_mark;
    s->tag = 0;
    if (same && credentials_are_asked(s))
        credentials_ask(s, again_on_login);
    else
        again_over(s, same);
}

enum step again_begin(struct dsess *s) {
    if (policy_is_asked(s))
        policy_ask(s, again_on_policy);
    else
        credentials_ask(s, again_on_login);
    return STEP_WAIT;
}
