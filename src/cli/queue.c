/*
 * cli/queue.c - posthouse queue: list and show messages, and give orders about them
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/listing.h"
#include "cli/message.h"
#include "cli/orders.h"
#include "util/htab.h"
#include "util/str.h"

static int queue_usage(void) {
    fputs("usage: posthouse queue list [--json] [FILTER …] [ID …]\n"
          "       posthouse queue show [--json|--content] ID\n"
          "       posthouse queue flush\n"
          "       posthouse queue delete|retry|hold|release|expire [FILTER …] ID …|ALL\n"
          "FILTER: active, deferred, hold, --sender TEXT, --recipient TEXT, --reason TEXT,\n"
          "        --relay NEXTHOP, --site DOMAIN; \"-\" reads IDs from standard input.\n"
          "TEXT is any part; user@domain is that address alone, @domain all of that domain.\n",
          stderr);
    return EX_USAGE_;
}

/* What the arguments ask for. */
struct choice {
    json_t *filter; /* members of a request, without ids */
    struct idlist ids;
    bool listed;   /* IDs were asked for, though standard input may have named none */
    bool mistaken; /* one of them was none */
    bool all;
};

/* The name of the filter that a, an option, is; NULL: it is none. */
static const char *filter_name(const char *a) {
    static const char *const names[] = {"sender", "recipient", "reason", "relay", "site"};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
        if (strncmp(a, "--", 2) == 0 && strcmp(a + 2, names[k]) == 0)
            return names[k];
    return NULL;
}

/* An empty text, as a variable of a shell that is not set gives it, one that a request cannot hold,
 * and a filter that another one of its kind replaces would be for more mail than was meant; so
 * would a whole address that is looked for in longer ones.
 * (--relay "" is direct delivery.) */
static bool filter_add(struct choice *c, const char *name, const char *text) {
    const char *wrong = NULL;
    if (*text == '\0' && strcmp(name, "relay") != 0)
        wrong = "empty";
    else if (json_object_get(c->filter, name) != NULL)
        wrong = "given twice";
    else if (json_object_set_new(c->filter, name, json_string(text)) < 0)
        wrong = "not UTF-8";
    else
        json_object_set_new(c->filter, "whole", json_true());
    if (wrong != NULL)
        fprintf(stderr, "posthouse: queue: %s is %s\n", name, wrong);
    return wrong == NULL;
}

/* Takes the arguments from at on; an exit status, after saying what is not understood. */
static int choice_take(struct choice *c, int argc, char **argv, int at) {
    c->filter = json_object();
    for (int i = at; i < argc; i++) {
        const char *a = argv[i], *name = i + 1 < argc ? filter_name(a) : NULL;
        if (name != NULL) {
            if (!filter_add(c, name, argv[++i]))
                return queue_usage();
        } else if (strcmp(a, "active") == 0 || strcmp(a, "deferred") == 0 ||
                   strcmp(a, "hold") == 0) {
            if (!filter_add(c, "queue", a))
                return queue_usage();
        } else if (strcmp(a, "ALL") == 0) {
            c->all = true;
        } else if (strcmp(a, "-") == 0 || idlist_valid(a)) {
            c->listed = true;
            c->mistaken = !idlist_add(&c->ids, "posthouse", a) || c->mistaken;
        } else {
            fprintf(stderr, "posthouse: queue %s: %s is no filter and no queue ID\n", argv[1], a);
            return queue_usage();
        }
    }
    return EX_OK_;
}

static void choice_free(struct choice *c) {
    json_decref(c->filter);
    idlist_free(&c->ids);
}

/* Says of each ID that no message of msgs, which fit the filter, has it; how many.  acted: what an
 * order does nothing to does not count. */
static size_t missing_say(const struct choice *c, json_t *msgs, bool acted) {
    struct htab there = {0};
    size_t i, missing = 0;
    json_t *msg;
    json_array_foreach(msgs, i, msg) {
        if (!acted || strcmp(listing_text(msg, "queue_name"), "unreadable") != 0)
            htab_put(&there, str_of(listing_text(msg, "queue_id")), msg);
    }
    for (i = 0; i < c->ids.n; i++) {
        if (htab_get(&there, str_of(c->ids.v[i])) != NULL)
            continue;
        fprintf(stderr, "posthouse: %s: there is no such message%s\n", c->ids.v[i],
                json_object_size(c->filter) > 0 ? " that fits" : "");
        missing++;
    }
    htab_free(&there);
    return missing;
}

/* The messages with the IDs, in the order of the queue for each IDS_AT_ONCE of them. */
static int listed_fetch(const struct config *cfg, const struct choice *c, json_t **msgs) {
    int rc = EX_OK_;
    *msgs = json_array();
    for (size_t i = 0; i < c->ids.n && rc == EX_OK_; i += IDS_AT_ONCE) {
        json_t *filter = json_copy(c->filter), *some = NULL;
        json_object_set_new(filter, "ids", idlist_some(&c->ids, i));
        rc = listing_fetch("posthouse", cfg, filter, &some);
        if (rc == EX_OK_) {
            json_array_extend(*msgs, some);
            json_decref(some);
        }
    }
    if (rc != EX_OK_)
        json_decref(*msgs);
    return rc;
}

static int choice_list(const struct config *cfg, struct choice *c, bool json) {
    json_t *msgs = NULL;
    if (json && !c->listed)
        return listing_stream("posthouse", cfg, json_copy(c->filter));
    int rc = c->listed ? listed_fetch(cfg, c, &msgs)
                       : listing_fetch("posthouse", cfg, json_copy(c->filter), &msgs);
    if (rc != 0)
        return rc;
    size_t missing = missing_say(c, msgs, false);
    if (json)
        listing_print_json(msgs);
    else if (json_array_size(msgs) > 0 || (!c->listed && json_object_size(c->filter) == 0))
        listing_print(cfg, msgs);
    else if (!c->listed)
        puts("No message of the queue fits");
    json_decref(msgs);
    return missing > 0 || c->mistaken ? 1 : 0;
}

static const struct queue_action {
    const char *word, *cmd, *said;
    const char *were; /* of those that it was for, the ones that were changed were this */
} actions[] = {{"delete", "queue-delete", "Deleted", "still there"},
               {"retry", "queue-retry", "Scheduled", "deferred"},
               {"hold", "queue-hold", "Placed on hold", "not on hold"},
               {"release", "queue-release", "Released from hold", "on hold"},
               {"expire", "queue-expire", "Force-expired", "not expired yet"}};

static void action_say(const struct queue_action *a, const struct order_result *r) {
    printf("posthouse: %s: %ld message%s", a->said, r->changed, r->changed == 1 ? "" : "s");
    if (r->changed < r->matched)
        printf(" (%ld of %ld %s %s)", r->changed, r->matched, r->changed == 1 ? "was" : "were",
               a->were);
    putchar('\n');
}

/* What is not there is named. */
static int action_by_id(const struct config *cfg, const struct queue_action *a,
                        const struct choice *c, struct order_result *res) {
    json_t *msgs = NULL;
    int rc = listed_fetch(cfg, c, &msgs);
    if (rc != EX_OK_)
        return rc;
    bool missing = missing_say(c, msgs, true) > 0 || c->mistaken;
    json_decref(msgs);
    rc = order_give("posthouse", cfg, a->cmd, &c->ids, c->filter, NULL, NULL, res);
    return rc == EX_OK_ && missing ? 1 : rc;
}

static int choice_act(const struct config *cfg, const struct queue_action *a,
                      const struct choice *c) {
    struct order_result res = {0};
    if (c->all == c->listed && (c->all || json_object_size(c->filter) == 0)) {
        fprintf(stderr, "posthouse: queue %s needs queue IDs, filters or ALL\n", a->word);
        return EX_USAGE_;
    }
    int rc = c->listed ? action_by_id(cfg, a, c, &res)
                       : order_give("posthouse", cfg, a->cmd, NULL, c->filter, NULL, NULL, &res);
    if (rc == EX_OK_ || rc == 1)
        action_say(a, &res);
    return rc;
}

static int queue_flush(const struct config *cfg) {
    struct ask_end end = {0};
    int rc = cli_control_status("posthouse", cfg, "{\"cmd\": \"queue-flush\"}", NULL, NULL, &end);
    if (rc == EX_OK_)
        printf("posthouse: Scheduled: %ld message%s\n", end.count, end.count == 1 ? "" : "s");
    return rc;
}

/* What is known of a message, as the page has it: with a sentence that says what the first reason
 * means. */
static int choice_show_json(const struct config *cfg, const struct choice *c) {
    json_t *msgs = NULL;
    int rc = listed_fetch(cfg, c, &msgs);
    if (rc != 0)
        return rc;
    json_t *msg = json_array_get(msgs, 0);
    json_t *why = json_array_get(json_object_get(msg, "recipients"), 0);
    const char *advice = ask_advice(listing_text(why, "cause"), listing_text(why, "reply"));
    if (msg != NULL && advice != NULL)
        json_object_set_new(msg, "advice", json_string(advice));
    bool missing = missing_say(c, msgs, false) > 0;
    listing_print_json(msgs);
    json_decref(msgs);
    return missing ? 1 : 0;
}

static int choice_show(const struct config *cfg, const struct choice *c, bool json, bool content) {
    if (c->ids.n != 1 || json_object_size(c->filter) > 0 || c->all)
        return queue_usage();
    if (json)
        return choice_show_json(cfg, c);
    return message_show("posthouse", cfg, c->ids.v[0],
                        SHOW_ENVELOPE | SHOW_REASONS | SHOW_HEADER | (content ? SHOW_BODY : 0U));
}

static int choice_run(const struct config *cfg, const char *word, struct choice *c, bool json,
                      bool content) {
    if (strcmp(word, "show") == 0)
        return choice_show(cfg, c, json, content);
    if (content)
        return queue_usage();
    if (strcmp(word, "list") == 0)
        return choice_list(cfg, c, json);
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (strcmp(word, actions[i].word) == 0)
            return choice_act(cfg, &actions[i], c);
    if (strcmp(word, "flush") == 0)
        return c->listed || c->all || json_object_size(c->filter) > 0 ? queue_usage()
                                                                      : queue_flush(cfg);
    fprintf(stderr, "posthouse: no such queue command: %s\n", word);
    return EX_USAGE_;
}

int cli_queue(const char *dir, int argc, char **argv) {
    bool json = cli_take_flag(&argc, argv, "--json");
    bool content = cli_take_flag(&argc, argv, "--content");
    struct choice c = {0};
    if (argc < 2)
        return queue_usage();
    struct config *cfg = cli_config("posthouse", dir);
    if (cfg == NULL)
        return 1;
    int rc = choice_take(&c, argc, argv, 2);
    if (rc == EX_OK_)
        rc = choice_run(cfg, argv[1], &c, json, content);
    choice_free(&c);
    return rc;
}
