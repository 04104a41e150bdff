/*
 * daemon/overview.c - the queue, relay hosts and senders as JSON; see overview.h
 */
#include "daemon/overview.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "util/clock.h"

/* Of a message that is shown piece by piece: bytes at a time, and recipients that are looked at. */
#define PIECE       32768U
#define PIECE_LOOKS 1024U

static void add_str(struct sbuf *b, const char *name, struct str v) {
    sbuf_printf(b, ", \"%s\": ", name);
    sbuf_add_json(b, v);
}

/* An address as it stands in commands: with the quotes that its local part needs. */
static void overview_add_addr(struct sbuf *b, struct str addr) {
    struct sbuf out = {0};
    addr_external(&out, addr);
    sbuf_add_json(b, sbuf_str(&out));
    sbuf_free(&out);
}

static const char *queue_name(enum sched_queue q) {
    return q == QUEUE_ACTIVE ? "active" : q == QUEUE_HOLD ? "hold" : "deferred";
}

/* Why mail waits, as data: what is said of it to people may follow from it. */
static void overview_add_why(struct sbuf *b, const struct mailerr *e) {
    if (e->cause != CAUSE_UNSET)
        add_str(b, "cause", str_of(mail_cause_name(e->cause)));
    if (e->reply != NULL)
        add_str(b, "reply", str_of(e->reply));
}

static void add_rcpt(struct sbuf *b, struct str addr, const struct mailerr *e) {
    sbuf_add_c(b, "{\"address\": ");
    overview_add_addr(b, addr);
    if (e != NULL) {
        add_str(b, "delay_reason", str_of(e->text));
        add_str(b, "status", str_of(e->dsn));
        overview_add_why(b, e);
    }
    if (e != NULL && e->mta != NULL)
        add_str(b, "host", str_of(e->mta));
    sbuf_add_ch(b, '}');
}

static void add_tail(struct sbuf *b, const struct sched_view *v) {
    sbuf_printf(b, "], \"attempts\": %u, \"next_attempt\": %lld", v->attempts,
                (long long)(v->next_us / 1000000));
    add_str(b, "client", v->env->client);
    if (v->hop != NULL) {
        add_str(b, "relay", str_of(v->hop->nexthop));
        add_str(b, "record", str_of(v->hop->record));
    }
    if (v->deleted || v->hold_ordered)
        add_str(b, "ordered", v->deleted ? STR_LIT("delete") : STR_LIT("hold"));
    sbuf_printf(b, ", \"cursor\": \"%llu\"}\n", (unsigned long long)v->env->id);
}

void overview_begin(struct sbuf *b, const struct sched_view *v, struct overview_line *line) {
    *line = (struct overview_line){.open = true};
    sbuf_printf(b,
                "{\"queue_name\": \"%s\", \"queue_id\": \"%s\", \"arrival_time\": %lld, "
                "\"message_size\": %llu, \"forced_expire\": %s",
                queue_name(v->queue), v->env->qid, (long long)(v->env->arrival_us / 1000000),
                (unsigned long long)v->env->size, v->forced_expire ? "true" : "false");
    sbuf_add_c(b, ", \"sender\": ");
    overview_add_addr(b, v->env->sender.n == 0 ? STR_LIT("MAILER-DAEMON") : v->env->sender);
    sbuf_add_c(b, ", \"recipients\": [");
    add_tail(&line->tail, v);
}

/* False: there are no more recipients. */
static bool add_next_rcpt(struct sbuf *b, const struct sched_view *v, struct overview_line *line) {
    const struct mailerr *e;
    if (v == NULL || line->rcpt >= v->env->n_rcpts)
        return false;
    uint32_t i = line->rcpt++;
    if (!sched_view_rcpt(v, i, &e))
        return true;
    if (line->begun)
        sbuf_add_c(b, ", ");
    line->begun = true;
    add_rcpt(b, v->env->rcpts[i].addr, e);
    return true;
}

void overview_go_on(struct sbuf *b, const struct sched_view *v, struct overview_line *line) {
    for (size_t most = b->n + PIECE, looks = 0; b->n < most && looks < PIECE_LOOKS; looks++)
        if (!add_next_rcpt(b, v, line)) {
            sbuf_add_str(b, sbuf_str(&line->tail));
            sbuf_free(&line->tail);
            line->open = false;
            return;
        }
}

void overview_message(struct sbuf *b, const struct sched_view *v) {
    struct overview_line line;
    overview_begin(b, v, &line);
    while (line.open)
        overview_go_on(b, v, &line);
}

void overview_unreadable(struct sbuf *b, struct str qid, uint64_t id, const struct envelope *env) {
    int64_t arrival_us = env == NULL ? (int64_t)id : env->arrival_us;
    uint32_t n = env == NULL ? 1 : env->n_rcpts;
    sbuf_add_c(b, "{\"queue_name\": \"unreadable\"");
    add_str(b, "queue_id", qid);
    sbuf_printf(b,
                ", \"arrival_time\": %lld, \"message_size\": %llu, \"forced_expire\": false, "
                "\"sender\": ",
                (long long)(arrival_us / 1000000),
                (unsigned long long)(env == NULL ? 0 : env->size));
    overview_add_addr(b, env == NULL          ? STR_LIT("unknown")
                         : env->sender.n == 0 ? STR_LIT("MAILER-DAEMON")
                                              : env->sender);
    sbuf_add_c(b, ", \"recipients\": [");
    for (uint32_t i = 0; i < n; i++) {
        sbuf_add_c(b, i == 0 ? "{\"address\": " : ", {\"address\": ");
        overview_add_addr(b, env == NULL ? STR_LIT("unknown") : env->rcpts[i].addr);
        add_str(b, "delay_reason",
                env == NULL ? STR_LIT("this version cannot read its envelope: it is kept, not sent")
                            : STR_LIT("this version cannot read what became of its recipients: it "
                                      "is kept, not sent"));
        sbuf_add_ch(b, '}');
    }
    sbuf_printf(b, "], \"cursor\": \"%llu\"}\n", (unsigned long long)id);
}

void overview_envelope(struct sbuf *b, const struct sched_view *v) {
    const struct envelope *env = v->env;
    const struct mailerr *e;
    sbuf_printf(b, "{\"queue_id\": \"%s\", \"arrival_us\": %lld, \"size\": %llu, \"flags\": %u",
                env->qid, (long long)env->arrival_us, (unsigned long long)env->size, env->flags);
    add_str(b, "sender", env->sender);
    add_str(b, "envid", env->envid);
    add_str(b, "client", env->client);
    add_str(b, "sasl_user", env->sasl_user);
    add_str(b, "filter", env->filter);
    sbuf_add_c(b, ", \"rcpts\": [");
    for (uint32_t i = 0, n = 0; i < env->n_rcpts; i++) {
        if (env->rcpts[i].expanded) /* no mail goes there, nor has it gone */
            continue;
        sbuf_printf(b, "%s{\"notify\": %u, \"done\": %s", n++ == 0 ? "" : ", ",
                    env->rcpts[i].notify, sched_view_rcpt(v, i, &e) ? "false" : "true");
        add_str(b, "addr", env->rcpts[i].addr);
        add_str(b, "orcpt", env->rcpts[i].orcpt);
        add_str(b, "orig", env->rcpts[i].orig);
        sbuf_add_ch(b, '}');
    }
    sbuf_add_c(b, "]}\n");
}

static void overview_add_counts(struct sbuf *b, const uint64_t count[MAIL_STATUSES]) {
    sbuf_printf(b, ", \"sent\": %llu, \"deferred\": %llu, \"bounced\": %llu",
                (unsigned long long)count[MAIL_SENT], (unsigned long long)count[MAIL_DEFERRED],
                (unsigned long long)count[MAIL_BOUNCED]);
}

void overview_stats(struct sbuf *b, const struct sched *s, struct spool *sp) {
    struct sched_stats st;
    struct spool_stats ss;
    struct sched_view v;
    sched_stats(s, &st);
    spool_stats(sp, &ss);
    sbuf_printf(b,
                "{\"active\": %llu, \"deferred\": %llu, \"hold\": %llu, \"halted\": %s, "
                "\"crowded\": %s, \"queue_memory\": %llu, \"queue_memory_limit\": %lld, "
                "\"spool_messages\": %llu, "
                "\"spool_segments\": %llu, \"spool_log_bytes\": %llu, \"spool_live_bytes\": %llu, "
                "\"spool_batches\": %llu, \"spool_records\": %llu, \"spool_written\": %llu, "
                "\"results\": {\"since\": %lld",
                (unsigned long long)st.active, (unsigned long long)st.deferred,
                (unsigned long long)st.hold, st.halted ? "true" : "false",
                st.crowded ? "true" : "false", (unsigned long long)st.memory,
                (long long)sched_config(s)->p.queue_memory_limit, (unsigned long long)ss.messages,
                (unsigned long long)ss.segments, (unsigned long long)ss.log_bytes,
                (unsigned long long)ss.live_bytes, (unsigned long long)ss.batches,
                (unsigned long long)ss.records, (unsigned long long)ss.bytes_written,
                (long long)(sched_tally(s)->since_us / 1000000));
    overview_add_counts(b, sched_tally(s)->count);
    uint64_t oldest = sched_oldest(s);
    sbuf_add_ch(b, '}');
    if (oldest != 0 && sched_view(s, oldest, &v)) {
        sbuf_printf(b, ", \"oldest\": {\"arrival_time\": %lld",
                    (long long)(v.env->arrival_us / 1000000));
        add_str(b, "queue_id", str_of(v.env->qid));
        add_str(b, "sender", v.env->sender);
        sbuf_add_ch(b, '}');
    }
    sbuf_add_c(b, "}\n");
}

static void add_hop(struct sbuf *b, const struct hop *h, int64_t now_ms) {
    sbuf_add_c(b, "{\"nexthop\": ");
    sbuf_add_json(b, str_of(h->nexthop));
    add_str(b, "record", str_of(h->record));
    overview_add_counts(b, h->count);
    sbuf_printf(b, ", \"waiting\": %zu", h->waiting);
    if (h->ok_us != 0)
        sbuf_printf(b, ", \"last_success\": %lld", (long long)(h->ok_us / 1000000));
    if (h->err_us != 0) {
        sbuf_printf(b, ", \"last_failure\": %lld", (long long)(h->err_us / 1000000));
        add_str(b, "error", str_of(h->err.text == NULL ? "" : h->err.text));
        add_str(b, "dsn", str_of(h->err.dsn));
        overview_add_why(b, &h->err);
    }
    if (h->resting_ms > now_ms)
        sbuf_printf(b, ", \"resting_until\": %lld",
                    (long long)(clock_wall_us() / 1000 + h->resting_ms - now_ms) / 1000);
    if (h->cert_until != 0)
        sbuf_printf(b, ", \"certificate_until\": %lld", (long long)h->cert_until);
    sbuf_add_c(b, "}\n");
}

void overview_relays(struct sbuf *b, const struct sched *s, int64_t now_ms) {
    const struct tally *t = sched_tally(s);
    size_t pos = 0;
    for (const struct hop *h; (h = kset_next(&t->hops, &pos)) != NULL;)
        add_hop(b, h, now_ms);
    if (t->rest != NULL)
        add_hop(b, t->rest, now_ms);
}

void overview_senders(struct sbuf *b, const struct sched *s, size_t max) {
    const struct sender_count **v = tally_busiest(sched_tally(s), &max);
    for (size_t i = 0; i < max; i++) {
        sbuf_add_c(b, "{\"sender\": ");
        sbuf_add_json(b, str_of(v[i]->sender));
        overview_add_counts(b, v[i]->count);
        sbuf_add_c(b, "}\n");
    }
    free(v);
}

void overview_counts(struct sbuf *b, const struct sched *s, size_t max) {
    struct sched_stats st;
    size_t pos = 0, n;
    bool first = true;
    sched_stats(s, &st);
    sbuf_printf(b, "{\"active\": %llu, \"deferred\": %llu, \"hold\": %llu, \"relays\": [",
                (unsigned long long)st.active, (unsigned long long)st.deferred,
                (unsigned long long)st.hold);
    for (const struct hop *h; (h = kset_next(&sched_tally(s)->hops, &pos)) != NULL;) {
        if (h->waiting == 0)
            continue;
        sbuf_add_c(b, first ? "{\"relay\": " : ", {\"relay\": ");
        sbuf_add_json(b, str_of(h->nexthop));
        add_str(b, "record", str_of(h->record));
        sbuf_printf(b, ", \"messages\": %zu}", h->waiting);
        first = false;
    }
    sbuf_add_c(b, "], \"reasons\": [");
    struct sched_reason *v = sched_reasons(s, &n);
    for (size_t i = 0; i < n && i < max; i++) {
        sbuf_add_c(b, i == 0 ? "{\"reason\": " : ", {\"reason\": ");
        sbuf_add_json(b, str_of(v[i].text));
        sbuf_printf(b, ", \"messages\": %zu}", v[i].messages);
    }
    free(v);
    sbuf_add_c(b, "]}\n");
}

static struct str overview_text_of(json_t *req, const char *name) {
    const char *s = json_string_value(json_object_get(req, name));
    return str_of(s == NULL ? "" : s);
}

static int queue_of(struct str name) {
    for (int q = QUEUE_ACTIVE; q <= QUEUE_HOLD; q++)
        if (str_eq_c(name, queue_name((enum sched_queue)q)))
            return q;
    return -1;
}

/* Has the request a member that nothing here reads?  The text of a condition may be empty: then
 * it is none. */
static bool has_other_member(json_t *req) {
    static const char *const known[] = {"cmd",   "id",     "ids",    "queue",     "queues",
                                        "relay", "record", "sender", "recipient", "reason",
                                        "site",  "whole",  "after",  "limit"};
    const char *key;
    json_t *value;
    json_object_foreach(req, key, value) {
        size_t i = 0;
        while (i < sizeof known / sizeof known[0] && strcmp(known[i], key) != 0)
            i++;
        if (i == sizeof known / sizeof known[0])
            return true;
    }
    return false;
}

const char *overview_filter_wrong(json_t *req) {
    static const char *const texts[] = {"id",     "queue",     "relay",  "record",
                                        "sender", "recipient", "reason", "site"};
    json_t *ids = json_object_get(req, "ids"), *queues = json_object_get(req, "queues"), *one;
    json_t *whole = json_object_get(req, "whole");
    struct str queue = overview_text_of(req, "queue");
    size_t i;
    if (has_other_member(req))
        return "a member of the request";
    for (i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        json_t *text = json_object_get(req, texts[i]);
        if (text != NULL && !json_is_string(text))
            return texts[i];
    }
    if (queue.n > 0 && queue_of(queue) < 0)
        return "queue";
    if (queues != NULL && json_array_size(queues) == 0)
        return "queues";
    json_array_foreach(queues, i, one) {
        if (!json_is_string(one) || queue_of(str_of(json_string_value(one))) < 0)
            return "queues";
    }
    if (whole != NULL && !json_is_boolean(whole))
        return "whole";
    if (ids != NULL && !json_is_array(ids))
        return "ids";
    json_array_foreach(ids, i, one) {
        if (!json_is_string(one))
            return "ids";
    }
    return NULL;
}

bool overview_filter(json_t *req, struct sched_filter *f, struct htab *ids) {
    struct str id = overview_text_of(req, "id");
    json_t *list = json_object_get(req, "ids"), *one;
    size_t i;
    *f = SCHED_ALL;
    if (overview_text_of(req, "queue").n > 0)
        f->queues = 1U << queue_of(overview_text_of(req, "queue"));
    json_array_foreach(json_object_get(req, "queues"), i, one) {
        f->queues |= 1U << queue_of(str_of(json_string_value(one)));
    }
    f->by_hop = json_object_get(req, "relay") != NULL;
    f->nexthop = overview_text_of(req, "relay");
    f->record = overview_text_of(req, "record");
    f->sender = overview_text_of(req, "sender");
    f->rcpt = overview_text_of(req, "recipient");
    f->whole = json_is_true(json_object_get(req, "whole"));
    f->reason = overview_text_of(req, "reason");
    f->site = overview_text_of(req, "site");
    json_array_foreach(list, i, one) {
        if (json_is_string(one))
            htab_put(ids, str_of(json_string_value(one)), one);
    }
    if (id.n > 0 && !str_eq_c(id, "ALL"))
        htab_put(ids, id, req);
    if (list != NULL || ids->n > 0)
        f->ids = ids;
    return list != NULL || id.n > 0 || f->queues != 0 || f->by_hop || f->sender.n > 0 ||
           f->rcpt.n > 0 || f->reason.n > 0 || f->site.n > 0;
}
