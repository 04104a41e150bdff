/*
 * cli/queue.c - queue listings and actions: posthouse queue, postqueue, mailq
 *
 * All of it goes through the daemon's control socket.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/clock.h"
#include "util/fs.h"
#include "util/mem.h"

struct listing {
    json_t **v;
    size_t n;
};

static void queue_keep(void *arg, struct str line) {
    struct listing *l = arg;
    json_t *o = json_loadb(line.p, line.n, 0, NULL);
    if (o == NULL)
        return;
    l->v = mem_realloc(l->v, (l->n + 1) * sizeof(json_t *));
    l->v[l->n++] = o;
}

static const char *queue_text(json_t *o, const char *name) {
    const char *s = json_string_value(json_object_get(o, name));
    return s == NULL ? "" : s;
}

static int by_age(const void *a, const void *b) {
    json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    json_int_t tx = json_integer_value(json_object_get(x, "arrival_time"));
    json_int_t ty = json_integer_value(json_object_get(y, "arrival_time"));
    return tx < ty   ? 1
           : tx > ty ? -1
                     : strcmp(queue_text(y, "queue_id"), queue_text(x, "queue_id"));
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
            printf("%*s(%s)\n", pad > 0 ? pad : 0, "", why);
            last = why;
        }
        printf(wide ? "%-46s %s\n" : "%-40s %s\n", "", queue_text(r, "address"));
    }
}

static void print_one(json_t *o, bool wide) {
    struct sbuf id = {0}, when = {0};
    const char *q = queue_text(o, "queue_name");
    sbuf_printf(&id, "%s%s%s", queue_text(o, "queue_id"),
                strcmp(q, "active") == 0 ? "*"
                : strcmp(q, "hold") == 0 ? "!"
                                         : "",
                json_is_true(json_object_get(o, "forced_expire")) ? "#" : "");
    clock_add_asctime(&when, json_integer_value(json_object_get(o, "arrival_time")) * 1000000);
    long long size = json_integer_value(json_object_get(o, "message_size"));
    if (wide)
        printf("%-17s %8lld %19.19s %s\n", id.p, size, when.p, queue_text(o, "sender"));
    else
        printf("%-11s %7lld %20.20s %s\n", id.p, size, when.p, queue_text(o, "sender"));
    print_rcpts(o, wide);
    putchar('\n');
    sbuf_free(&id);
    sbuf_free(&when);
}

int cli_list_queue(const char *who, const struct config *cfg) {
    struct listing l = {0};
    long long bytes = 0;
    bool wide = cfg->p.enable_long_queue_ids;
    if (cli_control(who, cfg, "{\"cmd\": \"queue-list\"}", queue_keep, &l, NULL) < 0)
        return EX_UNAVAILABLE_;
    if (l.n == 0) {
        puts("Mail queue is empty");
        return 0;
    }
    qsort(l.v, l.n, sizeof(json_t *), by_age);
    puts(wide ? "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------"
              : "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------");
    for (size_t i = 0; i < l.n; i++) {
        print_one(l.v[i], wide);
        bytes += json_integer_value(json_object_get(l.v[i], "message_size"));
    }
    printf("-- %lld Kbytes in %zu Request%s.\n", bytes / 1024, l.n, l.n == 1 ? "" : "s");
    return 0;
}

static void print_line(void *arg, struct str line) {
    (void)arg;
    printf("%.*s\n", STR_FMT(line));
}

static char *request(const char *cmd, const char *id) {
    json_t *o =
        id == NULL ? json_pack("{s:s}", "cmd", cmd) : json_pack("{s:s, s:s}", "cmd", cmd, "id", id);
    char *out = json_dumps(o, 0);
    json_decref(o);
    return out == NULL ? mem_strdup("{}") : out;
}

static int act(const char *who, const struct config *cfg, const char *cmd, const char *id,
               const char *said) {
    struct ask_end end = {0};
    char *req = request(cmd, id);
    int rc = cli_control(who, cfg, req, NULL, NULL, &end);
    free(req);
    if (rc < 0)
        return EX_UNAVAILABLE_;
    printf("%s: %s: %ld message%s\n", who, said, end.count, end.count == 1 ? "" : "s");
    return end.count > 0 || strcmp(id, "ALL") == 0 ? 0 : 1;
}

static const struct {
    const char *word, *cmd, *said;
} actions[] = {{"delete", "queue-delete", "Deleted"},
               {"retry", "queue-retry", "Scheduled"},
               {"hold", "queue-hold", "Placed on hold"},
               {"release", "queue-release", "Released from hold"},
               {"expire", "queue-expire", "Force-expired"}};

static int run_action(const struct config *cfg, int argc, char **argv) {
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        if (strcmp(argv[1], actions[i].word) != 0)
            continue;
        if (argc < 3) {
            fprintf(stderr, "posthouse: queue %s needs a queue ID or ALL\n", argv[1]);
            return EX_USAGE_;
        }
        int rc = 0;
        for (int k = 2; k < argc; k++)
            rc |= act("posthouse", cfg, actions[i].cmd, argv[k], actions[i].said);
        return rc;
    }
    fprintf(stderr, "posthouse: no such queue command: %s\n", argv[1]);
    return EX_USAGE_;
}

static int show(const struct config *cfg, const char *id) {
    char *req = request("queue-show", id);
    int rc = cli_control("posthouse", cfg, req, print_line, NULL, NULL);
    free(req);
    return rc < 0 ? EX_UNAVAILABLE_ : 0;
}

int cli_queue(const char *dir, int argc, char **argv) {
    bool json = cli_take_flag(&argc, argv, "--json");
    if (argc < 2) {
        fputs("usage: posthouse queue list|show|flush|delete|retry|hold|release|expire [--json] "
              "[ID|ALL …]\n",
              stderr);
        return EX_USAGE_;
    }
    struct config *cfg = cli_config("posthouse", dir);
    if (cfg == NULL)
        return 1;
    if (strcmp(argv[1], "list") == 0 && !json)
        return cli_list_queue("posthouse", cfg);
    if (strcmp(argv[1], "list") == 0)
        return cli_control("posthouse", cfg, "{\"cmd\": \"queue-list\"}", print_line, NULL, NULL) <
                       0
                   ? EX_UNAVAILABLE_
                   : 0;
    if (strcmp(argv[1], "show") == 0 && argc == 3)
        return show(cfg, argv[2]);
    if (strcmp(argv[1], "flush") == 0) {
        struct ask_end end = {0};
        if (cli_control("posthouse", cfg, "{\"cmd\": \"queue-flush\"}", NULL, NULL, &end) < 0)
            return EX_UNAVAILABLE_;
        printf("posthouse: Scheduled: %ld message%s\n", end.count, end.count == 1 ? "" : "s");
        return 0;
    }
    return run_action(cfg, argc, argv);
}

int cli_postqueue(const char *dir, int argc, char **argv) {
    int opt;
    char what = 0;
    const char *id = NULL;
    optind = 1;
    while ((opt = getopt(argc, argv, "c:pjfi:v")) != -1) {
        if (opt == 'c')
            dir = optarg;
        else if (opt == 'i')
            id = optarg;
        if (opt == 'p' || opt == 'j' || opt == 'f' || opt == 'i')
            what = (char)opt;
        if (opt == '?')
            what = 0;
    }
    if (what == 0) {
        fputs("postqueue: fatal: usage: postqueue -f | postqueue -i queueid | postqueue -j | "
              "postqueue -p\n",
              stderr);
        return EX_USAGE_;
    }
    struct config *cfg = cli_config("postqueue", dir);
    if (cfg == NULL)
        return 1;
    int rc = 0;
    if (what == 'p')
        return cli_list_queue("postqueue", cfg);
    if (what == 'j')
        rc = cli_control("postqueue", cfg, "{\"cmd\": \"queue-list\"}", print_line, NULL, NULL);
    if (what == 'f')
        rc = cli_control("postqueue", cfg, "{\"cmd\": \"queue-flush\"}", NULL, NULL, NULL);
    if (what == 'i') {
        char *req = request("queue-retry", id);
        rc = cli_control("postqueue", cfg, req, NULL, NULL, NULL);
        free(req);
    }
    return rc < 0 ? EX_UNAVAILABLE_ : 0;
}

int cli_mailq(const char *dir, int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "-c") == 0)
        dir = argv[2];
    struct config *cfg = cli_config("mailq", dir);
    return cfg == NULL ? 1 : cli_list_queue("mailq", cfg);
}
