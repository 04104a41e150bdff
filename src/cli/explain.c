/*
 * cli/explain.c - posthouse explain and posthouse test: what the daemon says of a road
 *
 * The daemon takes the steps (daemon/explain.c); this shows them.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "util/mem.h"

struct shown {
    bool json, test;
    char *failed;   /* the first step that failed; NULL: none */
    char *next_hop; /* of the road; NULL: not known */
};

static const char *member(json_t *o, const char *name) {
    const char *s = json_string_value(json_object_get(o, name));
    return s == NULL ? "" : s;
}

static void show_asked(json_t *o) {
    size_t i;
    json_t *a;
    json_array_foreach(json_object_get(o, "asked"), i, a) {
        const char *value = json_string_value(json_object_get(a, "value"));
        const char *source = member(a, *member(a, "source") != '\0' ? "source" : "why");
        printf("      %-9s  ", member(a, "answer"));
        cli_put_safe(member(a, "key"));
        fputs("  in ", stdout);
        cli_put_safe(member(a, "table"));
        if (value != NULL) {
            fputs("  = \"", stdout);
            cli_put_safe(value);
            putchar('"');
        }
        if (*source != '\0') {
            fputs("\n                 (", stdout);
            cli_put_safe(source);
            putchar(')');
        }
        putchar('\n');
    }
}

/* What a step says besides its result. */
static void show_more(json_t *o) {
    static const char *const names[] = {"set_at", "subject",       "issuer", "verifies",
                                        "dsn",    "mail_would_be", "advice"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (*member(o, names[i]) == '\0')
            continue;
        fputs("      ", stdout);
        for (const char *p = names[i]; *p != '\0'; p++)
            putchar(*p == '_' ? ' ' : *p);
        fputs(": ", stdout);
        cli_put_safe(member(o, names[i]));
        putchar('\n');
    }
    if (json_object_get(o, "days_left") != NULL)
        printf("      days left: %d\n", (int)json_integer_value(json_object_get(o, "days_left")));
}

static void show_step(void *arg, struct str line) {
    struct shown *w = arg;
    if (w->json) {
        cli_put_json(line);
        fflush(stdout);
        return;
    }
    json_t *o = json_loadb(line.p, line.n, 0, NULL), *pass = json_object_get(o, "pass");
    if (w->test && json_object_get(o, "ms") != NULL)
        printf("%-4s  %-12s %8.1f ms  ", json_is_true(pass) ? "ok" : "FAIL", member(o, "step"),
               json_real_value(json_object_get(o, "ms")));
    else
        printf("%s%s: ", json_is_false(pass) ? "FAIL  " : "", member(o, "step"));
    cli_put_safe(member(o, "result"));
    putchar('\n');
    if (json_is_false(pass) && w->failed == NULL)
        w->failed = mem_strdup(member(o, "step"));
    if (w->next_hop == NULL && *member(o, "next_hop") != '\0')
        w->next_hop = mem_strdup(member(o, "next_hop"));
    show_asked(o);
    show_more(o);
    fflush(stdout);
    json_decref(o);
}

/* As cli_control; passed: of all steps. */
static int explain_ask(struct shown *w, const struct config *cfg, const char *word,
                       const char *sender, const char *recipient, bool *passed) {
    json_t *o = json_pack("{s:s, s:s, s:s}", "cmd", word, "sender", sender, "recipient", recipient);
    char *request = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (request == NULL) {
        fputs("posthouse: fatal: an address is not UTF-8\n", stderr);
        return EX_USAGE_;
    }
    struct ask_end end = {0};
    int rc = cli_control("posthouse", cfg, request, show_step, w, &end);
    free(request);
    *passed = rc == 0 && end.passed;
    return rc < 0 ? EX_UNAVAILABLE_ : 0;
}

static int explain_run(const char *word, const char *dir, int argc, char **argv) {
    struct shown w = {.json = cli_take_flag(&argc, argv, "--json"),
                      .test = strcmp(word, "test") == 0};
    bool passed = false;
    if (argc < 2 || argc > 3 || argv[1][0] == '-' || (argc == 3 && argv[2][0] == '-')) {
        fprintf(stderr, "usage: posthouse %s SENDER [RECIPIENT] [--json]   (SENDER <>: a bounce)\n",
                word);
        return EX_USAGE_;
    }
    struct config *cfg = cli_config("posthouse", dir);
    if (cfg == NULL)
        return 1;
    int rc = explain_ask(&w, cfg, word, argv[1], argc > 2 ? argv[2] : "", &passed);
    free(w.failed);
    free(w.next_hop);
    if (rc != 0)
        return rc;
    if (w.test && !w.json)
        puts(passed ? "all stages passed" : "it would not go through: see above");
    return passed ? 0 : 1;
}

bool cli_test_road(const struct config *cfg, const char *sender, char **failed, char **next_hop) {
    struct shown w = {.test = true};
    bool passed = false;
    explain_ask(&w, cfg, "test", sender, "", &passed);
    *next_hop = w.next_hop != NULL ? w.next_hop : mem_strdup("");
    *failed = passed || w.failed != NULL ? w.failed : mem_strdup("");
    return passed;
}

int cli_explain(const char *dir, int argc, char **argv) {
    return explain_run("explain", dir, argc, argv);
}

int cli_test(const char *dir, int argc, char **argv) {
    return explain_run("test", dir, argc, argv);
}
