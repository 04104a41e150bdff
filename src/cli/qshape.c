/*
 * cli/qshape.c - qshape(1): queued mail by domain and age
 *
 * The same tables as Postfix's script makes, of the running daemon's queue.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/listing.h"
#include "util/htab.h"
#include "util/mem.h"
#include "util/str.h"

#define BUCKETS_MAX  100
#define LIMIT_MAX    1000000000000L /* minutes: a column for more has this head, too */
#define NAME_MIN     18             /* columns of a domain, however wide the rest is */
#define TOP_TERMINAL 20             /* domains that a terminal is shown */

struct shape_row {
    char *name;
    size_t count[BUCKETS_MAX + 1]; /* 0: of all ages */
    size_t subdomains;
};

struct shape {
    bool by_sender, parents, linear;
    long buckets, minutes, width, min_subdomains, top;
    struct shape_row **v;
    size_t n;
    struct htab rows;
    time_t now;
};

static struct shape_row *shape_row(struct shape *s, struct str name) {
    struct shape_row *r = htab_get(&s->rows, name);
    if (r != NULL)
        return r;
    r = MEM_NEW(struct shape_row);
    r->name = str_dup(name);
    htab_put(&s->rows, str_of(r->name), r);
    s->v = mem_realloc(s->v, (s->n + 1) * sizeof *s->v);
    s->v[s->n++] = r;
    return r;
}

/* The column of an age. */
static size_t shape_bucket(const struct shape *s, time_t arrival) {
    double age = (double)(s->now - arrival) / (60.0 * (double)s->minutes);
    long b = 1;
    if (age < 1)
        return 1;
    if (s->linear)
        return (size_t)(age + 1 < (double)s->buckets ? (long)(age + 1) : s->buckets);
    for (double end = 1; b < s->buckets && age >= end; end *= 2)
        b++;
    return (size_t)b;
}

/* "a.b.example" counts for ".b.example", too, and the first time as one of its subdomains. */
static void shape_count_parents(struct shape *s, struct str name, size_t bucket, bool new) {
    ptrdiff_t dot;
    if (name.n > 0 && name.p[0] == '.')
        name = str_from(name, 1);
    dot = str_chr(name, '.');
    if (dot < 0 || str_chr(str_from(name, (size_t)dot + 1), '.') < 0)
        return;
    struct str parent = str_from(name, (size_t)dot);
    struct shape_row *r = shape_row(s, parent);
    r->count[0]++;
    r->count[bucket]++;
    r->subdomains += new;
    shape_count_parents(s, parent, bucket, r->count[0] == 1);
}

static void shape_count(struct shape *s, const char *addr, size_t bucket) {
    struct sbuf name = {0};
    struct shape_row *total = shape_row(s, STR_LIT("TOTAL"));
    const char *at = strrchr(addr, '@');
    for (const char *p = at == NULL ? addr : at + 1; *p != '\0'; p++)
        sbuf_add_ch(&name, at == NULL ? *p : (char)tolower((unsigned char)*p));
    struct shape_row *r = shape_row(s, sbuf_str(&name));
    total->count[0]++;
    total->count[bucket]++;
    r->count[0]++;
    r->count[bucket]++;
    if (s->parents)
        shape_count_parents(s, sbuf_str(&name), bucket, r->count[0] == 1);
    sbuf_free(&name);
}

static void shape_message(struct shape *s, json_t *msg) {
    size_t i,
        bucket = shape_bucket(s, (time_t)json_integer_value(json_object_get(msg, "arrival_time")));
    json_t *r;
    if (s->by_sender) {
        shape_count(s, listing_text(msg, "sender"), bucket);
        return;
    }
    json_array_foreach(json_object_get(msg, "recipients"), i, r) {
        shape_count(s, listing_text(r, "address"), bucket);
    }
}

static int shape_order(const void *a, const void *b) {
    const struct shape_row *x = *(struct shape_row *const *)a, *y = *(struct shape_row *const *)b;
    bool tx = strcmp(x->name, "TOTAL") == 0, ty = strcmp(y->name, "TOTAL") == 0;
    if (x->count[0] != y->count[0])
        return x->count[0] < y->count[0] ? 1 : -1;
    if (tx != ty)
        return tx ? -1 : 1;
    if (strlen(x->name) != strlen(y->name))
        return strlen(x->name) < strlen(y->name) ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void shape_print_name(const char *name, int width) {
    int n = (int)strlen(name);
    if (n <= width)
        printf("%*s", width, name);
    else if (name[0] == '.')
        printf(".+%s", name + n - width + 2);
    else
        printf("+%s", name + n - width + 1);
}

/* Heads and widths of the columns; returns the width of the names. */
static int shape_columns(const struct shape *s, char heads[][24], int *widths) {
    long limit = 0;
    int left = (int)s->width;
    for (long i = 0; i <= s->buckets; i++) {
        char digits[24];
        if (i == 0)
            strcpy(heads[i], "T");
        else if (i == s->buckets)
            snprintf(heads[i], 24, "%ld+", limit);
        else
            snprintf(heads[i], 24, "%ld",
                     limit = limit == 0 || s->linear ? limit + s->minutes : limit * 2);
        limit = limit > LIMIT_MAX ? LIMIT_MAX : limit;
        int n = snprintf(digits, sizeof digits, "%zu", s->v[0]->count[i]);
        n = (int)strlen(heads[i]) > n ? (int)strlen(heads[i]) : n;
        widths[i] = n > 2 ? n + 1 : 3;
        left -= widths[i];
    }
    return left < NAME_MIN ? NAME_MIN : left;
}

static void shape_print(struct shape *s) {
    char heads[BUCKETS_MAX + 1][24];
    int widths[BUCKETS_MAX + 1];
    long shown = 0;
    shape_row(s, STR_LIT("TOTAL"));
    qsort(s->v, s->n, sizeof *s->v, shape_order);
    int left = shape_columns(s, heads, widths);
    shape_print_name("", left);
    for (long i = 0; i <= s->buckets; i++)
        printf("%*s", widths[i], heads[i]);
    putchar('\n');
    for (size_t k = 0; k < s->n && (s->top == 0 || shown < s->top); k++) {
        const struct shape_row *r = s->v[k];
        if (r->name[0] == '.' && r->subdomains < (size_t)s->min_subdomains)
            continue;
        shown++;
        shape_print_name(r->name, left);
        for (long i = 0; i <= s->buckets; i++)
            printf("%*zu", widths[i], r->count[i]);
        putchar('\n');
    }
}

static bool shape_option(struct shape *s, int opt, const char *arg) {
    long n = arg == NULL ? 0 : strtol(arg, NULL, 10);
    switch (opt) {
    case 's':
        return s->by_sender = true;
    case 'p':
        return s->parents = true;
    case 'l':
        return s->linear = true;
    case 'b':
        s->buckets = n > 0 ? n : s->buckets;
        return n <= BUCKETS_MAX;
    case 't':
        s->minutes = n > 0 ? n : s->minutes;
        return n <= LIMIT_MAX;
    case 'w':
        s->width = n > 80 && n < 10000 ? n : s->width;
        return true;
    case 'm':
        s->min_subdomains = n > 0 ? n : s->min_subdomains;
        return true;
    case 'n':
        s->top = n;
        return true;
    default: /* -N is about reading files one by one */
        return opt == 'N' || opt == 'c';
    }
}

/* Which queues; what Postfix alone has is empty.  NULL: none of ours. */
static json_t *shape_queues(int n, char **names) {
    json_t *queues = json_array();
    for (int i = 0; i < n; i++) {
        const char *slash = strrchr(names[i], '/'), *name = slash == NULL ? names[i] : slash + 1;
        if (strcmp(name, "active") == 0 || strcmp(name, "deferred") == 0 ||
            strcmp(name, "hold") == 0)
            json_array_append_new(queues, json_string(name));
        else if (strcmp(name, "incoming") != 0 && strcmp(name, "maildrop") != 0)
            fprintf(stderr, "qshape: warning: there is no queue %s\n", names[i]);
    }
    if (n == 0)
        json_array_append_new(queues, json_string("active"));
    return queues;
}

int cli_qshape(const char *dir, int argc, char **argv) {
    struct shape s = {.buckets = 10, .minutes = 5, .width = 80, .min_subdomains = 5};
    int opt, rc = 0;
    size_t i;
    json_t *msgs = NULL, *msg;
    optind = 1;
    s.top = isatty(1) ? TOP_TERMINAL : 0;
    while ((opt = getopt(argc, argv, "+slpw:b:t:m:n:N:c:h")) != -1) {
        if (!shape_option(&s, opt, optarg)) {
            fputs("usage: qshape [-s] [-p] [-m min_subdomains] [-b bucket_count] [-t bucket_time] "
                  "[-l] [-w terminal_width] [-n top_domains] [-c config_dir] [queue_name ...]\n",
                  stderr);
            return EX_USAGE_;
        }
        dir = opt == 'c' ? optarg : dir;
    }
    struct config *cfg = cli_config("qshape", dir);
    if (cfg == NULL)
        return 1;
    json_t *queues = shape_queues(argc - optind, argv + optind);
    s.now = time(NULL);
    if (json_array_size(queues) > 0)
        rc = listing_fetch("qshape", cfg, json_pack("{s:O}", "queues", queues), &msgs);
    json_decref(queues);
    if (rc != 0)
        return rc;
    json_array_foreach(msgs, i, msg) {
        shape_message(&s, msg);
    }
    json_decref(msgs);
    shape_print(&s);
    return 0;
}
