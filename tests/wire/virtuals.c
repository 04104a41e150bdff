/*
 * tests/wire/virtuals.c - recipients that stand for others, by virtual(5); see virtuals.h
 */
#include "virtuals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

#define TABLE     "virtual"
#define DOMAIN    "names.example"
#define NAMES_MAX 4
#define CHIEF     "s9.9@gamma.example"

struct virtual {
    char *members[VIRTUAL_MAX];
    unsigned n;
    bool chief; /* reports come to CHIEF */
};

/* The rows: the first name is the recipient. */
struct virtual_rows {
    char names[NAMES_MAX][48];
    struct bytes values[NAMES_MAX];
    unsigned n;
};

void virtuals_configure(struct scene *s) {
    s->virtuals = true;
    wire_main_cf(s->world,
                 "virtual_alias_domains = " DOMAIN "\nvirtual_alias_maps = hash:" TABLE "\n");
}

static void value_add(struct dice *d, struct bytes *value, const char *item) {
    static const char *const between[] = {", ", " ", ","};
    bytes_printf(value, "%s%s", value->n > 0 ? between[dice_roll(d, 3)] : "", item);
}

static char *member_of(unsigned mail, unsigned number, const char *domain) {
    char buf[80];
    snprintf(buf, sizeof buf, "m%ur%u@%s", mail, number, domain);
    return bytes_copy(buf, strlen(buf));
}

/* Each name is named by one before it, and names that name each other also by one behind it; then a
 * member may stand in two rows. */
static void rows_fill(struct scene *s, const struct virtual *x, struct virtual_rows *t,
                      bool mutual) {
    struct dice *d = &s->dice;
    for (unsigned i = 0; i < x->n; i++) {
        unsigned at = i < t->n ? i : dice_roll(d, t->n);
        value_add(d, &t->values[at], x->members[i]);
        if (mutual && dice_says(d, 40))
            value_add(d, &t->values[dice_roll(d, t->n)], x->members[i]);
    }
    for (unsigned i = 1; i < t->n; i++)
        value_add(d, &t->values[dice_roll(d, i)], t->names[i]);
}

void virtual_make(struct scene *s, struct client_mail *m, enum list_shape shape, unsigned members) {
    struct dice *d = &s->dice;
    struct virtual *x = calloc(1, sizeof *x);
    struct virtual_rows t = {.n = shape == LIST_FLAT ? 1 : 2 + dice_roll(d, NAMES_MAX - 1)};
    if (x == NULL)
        abort();
    if (members < t.n)
        members = t.n;
    x->n = members > VIRTUAL_MAX ? VIRTUAL_MAX : members;
    for (unsigned i = 0; i < x->n; i++)
        x->members[i] = member_of(m->number, VIRTUAL_FIRST + i, scene_domain(dice_roll(d, 2)));
    snprintf(t.names[0], sizeof t.names[0], "m%ur0@%s", m->number,
             dice_says(d, 60) ? DOMAIN : "far.example");
    for (unsigned i = 1; i < t.n; i++)
        snprintf(t.names[i], sizeof t.names[i], "m%ur0n%u@%s", m->number, i, DOMAIN);
    rows_fill(s, x, &t, shape == LIST_MUTUAL);
    for (unsigned i = 0; i < t.n; i++) {
        wire_table(s->world, TABLE, t.names[i], bytes_str(&t.values[i]));
        bytes_free(&t.values[i]);
    }
    m->rcpts[0].addr = bytes_copy(t.names[0], strlen(t.names[0]));
    m->rcpts[0].more = NULL;
    m->rcpts[0].stands = x;
}

void virtual_draw(struct scene *s, struct client_mail *m) {
    struct dice *d = &s->dice;
    virtual_make(s, m, (enum list_shape)dice_roll(d, LIST_BROKEN), 1 + dice_roll(d, VIRTUAL_MAX));
}

void virtual_chief(struct scene *s, struct client_mail *m) {
    ((struct virtual *)(uintptr_t)m->rcpts[0].stands)->chief = true;
    wire_table(s->world, TABLE, m->sender, CHIEF);
}

bool virtual_is_ours(const char *addr) {
    const char *at = strrchr(addr, '@');
    return at != NULL && strcmp(at + 1, DOMAIN) == 0;
}

void virtual_tell(const struct virtual *x, struct ledger_mail *m) {
    if (x->chief)
        ledger_reports_to(m, CHIEF);
    for (unsigned i = 0; i < x->n; i++)
        ledger_stands_for(m, 0, VIRTUAL_FIRST + i, x->members[i]);
}
