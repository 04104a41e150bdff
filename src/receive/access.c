/*
 * receive/access.c - a run over the restriction lists; see access.h
 *
 * All lists are evaluated at RCPT (smtpd_delay_reject = yes): client, helo, sender, relay,
 * recipient; a list ends at its first permit, everything ends at the first reject.  A restriction
 * (access_words.c) that needs a table waits for the lookup process; access_go is the loop over
 * words and lists, and it is left and entered again there.  A word that Postfix has and Posthouse
 * has not (config/unread.def) is passed over: a service that has one takes no mail at all unless
 * the administrator accepts that.  Any other word refuses with 451 4.3.5.
 */
#include "receive/access.h"

#include <stdlib.h>

#include "receive/access_run.h"
#include "receive/policyd.h"
#include "util/log.h"
#include "util/mem.h"

static void access_go(struct access_run *a);
static void access_over(struct access_run *a, enum verdict v);

/* A restriction behind warn_if_reject would have refused the mail. */
static void access_warn(struct access_run *a) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%u %s", a->code, a->text.p);
    access_note(a, "reject_warning", b.p);
    sbuf_free(&b);
    sbuf_reset(&a->text);
}

/* The innermost restrictions that a row named are over. */
static void access_close_inner(struct access_run *a) {
    struct access_inner *in = a->inner;
    a->inner = in->outer;
    a->n_inner--;
    sbuf_free(&in->name);
    free(in->text);
    free(in);
}

static void access_list_ends(struct access_run *a) {
    while (a->inner != NULL)
        access_close_inner(a);
    a->reader.rest = STR_NONE;
}

/* The list is over, but not for what a row of a routed recipient permits. */
static void access_permitted(struct access_run *a) {
    bool ends = true;
    while (a->inner != NULL && ends) {
        ends = !a->inner->permits_nothing;
        access_close_inner(a);
    }
    if (ends)
        access_list_ends(a);
}

static bool access_is_discarded(const struct access_run *a) {
    return a->f.acts != NULL && a->f.acts->discard;
}

/* Nothing that is still to come in the list can change the reply, as with Postfix. */
static bool access_is_settled(const struct access_run *a) {
    return a->if_permit.code != 0 && a->if_reject.code != 0;
}

/* Takes what a word said; true: the next word is looked at. */
static bool access_goes_on(struct access_run *a, enum access_step step) {
    if (step == STEP_REJECT)
        a->code = access_checked_code(a->code, &a->text);
    if (step == STEP_FAIL || (step == STEP_REJECT && !a->warns)) {
        access_over(a, VERDICT_REJECT);
        return false;
    }
    if (step == STEP_REJECT)
        access_warn(a);
    if (step == STEP_PERMIT)
        access_permitted(a);
    else if (step != STEP_WAIT && access_is_settled(a))
        access_list_ends(a);
    return step != STEP_WAIT;
}

/* An answer of the lookup process has become a step. */
static void access_resume(struct access_run *a, enum access_step step) {
    if (access_goes_on(a, step))
        access_go(a);
}

/* -- the loop over lists and words -- */

static enum access_step access_bad_inner(struct access_run *a, const struct access_item *item) {
    log_warn("smtpd", "\"%.*s\": \"%.*s\" cannot be asked for by a row or a policy service",
             STR_FMT(str_of(a->inner->text)), STR_FMT(item->text));
    return access_misconfigured(a);
}

static enum access_step access_item_step(struct access_run *a, const struct access_item *item) {
    a->word = item->word;
    a->warns = item->warns;
    if (a->inner != NULL && !access_may_be_inner(item))
        return access_bad_inner(a, item);
    if (item->is_unread)
        return STEP_NEXT;
    if (a->word == NULL) {
        log_warn("smtpd", "unknown smtpd restriction: \"%.*s\"", STR_FMT(item->text));
        return access_misconfigured(a);
    }
    if (item->has_no_table) {
        log_warn("smtpd", "restriction %s: bad argument \"%.*s\": need maptype:mapname",
                 a->word->name, STR_FMT(item->table));
        return access_misconfigured(a);
    }
    if (a->word->kind == WORD_CHECK)
        return access_ask_table(a, item->table);
    if (a->word->kind == WORD_POLICY)
        return access_ask_policy(a, item->table);
    if (a->word->kind == WORD_PERMIT)
        return STEP_PERMIT;
    return a->word->kind == WORD_SKIP ? STEP_NEXT : a->word->test(a);
}

/* A client that has not said its name passes the list about names by, as with Postfix:
 * smtpd_helo_required is for that. */
static void access_open_list(struct access_run *a, enum list list) {
    a->reader = access_list_open(a->f.p, list);
    a->if_reject.code = 0; /* as with Postfix, it is about its own list */
    sbuf_reset(&a->if_reject.text);
    if (list == LIST_HELO && a->f.helo == NULL)
        a->reader.rest = STR_NONE;
}

/* The next restriction among those that rows have named. */
static bool access_next_inner(struct access_run *a, struct access_item *item) {
    while (a->inner != NULL) {
        if (access_item_next(&a->inner->reader, item)) {
            item->warns = item->warns || a->inner->warns;
            return true;
        }
        access_close_inner(a);
    }
    return false;
}

/* The next restriction of the current list or, when that is over, the first one of a later list. */
static bool access_next_item(struct access_run *a, struct access_item *item) {
    if (access_next_inner(a, item))
        return true;
    while (!access_item_next(&a->reader, item)) {
        if (a->reader.list >= LIST_RECIPIENT)
            return false;
        access_open_list(a, a->reader.list + 1);
    }
    return true;
}

/* Behind all lists: a recipient that does not exist is refused, even if a list permits it. */
static bool access_asks_listed(const struct access_run *a) {
    return !a->listed && a->reader.list == LIST_RECIPIENT && !access_is_discarded(a) &&
           a->f.p->smtpd_reject_unlisted_recipient;
}

/* Goes on until a word has to wait or the run is over. */
static void access_go(struct access_run *a) {
    struct access_item item;
    while (!access_is_discarded(a) && access_next_item(a, &item))
        if (!access_goes_on(a, access_item_step(a, &item)))
            return;
    if (access_asks_listed(a)) {
        a->warns = false;
        if (!access_goes_on(a, access_listed(a)))
            return;
    }
    access_over(a, VERDICT_ALLOW);
}

static void access_free(struct access_run *a) {
    while (a->inner != NULL)
        access_close_inner(a);
    keys_clear(&a->keys);
    sbuf_free(&a->text);
    free(a->table);
    free(a->policy_server);
    free(a->policy_default);
    sbuf_free(&a->if_permit.text);
    sbuf_free(&a->if_reject.text);
    free(a);
}

/* The loop gives the answer: the run is the callee's no more. */
static void access_give(struct later *t) {
    struct access_run *a = DL_OWNER(t, struct access_run, answer);
    a->fn(a->arg, a->verdict, a->code, a->text.p);
    access_free(a);
}

/* What was said for the case that the mail is permitted, or refused (access(5)). */
static void access_turn(struct access_run *a, enum verdict *v) {
    const struct access_later *later = *v == VERDICT_ALLOW ? &a->if_permit : &a->if_reject;
    if (later->code == 0 || (*v == VERDICT_REJECT && a->code < 500))
        return;
    *v = VERDICT_REJECT;
    a->code = later->code;
    sbuf_reset(&a->text);
    sbuf_add_str(&a->text, sbuf_str(&later->text));
}

static void access_over(struct access_run *a, enum verdict v) {
    access_turn(a, &v);
    a->verdict = v;
    a->answer.run = access_give;
    loop_later(a->f.loop, &a->answer);
}

void access_cancel(struct access_run *a) {
    if (a == NULL)
        return;
    lookup_cancel(a->f.lookup, a->tag);
    policyd_cancel(a->policy);
    loop_never(&a->answer);
    access_free(a);
}

struct access_run *access_begin(const struct access_facts *f, enum access_stage stage, access_fn fn,
                                void *arg) {
    struct access_run *a = MEM_NEW(struct access_run);
    a->f = *f;
    a->fn = fn;
    a->arg = arg;
    a->resume = access_resume;
    access_open_list(a, stage == ACCESS_END    ? LIST_END
                        : stage == ACCESS_DATA ? LIST_DATA
                                               : LIST_CLIENT);
    access_go(a);
    return a;
}
