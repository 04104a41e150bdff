/*
 * web/dashboard.c - how mail goes; see dashboard.h
 *
 * The daemon counts since its start; this samples its counters once a minute into web.db, so that
 * there is a history that outlives restarts of either.
 */
#include "web/dashboard.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/mem.h"
#include "util/net.h"
#include "web/daemon.h"
#include "web/session.h"

#define SAMPLE_S    60
#define CERT_SOON_S (30 * 86400)
#define AUDIT_MS    30000 /* how long an audit is good for */
#define TOP         10U
#define HEALTH_MS   1000 /* how long an answer about the daemon's health is good for */

static json_int_t number(json_t *o, const char *name) {
    return json_integer_value(json_object_get(o, name));
}

/* -- samples -- */

struct sampler {
    struct web *w;
    json_int_t sent, deferred, bounced;
    bool known;
};

/* A counter that went back was started anew. */
static int64_t delta(json_int_t now, json_int_t *last) {
    json_int_t d = now >= *last ? now - *last : now;
    *last = now;
    return d;
}

static void sample(struct sampler *s) {
    json_t *list = daemon_ask(s->w, "stats"), *st = json_array_get(list, 0);
    json_t *res = json_object_get(st, "results");
    if (res != NULL) {
        int64_t sent = delta(number(res, "sent"), &s->sent);
        int64_t deferred = delta(number(res, "deferred"), &s->deferred);
        int64_t bounced = delta(number(res, "bounced"), &s->bounced);
        if (!s->known) /* what was counted before is of no minute */
            sent = deferred = bounced = 0;
        s->known = true;
        state_run(s->w->state, NULL, NULL,
                  "INSERT OR REPLACE INTO sample (at, sent, deferred, bounced, waiting) VALUES (?, "
                  "?, ?, ?, ?)",
                  "iiiii", now_s() / SAMPLE_S * SAMPLE_S, sent, deferred, bounced,
                  (int64_t)(number(st, "active") + number(st, "deferred") + number(st, "hold")));
    }
    json_decref(list);
}

static void *samples_main(void *arg) {
    struct sampler s = {.w = arg};
    for (unsigned n = 0;; n++) {
        sample(&s);
        if (n % 60 == 0)
            session_sweep(s.w);
        sleep(SAMPLE_S);
    }
    return NULL;
}

bool samples_start(struct web *w) {
    pthread_t t;
    if (pthread_create(&t, NULL, samples_main, w) != 0)
        return false;
    pthread_detach(t);
    return true;
}

/* -- the dashboard -- */

static const struct {
    const char *name;
    int64_t span, step;
} ranges[] = {{"hour", 3600, 60},
              {"day", 86400, 600},
              {"week", 7 * 86400, 3600},
              {"month", 31 * 86400, 21600}};

static void add_sample(void *arg, sqlite3_stmt *row) {
    static const char *const names[] = {"at", "sent", "deferred", "bounced", "waiting"};
    for (int i = 0; i < 5; i++)
        json_array_append_new(json_object_get(arg, names[i]),
                              json_integer(sqlite3_column_int64(row, i)));
}

static json_t *history(struct web *w, const char *range) {
    size_t k = 0;
    json_t *o =
        json_pack("{s:[], s:[], s:[], s:[], s:[]}", "at", "sent", "deferred", "bounced", "waiting");
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (strcmp(ranges[i].name, range) == 0)
            k = i;
    state_run(w->state, add_sample, o,
              "SELECT at / ? * ? AS bucket, SUM(sent), SUM(deferred), SUM(bounced), MAX(waiting) "
              "FROM sample WHERE at >= ? GROUP BY bucket ORDER BY bucket",
              "iii", ranges[k].step, ranges[k].step, now_s() - ranges[k].span);
    return o;
}

static int by_traffic(const void *a, const void *b) {
    json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    json_int_t nx = number(x, "sent") + number(x, "deferred") + number(x, "bounced");
    json_int_t ny = number(y, "sent") + number(y, "deferred") + number(y, "bounced");
    return nx < ny ? 1 : nx > ny ? -1 : 0;
}

static json_t *busiest(json_t *relays) {
    size_t n = json_array_size(relays);
    json_t **v = mem_alloc((n + 1) * sizeof(json_t *)), *list = json_array();
    for (size_t i = 0; i < n; i++)
        v[i] = json_array_get(relays, i);
    qsort(v, n, sizeof(json_t *), by_traffic);
    for (size_t i = 0; i < n && i < TOP; i++)
        json_array_append(list, v[i]);
    free(v);
    return list;
}

static json_t *certificates(json_t *relays) {
    json_t *list = json_array(), *one;
    size_t i;
    json_array_foreach(relays, i, one) {
        json_int_t until = number(one, "certificate_until");
        if (until != 0 && until < now_s() + CERT_SOON_S)
            json_array_append_new(list, json_pack("{s:O, s:O, s:I}", "relay",
                                                  json_object_get(one, "nexthop"), "record",
                                                  json_object_get(one, "record"), "until", until));
    }
    return list;
}

void dashboard_show(struct req *r) {
    json_t *stats = daemon_ask(r->w, "stats");
    json_t *relays = stats == NULL ? NULL : daemon_ask(r->w, "relays");
    json_t *senders = stats == NULL ? NULL : daemon_ask(r->w, "senders");
    if (relays != NULL && senders != NULL)
        reply_data(r, json_pack("{s:O, s:o, s:o, s:O, s:o}", "now", json_array_get(stats, 0),
                                "history", history(r->w, req_query(r, "range")), "relays",
                                busiest(relays), "senders", senders, "certificates",
                                certificates(relays)));
    else
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, DAEMON_SILENT);
    json_decref(stats);
    json_decref(relays);
    json_decref(senders);
}

/* An audit opens every table: not for every look. */
void check_show(struct req *r) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static json_t *last;
    static int64_t last_ms;
    pthread_mutex_lock(&lock);
    if (last == NULL || clock_mono_ms() - last_ms > AUDIT_MS) {
        json_decref(last);
        last = helper_audit(r->w);
        last_ms = clock_mono_ms();
    }
    json_t *copy = last == NULL ? NULL : json_deep_copy(last);
    pthread_mutex_unlock(&lock);
    if (copy == NULL)
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "The configuration cannot be looked at.");
    else
        reply_data(r, copy);
}

/* -- metrics -- */

static void add_label(struct sbuf *b, const char *before, const char *v) {
    sbuf_add_c(b, before);
    for (; *v != '\0'; v++) {
        if (*v == '"' || *v == '\\')
            sbuf_add_ch(b, '\\');
        sbuf_add_ch(b, (unsigned char)*v < ' ' ? '?' : *v);
    }
    sbuf_add_ch(b, '"');
}

static void head(struct sbuf *b, const char *name, const char *type, const char *help) {
    sbuf_printf(b, "# HELP posthouse_%s %s\n# TYPE posthouse_%s %s\n", name, help, name, type);
}

static void add_stats(struct sbuf *b, json_t *st) {
    static const char *const queues[] = {"active", "deferred", "hold"};
    static const char *const status[] = {"sent", "deferred", "bounced"};
    json_t *oldest = json_object_get(st, "oldest");
    head(b, "queue_messages", "gauge", "Messages in the queue.");
    for (size_t i = 0; i < 3; i++)
        sbuf_printf(b, "posthouse_queue_messages{queue=\"%s\"} %lld\n", queues[i],
                    (long long)number(st, queues[i]));
    head(b, "deliveries_total", "counter", "Recipients by what became of an attempt.");
    for (size_t i = 0; i < 3; i++)
        sbuf_printf(b, "posthouse_deliveries_total{status=\"%s\"} %lld\n", status[i],
                    (long long)number(json_object_get(st, "results"), status[i]));
    head(b, "queue_oldest_message_age_seconds", "gauge", "Age of the oldest message in the queue.");
    sbuf_printf(b, "posthouse_queue_oldest_message_age_seconds %lld\n",
                oldest == NULL ? 0LL : (long long)(now_s() - number(oldest, "arrival_time")));
    head(b, "halted", "gauge", "Is nothing sent, because the disk does not take notes of it?");
    sbuf_printf(b, "posthouse_halted %d\n", json_is_true(json_object_get(st, "halted")));
    head(b, "queue_memory_bytes", "gauge", "Bytes of memory that envelopes of queued mail take.");
    sbuf_printf(b, "posthouse_queue_memory_bytes %lld\n", (long long)number(st, "queue_memory"));
    head(b, "crowded", "gauge", "Is new mail put off, because of queue_memory_limit?");
    sbuf_printf(b, "posthouse_crowded %d\n", json_is_true(json_object_get(st, "crowded")));
    head(b, "spool_log_bytes", "gauge", "Bytes of the spool's log on disk.");
    sbuf_printf(b, "posthouse_spool_log_bytes %lld\n", (long long)number(st, "spool_log_bytes"));
}

static void add_relay_line(struct sbuf *b, const char *name, json_t *relay, const char *more,
                           json_int_t v) {
    sbuf_printf(b, "posthouse_%s{", name);
    add_label(b, "relay=\"",
              json_member(relay, "nexthop")[0] == '\0' ? "direct" : json_member(relay, "nexthop"));
    add_label(b, ",record=\"", json_member(relay, "record"));
    sbuf_printf(b, "%s} %lld\n", more, (long long)v);
}

static void add_relays(struct sbuf *b, json_t *relays) {
    static const struct {
        const char *metric, *type, *help, *member, *labels;
    } lines[] = {
        {"relay_deliveries_total", "counter", "Recipients by relay host and result.", "sent",
         ",status=\"sent\""},
        {"relay_deliveries_total", NULL, NULL, "deferred", ",status=\"deferred\""},
        {"relay_deliveries_total", NULL, NULL, "bounced", ",status=\"bounced\""},
        {"relay_waiting_messages", "gauge", "Queued messages last tried at a relay host.",
         "waiting", ""},
        {"relay_last_success_timestamp_seconds", "gauge", "When mail was last sent there.",
         "last_success", ""},
        {"relay_resting_until_timestamp_seconds", "gauge",
         "Until when no mail is tried there; 0: it is.", "resting_until", ""},
        {"relay_certificate_expiry_timestamp_seconds", "gauge",
         "When its certificate expires; 0: not known.", "certificate_until", ""},
    };
    json_t *one;
    size_t i;
    for (size_t k = 0; k < sizeof lines / sizeof lines[0]; k++) {
        if (lines[k].type != NULL)
            head(b, lines[k].metric, lines[k].type, lines[k].help);
        json_array_foreach(relays, i, one) {
            add_relay_line(b, lines[k].metric, one, lines[k].labels, number(one, lines[k].member));
        }
    }
}

/* Is the server asked for by an address, by a name without a dot or by its own?  A foreign
 * page can lead a browser to this machine by a name of its own (DNS rebinding); its requests have
 * that name. */
static bool metrics_by_own_name(struct req *r) {
    const char *text = req_header(r, "Host");
    struct str host = str_of(text == NULL ? "" : text);
    bool bracket = host.n > 0 && host.p[0] == '[';
    ptrdiff_t end = bracket ? str_chr(host, ']') : str_rchr(host, ':');
    struct netaddr a;
    host = str_make(host.p + bracket, (end < 0 ? host.n : (size_t)end) - bracket);
    return str_chr(host, '.') < 0 || netaddr_parse(&a, host, 0) ||
           str_ieq_c(host, r->w->cfg->p.myhostname);
}

/* A scraper on this machine needs no token; one that comes by way of the proxy does. */
static bool metrics_allowed(struct req *r) {
    bool here = strncmp(r->client, "127.", 4) == 0 || strcmp(r->client, "::1") == 0 ||
                strcmp(r->client, "local") == 0;
    if (r->direct && here && metrics_by_own_name(r))
        return true;
    if (!session_identify(r))
        return false;
    if (r->who.global && (r->who.scopes & SCOPE_METRICS) != 0)
        return true;
    reply_fail(r, MHD_HTTP_FORBIDDEN, "Permission denied.");
    return false;
}

void metrics_show(struct req *r) {
    struct sbuf b = {0};
    if (!metrics_allowed(r))
        return;
    json_t *stats = daemon_ask(r->w, "stats");
    json_t *relays = stats == NULL ? NULL : daemon_ask(r->w, "relays");
    head(&b, "up", "gauge", "Does posthoused answer?");
    sbuf_printf(&b, "posthouse_up %d\n", stats != NULL && relays != NULL);
    if (stats != NULL && relays != NULL) {
        add_stats(&b, json_array_get(stats, 0));
        add_relays(&b, relays);
    }
    reply_text(r, MHD_HTTP_OK, "text/plain; version=0.0.4", sbuf_str(&b));
    sbuf_free(&b);
    json_decref(stats);
    json_decref(relays);
}

/* The daemon looks through its queue for its numbers, and strangers may ask for its health: however
 * many do, it is asked once a second, and not by two at a time.  While one waits for a daemon that
 * hangs, the others have what it said last: they take no places from those who would look why.
 * NULL: it does not answer. */
static json_t *stats_of_late(struct web *w) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t told = PTHREAD_COND_INITIALIZER;
    static json_t *last;
    static int64_t until_ms; /* 0: it was never asked */
    static bool asking;
    pthread_mutex_lock(&lock);
    while (asking && until_ms == 0)
        pthread_cond_wait(&told, &lock);
    if (!asking && clock_mono_ms() >= until_ms) {
        asking = true;
        pthread_mutex_unlock(&lock);
        json_t *now = daemon_ask(w, "stats");
        pthread_mutex_lock(&lock);
        json_decref(last);
        last = now;
        until_ms = clock_mono_ms() + HEALTH_MS;
        asking = false;
        pthread_cond_broadcast(&told);
    }
    json_t *copy = json_deep_copy(last);
    pthread_mutex_unlock(&lock);
    return copy;
}

void health_show(struct req *r) {
    json_t *stats = stats_of_late(r->w);
    bool halted = json_is_true(json_object_get(json_array_get(stats, 0), "halted"));
    if (stats == NULL)
        reply_text(r, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain",
                   STR_LIT("posthoused does not answer\n"));
    else if (halted)
        reply_text(r, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain",
                   STR_LIT("nothing is sent: the disk does not take down what becomes of mail\n"));
    else
        reply_text(r, MHD_HTTP_OK, "text/plain", STR_LIT("ok\n"));
    json_decref(stats);
}
