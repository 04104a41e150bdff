/*
 * clean/clean.c - the recipients that a message is queued for; see clean.h
 *
 * The tables of copies are asked one after the other, then virtual.c.  The query owns the list of
 * recipients with copies and their texts; it frees itself after its asker's function has returned,
 * or in clean_cancel.
 */
#include "clean/clean.h"

#include <stdlib.h>

#include "mail/addrlist.h"
#include "route/aliased.h"
#include "route/keys.h"
#include "route/local.h"
#include "util/log.h"
#include "util/mem.h"

enum clean_went { CLEAN_ON, CLEAN_ASKING, CLEAN_OVER };

struct clean_query {
    struct clean_ask ask; /* cfg is a reference */
    virtual_fn fn;        /* NULL: cancelled while give was posted */
    void *arg;
    uint32_t at;        /* 0: the sender's copy; else that of rcpts[at - 1] */
    struct rcpt *rcpts; /* with the copies */
    uint32_t n;
    char **texts; /* of the copies, n_texts of them */
    uint32_t n_texts;
    uint32_t tag; /* of the question that is open; 0: none */
    struct virtual_query *aliases;
    struct later give;
    bool posted;
    struct virtual_result failed; /* the result, where no copy could be found out */
};

bool clean_is_idle(const struct config *cfg, const struct params *p) {
    return keys_has_word(p->receive_override_options, "no_address_mappings") ||
           (cfg->p.always_bcc[0] == '\0' && cfg->p.sender_bcc_maps[0] == '\0' &&
            cfg->p.recipient_bcc_maps[0] == '\0' && virtual_is_idle(cfg, p));
}

static void clean_free(struct clean_query *q) {
    for (uint32_t i = 0; i < q->n_texts; i++)
        free(q->texts[i]);
    free(q->texts);
    free(q->rcpts);
    config_unref((struct config *)(uintptr_t)q->ask.cfg);
    free(q);
}

/* -- copies -- */

/* One address, in its internal form, as the tables and always_bcc have it.  The sender hears
 * nothing of a copy. */
static void copy_take(struct clean_query *q, struct str value) {
    struct addrlist_item item = {.addr = value, .has_domain = str_chr(value, '@') >= 0};
    struct sbuf addr = {0};
    if (value.n > 0 && aliased_address(&q->ask.cfg->p, &item, STR_NONE, &addr)) {
        q->texts = mem_realloc(q->texts, (q->n_texts + 1) * sizeof *q->texts);
        q->rcpts = mem_realloc(q->rcpts, (q->n + 1) * sizeof *q->rcpts);
        char *text = q->texts[q->n_texts++] = str_dup(sbuf_str(&addr));
        q->rcpts[q->n++] = (struct rcpt){.addr = str_of(text), .notify = NOTIFY_NEVER};
    }
    sbuf_free(&addr);
}

static void clean_keep(struct clean_query *q, const struct rcpt *rcpt) {
    q->rcpts = mem_realloc(q->rcpts, (q->n + 1) * sizeof *q->rcpts);
    q->rcpts[q->n++] = *rcpt;
}

/* -- asking -- */

static void clean_run(struct clean_query *q, enum clean_went went);

static const char *clean_table(const struct clean_query *q) {
    return q->at == 0 ? q->ask.cfg->p.sender_bcc_maps : q->ask.cfg->p.recipient_bcc_maps;
}

static struct str clean_address(const struct clean_query *q) {
    return q->at == 0 ? q->ask.sender : q->ask.rcpts[q->at - 1].addr;
}

static enum clean_went copy_answer(struct clean_query *q, const struct maps_answer *a) {
    if (a->rc == MAP_ERROR) {
        log_warn("cleanup", "%s: %s map lookup problem -- message not accepted, try again later",
                 q->ask.qid, q->at == 0 ? "sender_bcc_maps" : "recipient_bcc_maps");
        q->failed.rc = VIRTUAL_FAILED;
        return CLEAN_OVER;
    }
    if (a->rc == MAP_FOUND)
        copy_take(q, sbuf_str(&a->value));
    q->at++;
    return CLEAN_ON;
}

static void copy_on_answer(void *arg, const struct maps_answer *a) {
    struct clean_query *q = arg;
    q->tag = 0;
    clean_run(q, copy_answer(q, a));
}

static enum clean_went copy_ask(struct clean_query *q, enum match_rc local) {
    static const struct maps_answer failed = {.rc = MAP_ERROR};
    struct keys keys = {.n = 0};
    struct maps_answer now = {0};
    if (local == MATCH_ERROR)
        return copy_answer(q, &failed);
    (local == MATCH_YES ? keys_local_sender : keys_sender)(&keys, &q->ask.cfg->p, clean_address(q));
    q->tag = lookup_route(q->ask.lookup, "cleanup", clean_table(q), VALUES_JOINED, keys.v, keys.n,
                          &now, copy_on_answer, q);
    keys_clear(&keys);
    if (q->tag != 0)
        return CLEAN_ASKING;
    enum clean_went went = copy_answer(q, &now);
    maps_answer_free(&now);
    return went;
}

static void copy_on_domain(void *arg, enum match_rc rc) {
    struct clean_query *q = arg;
    q->tag = 0;
    clean_run(q, copy_ask(q, rc));
}

/* The sender's copy, then each recipient with its own. */
static enum clean_went copy_step(struct clean_query *q) {
    enum match_rc now;
    if (q->at > 0)
        clean_keep(q, &q->ask.rcpts[q->at - 1]);
    if (clean_table(q)[0] == '\0' || clean_address(q).n == 0) {
        q->at++;
        return CLEAN_ON;
    }
    q->tag = local_sender_now(q->ask.lookup, "cleanup", q->ask.cfg, &q->ask.cfg->p,
                              clean_address(q), &now, copy_on_domain, q);
    return q->tag != 0 ? CLEAN_ASKING : copy_ask(q, now);
}

/* -- the result -- */

static void clean_give(struct clean_query *q, const struct virtual_result *r) {
    if (q->fn != NULL)
        q->fn(q->arg, r);
    clean_free(q);
}

static void clean_on_virtual(void *arg, const struct virtual_result *r) {
    struct clean_query *q = arg;
    q->aliases = NULL;
    clean_give(q, r);
}

static void clean_give_later(struct later *t) {
    struct clean_query *q = DL_OWNER(t, struct clean_query, give);
    clean_give(q, &q->failed);
}

static void clean_run(struct clean_query *q, enum clean_went went) {
    const struct config *cfg = q->ask.cfg;
    while (went == CLEAN_ON && q->at <= q->ask.n)
        went = copy_step(q);
    if (went == CLEAN_ON) {
        copy_take(q, str_of(cfg->p.always_bcc));
        q->aliases = virtual_expand(cfg, q->ask.lookup, q->ask.qid, q->rcpts, q->n, NULL,
                                    clean_on_virtual, q);
        virtual_bound(q->aliases);
    } else if (went == CLEAN_OVER) { /* perhaps clean_begin has not returned */
        q->posted = true;
        q->give.run = clean_give_later;
        lookup_later(q->ask.lookup, &q->give);
    }
}

struct clean_query *clean_begin(const struct clean_ask *ask, virtual_fn fn, void *arg) {
    struct clean_query *q = MEM_NEW(struct clean_query);
    q->ask = *ask;
    config_ref((struct config *)(uintptr_t)ask->cfg);
    q->fn = fn;
    q->arg = arg;
    clean_run(q, CLEAN_ON);
    return q;
}

void clean_cancel(struct clean_query *q) {
    if (q == NULL)
        return;
    if (q->posted) {
        q->fn = NULL;
        return;
    }
    lookup_cancel(q->ask.lookup, q->tag);
    virtual_cancel(q->aliases);
    clean_free(q);
}
