/*
 * cli/listing.c - messages of the queue as the commands list them; see listing.h
 */
#include "cli/listing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/mem.h"

const char *listing_text(json_t *msg, const char *name) {
    const char *s = json_string_value(json_object_get(msg, name));
    return s == NULL ? "" : s;
}

static void listing_keep(void *arg, struct str line) {
    json_t *o = json_loadb(line.p, line.n, 0, NULL);
    if (o != NULL)
        json_array_append_new(arg, o);
}

static int listing_ask(const char *who, const struct config *cfg, json_t *filter, ask_line_fn fn,
                       void *arg) {
    json_t *req = filter == NULL ? json_object() : filter;
    json_object_set_new(req, "cmd", json_string("queue-list"));
    char *text = json_dumps(req, 0);
    struct ask_end end = {0};
    json_decref(req);
    int rc = cli_control_status(who, cfg, text, fn, arg, &end);
    free(text);
    if (end.halted)
        fprintf(stderr,
                "%s: warning: nothing is sent: the disk does not take down what becomes of mail "
                "(is it full?)\n",
                who);
    if (end.crowded)
        fprintf(stderr,
                "%s: warning: new mail is put off (452 4.3.1): the envelopes of queued mail take "
                "queue_memory_limit or more\n",
                who);
    return rc;
}

int listing_fetch(const char *who, const struct config *cfg, json_t *filter, json_t **msgs) {
    *msgs = json_array();
    int rc = listing_ask(who, cfg, filter, listing_keep, *msgs);
    if (rc != 0)
        json_decref(*msgs);
    return rc;
}

static void listing_print_line(void *arg, struct str line) {
    (void)arg;
    cli_put_json(line);
}

int listing_stream(const char *who, const struct config *cfg, json_t *filter) {
    return listing_ask(who, cfg, filter, listing_print_line, NULL);
}

/* Recipients, each group after the reason that they share. */
static void print_rcpts(json_t *o, bool wide) {
    size_t i;
    json_t *r;
    const char *last = NULL;
    json_array_foreach(json_object_get(o, "recipients"), i, r) {
        const char *why = json_string_value(json_object_get(r, "delay_reason"));
        if (why != NULL && (last == NULL || strcmp(why, last) != 0)) {
            int pad = 76 - (int)strlen(why);
            printf("%*s(", pad > 0 ? pad : 0, "");
            cli_put_safe(why);
            puts(")");
            last = why;
        }
        printf(wide ? "%-46s " : "%-40s ", "");
        cli_put_safe(listing_text(r, "address"));
        putchar('\n');
    }
}

static void print_one(json_t *o, bool wide) {
    struct sbuf id = {0}, when = {0};
    const char *q = listing_text(o, "queue_name");
    sbuf_printf(&id, "%s%s%s", listing_text(o, "queue_id"),
                strcmp(q, "active") == 0       ? "*"
                : strcmp(q, "hold") == 0       ? "!"
                : strcmp(q, "unreadable") == 0 ? "?"
                                               : "",
                json_is_true(json_object_get(o, "forced_expire")) ? "#" : "");
    clock_add_asctime(&when, json_integer_value(json_object_get(o, "arrival_time")) * 1000000);
    long long size = json_integer_value(json_object_get(o, "message_size"));
    if (wide)
        printf("%-17s %8lld %19.19s ", id.p, size, when.p);
    else
        printf("%-11s %7lld %20.20s ", id.p, size, when.p);
    cli_put_safe(listing_text(o, "sender"));
    putchar('\n');
    print_rcpts(o, wide);
    putchar('\n');
    sbuf_free(&id);
    sbuf_free(&when);
}

void listing_print(const struct config *cfg, json_t *msgs) {
    long long bytes = 0;
    bool wide = cfg->p.enable_long_queue_ids;
    size_t n = json_array_size(msgs);
    if (n == 0) {
        puts("Mail queue is empty");
        return;
    }
    puts(wide ? "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------"
              : "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------");
    for (size_t i = n; i > 0; i--) { /* the newest first */
        print_one(json_array_get(msgs, i - 1), wide);
        bytes += json_integer_value(json_object_get(json_array_get(msgs, i - 1), "message_size"));
    }
    printf("-- %lld Kbytes in %zu Request%s.\n", bytes / 1024, n, n == 1 ? "" : "s");
}

void listing_print_json(json_t *msgs) {
    size_t i;
    json_t *o;
    json_array_foreach(msgs, i, o) {
        char *text = json_dumps(o, 0);
        cli_put_json(str_of(text == NULL ? "" : text));
        free(text);
    }
}

int listing_run(const char *who, const struct config *cfg) {
    json_t *msgs;
    int rc = listing_fetch(who, cfg, NULL, &msgs);
    if (rc != 0)
        return rc;
    listing_print(cfg, msgs);
    json_decref(msgs);
    return 0;
}
