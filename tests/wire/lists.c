/*
 * tests/wire/lists.c - names that stand for others; see lists.h
 */
#include "lists.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

#define TABLE     "aliases"
#define NAMES_MAX 4

struct list {
    unsigned number;        /* of the message that is made of it */
    const char *owner;      /* its sender; NULL: that of the message */
    const char *reports_to; /* what the owner stands for */
    bool broken;
    char *members[LEDGER_RCPTS];
    unsigned n;
};

/* The rows of a list: the first name is its own. */
struct rows {
    char names[NAMES_MAX][32];
    struct bytes values[NAMES_MAX];
    unsigned n;
};

static char *copy_of(const char *fmt, unsigned a, unsigned b, const char *c) {
    char buf[200];
    snprintf(buf, sizeof buf, fmt, a, b, c);
    return bytes_copy(buf, strlen(buf));
}

void lists_configure(struct scene *s) {
    s->lists = true;
    wire_main_cf(s->world, "mydestination = posthouse.test, lists.example\n"
                           "alias_maps = hash:" TABLE "\n");
}

static void row_add(struct bytes *value, const char *item) {
    bytes_printf(value, "%s%s", value->n > 0 ? ", " : "", item);
}

/* The address in one of the ways that aliases(5) has. */
static void row_add_member(struct dice *d, struct bytes *value, const char *addr) {
    char buf[200];
    switch (dice_roll(d, 6)) {
    case 2:
        snprintf(buf, sizeof buf, "<%s>", addr);
        break;
    case 3:
        snprintf(buf, sizeof buf, "Ann Other <%s>", addr);
        break;
    case 4:
        snprintf(buf, sizeof buf, "(one) %s", addr);
        break;
    case 5:
        snprintf(buf, sizeof buf, "\"Other, Ann\" <%s>", addr);
        break;
    default:
        snprintf(buf, sizeof buf, "%s", addr);
        break;
    }
    row_add(value, buf);
}

/* A name of this list, in another one of its rows. */
static void row_add_name(struct dice *d, struct bytes *value, const char *name) {
    char buf[80];
    static const char *const domains[] = {"", "@posthouse.test", "@lists.example",
                                          "@Lists.Example"};
    snprintf(buf, sizeof buf, "%s%s", name, domains[dice_roll(d, 4)]);
    row_add(value, buf);
}

static void rows_members(struct scene *s, const struct list *x, struct rows *t, bool mutual) {
    struct dice *d = &s->dice;
    for (unsigned i = 0; i < x->n; i++) {
        unsigned at = i < t->n ? i : dice_roll(d, t->n);
        row_add_member(d, &t->values[at], x->members[i]);
        if (mutual && dice_says(d, 40))
            row_add_member(d, &t->values[dice_roll(d, t->n)], x->members[i]);
    }
}

/* Every name is named by one before it, and in a list of names that name each other also by one
 * behind it. */
static void rows_names(struct scene *s, struct rows *t, bool mutual) {
    struct dice *d = &s->dice;
    for (unsigned i = 1; i < t->n; i++) {
        row_add_name(d, &t->values[dice_roll(d, i)], t->names[i]);
        if (mutual)
            row_add_name(d, &t->values[i], t->names[dice_roll(d, i)]);
    }
}

static void rows_break(struct dice *d, struct rows *t) {
    static const char *const items[] = {
        "/var/mail/file", "\"|/bin/command -x\"", ":include:/etc/names", "\\mailbox",
        "~/file",         "no-such-name"};
    row_add(&t->values[dice_roll(d, t->n)], items[dice_roll(d, 6)]);
}

static void list_set_owner(struct scene *s, struct list *x, const char *name, unsigned number) {
    char key[48];
    snprintf(key, sizeof key, "owner-%s", name);
    x->owner = copy_of("owner-m%ur%u@%s", number / 16, number % 16, "posthouse.test");
    x->reports_to = copy_of("s%u.%u@%s", number % 3, 0, "alpha.example");
    wire_table(s->world, TABLE, key, x->reports_to);
}

void list_make(struct scene *s, struct client_mail *m, unsigned rcpt, enum list_shape shape,
               unsigned members, bool owner) {
    struct dice *d = &s->dice;
    struct list *x = calloc(1, sizeof *x);
    struct rows t = {.n = shape == LIST_FLAT ? 1 : 2 + dice_roll(d, NAMES_MAX - 1)};
    if (x == NULL)
        abort();
    if (members < t.n)
        members = t.n;
    x->number = 1000 + m->number * 16 + rcpt;
    x->broken = shape == LIST_BROKEN;
    x->n = members > LEDGER_RCPTS ? LEDGER_RCPTS : members;
    for (unsigned i = 0; i < x->n; i++)
        x->members[i] = copy_of("m%ur%u@%s", x->number, i, scene_domain(dice_roll(d, 2)));
    for (unsigned i = 0; i < t.n; i++)
        snprintf(t.names[i], sizeof t.names[i], i == 0 ? "m%ur%u" : "m%ur%un%u", m->number, rcpt,
                 i);
    rows_members(s, x, &t, shape == LIST_MUTUAL);
    rows_names(s, &t, shape == LIST_MUTUAL);
    if (x->broken)
        rows_break(d, &t);
    if (owner)
        list_set_owner(s, x, t.names[0], m->number * 16 + rcpt);
    for (unsigned i = 0; i < t.n; i++) {
        wire_table(s->world, TABLE, t.names[i], bytes_str(&t.values[i]));
        bytes_free(&t.values[i]);
    }
    m->rcpts[rcpt].addr = copy_of("m%ur%u@%s", m->number, rcpt,
                                  dice_says(d, 60) ? "lists.example" : "posthouse.test");
    m->rcpts[rcpt].more = NULL;
    m->rcpts[rcpt].list = x;
}

void list_draw(struct scene *s, struct client_mail *m, unsigned rcpt) {
    struct dice *d = &s->dice;
    enum list_shape shape = dice_says(d, 10) ? LIST_BROKEN : (enum list_shape)dice_roll(d, 3);
    list_make(s, m, rcpt, shape, 1 + dice_roll(d, 7), dice_says(d, 40));
}

void list_tell(const struct list *x, struct ledger_mail *m, unsigned rcpt) {
    struct ledger_mail *made = ledger_list(m, rcpt, x->number, x->owner, x->reports_to);
    for (unsigned i = 0; i < x->n && !x->broken; i++)
        ledger_list_member(made, i, x->members[i]);
}
