/*
 * schedule/dest.c - destinations: their sessions, concurrency, rest after failure
 *
 * A destination that fails as a whole (no host answers, login refused), as often in a row as it may
 * have sessions, rests for minimal_backoff_time; what is queued for it is deferred with "delivery
 * temporarily suspended", and no other destination notices.  postqueue -f wakes it.  Ticks look at
 * what is idle or held back by a rate delay, never at all destinations.
 */
#include "schedule/dest.h"

#include <stdlib.h>
#include <string.h>

#include "route/record.h"
#include "util/mem.h"

#define DEPTH        3U /* attempts per session when there is more work than sessions */
#define SLOT_IDLE_MS 10000
#define DEST_IDLE_MS 60000
/* Destinations that nothing waits for and that are remembered all the same. */
#define DESTS_IDLE_MAX 4096U
/* What one tick looks at, so that it is short whatever there is. */
#define TICK_LOOKS 1024U

static void dest_limits(struct sched *s, struct dest *d) {
    int64_t limit = config_transport_int(s->cfg, d->transport, "destination_concurrency_limit");
    int64_t delay = config_transport_int(s->cfg, d->transport, "destination_rate_delay");
    d->max_window = limit <= 0 ? 1000 : (unsigned)limit;
    d->rate_delay_ms = delay * 1000;
    if (delay > 0)
        d->max_window = 1;
}

static unsigned first_window(struct sched *s, const struct dest *d) {
    int64_t w = s->cfg->p.initial_destination_concurrency;
    return w <= 0 || w > d->max_window ? d->max_window : (unsigned)w;
}

/* All direct delivery is one: its next hops are the world's domains. */
static struct hop *dest_hop(struct sched *s, const struct dest *d) {
    struct record rec;
    if (!d->configured)
        return tally_hop(&s->tally, STR_LIT(""), STR_LIT(""));
    if (d->record[0] == '\0' || !record_parse(&rec, str_of(d->record)))
        return tally_hop(&s->tally, str_of(d->nexthop), STR_LIT(""));
    struct hop *h = tally_hop(&s->tally, str_of(d->nexthop), str_of(rec.name));
    record_free(&rec);
    return h;
}

/* Suspends the destination until until_ms. */
static void dest_suspend(struct dest *d, int64_t until_ms) {
    d->dead_until = until_ms;
    if (d->configured) /* of direct delivery, each destination rests for itself */
        d->hop->resting_ms = until_ms;
}

void dest_wake(struct dest *d) {
    dest_suspend(d, 0);
}

static uint64_t dest_hash(const struct dest_key *k) {
    uint64_t seed = KSET_SEED + k->configured + 2U * k->tls_optional + 4U * k->filter;
    uint64_t h = kset_mix(seed, str_of(k->transport));
    return kset_mix(kset_mix_folded(h, k->nexthop), k->record);
}

static bool dest_same(const void *val, const void *key) {
    const struct dest *d = val;
    const struct dest_key *k = key;
    return d->configured == k->configured && d->tls_optional == k->tls_optional &&
           d->filter == k->filter && strcmp(d->transport, k->transport) == 0 &&
           str_ieq(str_of(d->nexthop), k->nexthop) && str_eq_c(k->record, d->record);
}

static struct transport_load *load_get(struct sched *s, const char *transport) {
    struct transport_load *load = htab_get(&s->loads, str_of(transport));
    if (load != NULL)
        return load;
    load = MEM_NEW(struct transport_load);
    load->name = mem_strdup(transport);
    for (int kind = 0; kind < DEST_KINDS; kind++) {
        dl_init(&load->idle[kind]);
        dl_init(&load->starving[kind]);
    }
    htab_put(&s->loads, str_of(load->name), load);
    return load;
}

static struct dest *dest_new(struct sched *s, const struct dest_key *k, uint64_t hash) {
    struct dest *d = MEM_NEW(struct dest);
    d->hash = hash;
    d->transport = mem_strdup(k->transport);
    d->nexthop = str_dup(k->nexthop);
    d->record = str_dup(k->record);
    d->configured = k->configured;
    d->tls_optional = k->tls_optional;
    d->filter = k->filter;
    dl_init(&d->senders);
    dl_init(&d->forming);
    dl_init(&d->slots);
    d->hop = dest_hop(s, d);
    d->load = load_get(s, d->transport);
    dest_limits(s, d);
    d->window = first_window(s, d);
    kset_add(&s->dests, hash, d);
    d->used_ms = s->loop->now_ms;
    dl_push(&s->idle_dests, &d->idle);
    s->n_idle_dests++;
    return d;
}

void dest_use(struct dest *d) {
    d->users++;
}

/* A destination without users stays for a while, in the order of last use. */
void dest_unuse(struct sched *s, struct dest *d) {
    if (--d->users > 0)
        return;
    d->used_ms = s->loop->now_ms;
    if (dl_linked(&d->idle))
        dl_remove(&d->idle);
    else
        s->n_idle_dests++;
    dl_push(&s->idle_dests, &d->idle);
}

struct dest *dest_get(struct sched *s, const struct route *r, const struct envelope *e) {
    bool tls_optional = !r->configured && (e->flags & ENV_TLS_OPTIONAL) != 0;
    struct dest_key key = {r->transport->name, sbuf_str(&r->nexthop), sbuf_str(&r->record),
                           r->configured,      tls_optional,          r->filter};
    uint64_t hash = dest_hash(&key);
    struct dest *d = kset_get(&s->dests, hash, dest_same, &key);
    return d == NULL ? dest_new(s, &key, hash) : d;
}

static void dest_free(struct sched *s, struct dest *d) {
    kset_remove(&s->dests, d->hash, d);
    dl_remove(&d->idle);
    dl_remove(&d->paced);
    dl_remove(&d->starving);
    s->n_idle_dests--;
    htab_free(&d->by_sender);
    mailerr_free(&d->dead_err);
    free(d->transport);
    free(d->nexthop);
    free(d->record);
    free(d);
}

const struct service *dest_service(const struct sched *s, const struct dest *d) {
    const struct service *t = config_transport(s->cfg, str_of(d->transport));
    return t != NULL && service_is_client(t) && refusals_first(&t->refusals) == NULL ? t : NULL;
}

/* Does a session keep to one sender, because it has that sender's login? */
static bool dest_is_per_sender(const struct sched *s, const struct dest *d) {
    const struct service *t = config_transport(s->cfg, str_of(d->transport));
    if (t == NULL || !t->p.smtp_sender_dependent_authentication || d->filter)
        return false;
    /* A relay record has one account for all senders, and none for the fallback relay. */
    return d->record[0] == '\0' || t->p.smtp_fallback_relay[0] != '\0';
}

void dest_stir(struct sched *s, struct dest *d) {
    dl_remove(&d->starving);
    if (!dl_linked(&d->stirred))
        dl_push(&s->stirred, &d->stirred);
}

static enum dest_kind dest_kind(const struct dest *d) {
    return d->configured ? DEST_CHOSEN : DEST_DIRECT;
}

static bool slot_fits(const struct slot *slot, struct str sender) {
    return slot->sender == NULL || str_eq_c(sender, slot->sender);
}

static struct slot *slot_new(struct sched *s, struct dest *d) {
    struct slot *slot = MEM_NEW(struct slot);
    slot->d = d;
    slot->s = s;
    slot->session = s->ops.session_new(s->ops.arg, slot);
    dl_push(&d->slots, &slot->link);
    d->n_slots++;
    d->load->n_slots++;
    d->load->n_direct += dest_kind(d) == DEST_DIRECT;
    dest_use(d);
    return slot;
}

static void slot_free(struct slot *slot) {
    struct dest *d = slot->d;
    slot->s->ops.session_release(slot->session);
    dl_remove(&slot->link);
    dl_remove(&slot->idle);
    dl_remove(&slot->idle_of_load);
    d->n_slots--;
    d->load->n_slots--;
    d->load->n_direct -= dest_kind(d) == DEST_DIRECT;
    dest_unuse(slot->s, d);
    free(slot->sender);
    free(slot);
}

/* How many sessions a transport may have. */
struct load_limits {
    size_t all;    /* of both kinds */
    size_t direct; /* of all: of DEST_DIRECT */
};

/* Those of the destination's transport: as many as its process limit in master.cf says.  One that
 * master.cf leaves to default_process_limit has more, for a session here costs kilobytes, not a
 * process.  However many there may be, they leave descriptors to clients: hosts that never answer
 * are as many as a sender likes.  Where the administrator has not chosen the number, recipients'
 * own exchangers leave a quarter to the hosts that are chosen. */
static struct load_limits load_limits(const struct sched *s, const struct dest *d) {
    const struct service *t = config_transport(s->cfg, str_of(d->transport));
    bool chosen = t != NULL && t->maxproc > 0;
    int64_t n = t == NULL ? 0 : t->maxproc;
    if (n < 0)
        n = t->p.default_process_limit * SESSIONS_PER_PROC;
    size_t max = n > 0 && (size_t)n < s->slots_max ? (size_t)n : s->slots_max;
    return (struct load_limits){max, chosen ? max : max - max / 4};
}

/* Have the direct destinations of its transport, of which it is one, all that they may have? */
static bool load_direct_is_full(const struct dest *d, const struct load_limits *max) {
    return dest_kind(d) == DEST_DIRECT && d->load->n_direct >= max->direct;
}

static bool load_is_full(const struct dest *d, const struct load_limits *max) {
    return d->load->n_slots >= max->all || load_direct_is_full(d, max);
}

/* The idle session that makes room for one of the destination, or NULL.  Direct destinations take
 * the place of a chosen host's session only while they have less than they may have. */
static struct slot *load_victim(const struct dest *d, const struct load_limits *max) {
    struct dl *idle = d->load->idle;
    if (!dl_empty(&idle[DEST_DIRECT]))
        return DL_OWNER(idle[DEST_DIRECT].next, struct slot, idle_of_load);
    if (!dl_empty(&idle[DEST_CHOSEN]) && !load_direct_is_full(d, max))
        return DL_OWNER(idle[DEST_CHOSEN].next, struct slot, idle_of_load);
    return NULL;
}

/* Idle sessions go until the limit is met, which a reload may have lowered. */
static void load_shrink(const struct dest *d, const struct load_limits *max) {
    for (int kind = DEST_DIRECT; kind >= 0; kind--)
        while (d->load->n_slots > max->all && !dl_empty(&d->load->idle[kind]))
            slot_free(DL_OWNER(d->load->idle[kind].next, struct slot, idle_of_load));
}

/* May one destination of the kind that waits have a session now? */
static bool load_stir_kind(struct sched *s, struct transport_load *load, enum dest_kind kind) {
    if (dl_empty(&load->starving[kind]))
        return false;
    struct dest *d = DL_OWNER(load->starving[kind].next, struct dest, starving);
    struct load_limits max = load_limits(s, d);
    bool may = !load_is_full(d, &max) || load_victim(d, &max) != NULL;
    if (may)
        dest_stir(s, d);
    return may;
}

/* The kinds have turns: one that always has a backlog would keep the other from any session. */
void load_stir(struct sched *s, struct transport_load *load) {
    enum dest_kind first = load->turn, other = first == DEST_CHOSEN ? DEST_DIRECT : DEST_CHOSEN;
    if (load_stir_kind(s, load, first))
        load->turn = other;
    else
        load_stir_kind(s, load, other);
}

void slot_reserve(struct slot *slot, struct str sender) {
    dl_remove(&slot->idle);
    dl_remove(&slot->idle_of_load);
    slot->d->n_busy += slot->depth == 0;
    slot->depth++;
    slot->d->depth++;
    free(slot->sender);
    slot->sender = dest_is_per_sender(slot->s, slot->d) ? str_dup(sender) : NULL;
}

void slot_release(struct slot *slot) {
    slot->depth--;
    slot->d->depth--;
    slot->idle_ms = slot->s->loop->now_ms;
    if (slot->depth > 0)
        return;
    slot->d->n_busy--;
    dl_push(&slot->s->idle_slots, &slot->idle);
    dl_push(&slot->d->load->idle[dest_kind(slot->d)], &slot->idle_of_load);
    load_stir(slot->s, slot->d->load);
}

/* A new session, in the place of another destination's idle one where there is a limit; or NULL:
 * the destination has its turn when a session of the transport is idle again. */
static struct slot *dest_open(struct sched *s, struct dest *d, const struct load_limits *max) {
    struct slot *victim = load_is_full(d, max) ? load_victim(d, max) : NULL;
    if (victim != NULL)
        slot_free(victim);
    if (!load_is_full(d, max))
        return slot_new(s, d);
    if (!dl_linked(&d->starving))
        dl_push(&d->load->starving[dest_kind(d)], &d->starving);
    return NULL;
}

/* Does another destination of the transport wait for a session that this one has? */
static bool load_is_wanted(const struct dest *d, const struct load_limits *max) {
    const struct dl *starving = d->load->starving;
    if (!dl_empty(&starving[DEST_CHOSEN]))
        return true;
    if (dl_empty(&starving[DEST_DIRECT]))
        return false;
    return dest_kind(d) == DEST_DIRECT || d->load->n_direct < max->direct;
}

/* May a session be given more than it is at?  Not while another destination of the transport has
 * none, or there are more sessions than a limit allows: one that always has more to do is never
 * idle. */
static bool dest_may_deepen(const struct sched *s, const struct dest *d,
                            const struct load_limits *max) {
    return d->rate_delay_ms == 0 && d->window == d->max_window && d->n_busy <= d->window &&
           !load_is_wanted(d, max) && d->load->n_slots <= max->all && body_files() < s->slots_max;
}

struct slot *dest_pick(struct sched *s, struct dest *d, struct str sender) {
    struct slot *other = NULL, *least = NULL;
    bool room = d->n_busy < d->window;
    struct load_limits max = load_limits(s, d);
    load_shrink(d, &max);
    DL_EACH (it, &d->slots) {
        struct slot *slot = DL_OWNER(it, struct slot, link);
        if (slot->depth == 0 && room && slot_fits(slot, sender))
            return slot;
        if (slot->depth == 0)
            other = slot;
        else if (slot_fits(slot, sender) && slot->depth < DEPTH &&
                 (least == NULL || slot->depth < least->depth))
            least = slot;
    }
    if (room && other != NULL && (d->n_slots >= d->window || load_is_full(d, &max)))
        return other;
    if (room)
        return dest_open(s, d, &max);
    return dest_may_deepen(s, d, &max) ? least : NULL;
}

/* What was wrong with the site as a whole, or NULL.  A bounce is no reason to rest: other mail is
 * given up at once, too. */
static const struct mailerr *attempt_site_error(const struct attempt *a) {
    for (uint32_t i = 0; i < a->n; i++)
        if (a->tried[i] && a->res[i].blame == BLAME_SITE && a->res[i].status == MAIL_DEFERRED)
            return &a->res[i];
    return NULL;
}

/* Did the site take part, whatever it said of the mail?  What failed on our side says nothing. */
static bool attempt_site_worked(const struct attempt *a) {
    for (uint32_t i = 0; i < a->n; i++)
        if (a->tried[i] && a->res[i].blame != BLAME_SITE && a->res[i].blame != BLAME_OURSELVES)
            return true;
    return false;
}

/* A failure is the part of a cohort that its session is of the window, as in Postfix: a host that
 * turns away one session of many for now does not hold up the others. */
static void dest_failed(struct sched *s, struct dest *d, const struct mailerr *e) {
    int64_t limit =
        config_transport_int(s->cfg, d->transport, "destination_concurrency_failed_cohort_limit");
    d->failed_cohorts += 1.0 / d->window;
    if (d->window > 1)
        d->window--;
    if (limit <= 0 || d->failed_cohorts < (double)limit || d->dead_until > s->loop->now_ms)
        return;
    dest_suspend(d, s->loop->now_ms + s->cfg->p.minimal_backoff_time * 1000);
    mailerr_copy(&d->dead_err, e);
    d->window = first_window(s, d);
    d->failed_cohorts = 0;
}

void dest_learn(struct sched *s, struct dest *d, const struct attempt *a) {
    const struct mailerr *e = attempt_site_error(a);
    if (a->cfg != s->cfg)
        return;
    if (e != NULL) {
        dest_failed(s, d, e);
    } else if (attempt_site_worked(a)) {
        d->failed_cohorts = 0;
        if (d->window < d->max_window)
            d->window++;
    }
}

void dest_wake_all(struct sched *s) {
    size_t pos = 0;
    for (struct dest *d; (d = kset_next(&s->dests, &pos)) != NULL;) {
        dest_wake(d);
        d->failed_cohorts = 0;
        dest_limits(s, d);
        if (d->window > d->max_window)
            d->window = d->max_window;
        if (d->queued > 0 && d->rate_delay_ms > 0 && !dl_linked(&d->paced))
            dl_push(&s->paced, &d->paced);
    }
}

static void slots_tick(struct sched *s, int64_t now_ms) {
    while (!dl_empty(&s->idle_slots)) {
        struct slot *slot = DL_OWNER(s->idle_slots.next, struct slot, idle);
        if (now_ms - slot->idle_ms <= SLOT_IDLE_MS)
            return;
        slot_free(slot);
    }
}

/* Does the destination rest, or is its rate delay not over yet? */
static bool dest_holds_back(const struct dest *d, int64_t now_ms) {
    return d->dead_until > now_ms || d->not_before > now_ms;
}

/* Frees what nothing has waited for in DEST_IDLE_MS; what holds mail back is remembered while there
 * is room. */
static void idle_tick(struct sched *s, int64_t now_ms) {
    for (unsigned i = 0; i < TICK_LOOKS && !dl_empty(&s->idle_dests); i++) {
        struct dest *d = DL_OWNER(s->idle_dests.next, struct dest, idle);
        bool full = s->n_idle_dests > DESTS_IDLE_MAX;
        if (!full && now_ms - d->used_ms <= DEST_IDLE_MS)
            return;
        if (d->users > 0) { /* it is back when the last of them goes */
            dl_remove(&d->idle);
            s->n_idle_dests--;
        } else if (full || !dest_holds_back(d, now_ms)) {
            dest_free(s, d);
        } else {
            d->used_ms = now_ms;
            dl_remove(&d->idle);
            dl_push(&s->idle_dests, &d->idle);
        }
    }
}

void dest_tick(struct sched *s, int64_t now_ms) {
    slots_tick(s, now_ms);
    idle_tick(s, now_ms);
}
