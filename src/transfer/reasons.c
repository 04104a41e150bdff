/*
 * transfer/reasons.c - why recipients wait, as Postfix notes it; see reasons.h
 */
#include "transfer/reasons.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "util/htab.h"
#include "util/mem.h"

/* As the scheduler keeps them: of each text, and of all in one record. */
#define TEXT_MAX   1000U
#define ERRORS_MAX 200U

/* -- reading -- */

static struct str line_next(struct str *rest) {
    ptrdiff_t nl = str_chr(*rest, '\n');
    struct str line = nl < 0 ? *rest : str_make(rest->p, (size_t)nl);
    *rest = nl < 0 ? STR_NONE : str_from(*rest, (size_t)nl + 1);
    return line;
}

static void take_line(struct reasons_entry *e, struct str line) {
    ptrdiff_t eq = str_chr(line, '=');
    if (eq <= 0 || str_has_control(line))
        return;
    struct str name = str_make(line.p, (size_t)eq), value = str_from(line, (size_t)eq + 1);
    if (value.n > TEXT_MAX)
        value.n = TEXT_MAX;
    if (str_eq_c(name, "recipient"))
        e->addr = value;
    else if (str_eq_c(name, "status"))
        e->err.dsn = value;
    else if (str_eq_c(name, "reason"))
        e->err.text = value;
    else if (str_eq_c(name, "mta_mname"))
        e->err.mta = value;
    else if (str_eq_c(name, "diag_text"))
        e->err.reply = value;
}

bool reasons_next(struct str *rest, struct reasons_entry *e) {
    while (rest->n > 0) {
        *e = (struct reasons_entry){.err.dsn = STR_LIT("4.0.0")};
        for (struct str line; (line = line_next(rest)).n > 0;)
            take_line(e, line);
        if (e->addr.n > 0)
            return true;
    }
    return false;
}

/* The recipients by the external form of their addresses: values are indices + 1. */
struct by_address {
    struct htab of;
    char **keys;
    uint32_t n;
};

static void by_address_fill(struct by_address *b, const struct envelope *env) {
    b->n = env->n_rcpts;
    b->keys = mem_alloc(b->n * sizeof *b->keys);
    for (uint32_t i = 0; i < b->n; i++) {
        struct sbuf key = {0};
        addr_external(&key, env->rcpts[i].addr);
        b->keys[i] = sbuf_take(&key);
        htab_put(&b->of, str_of(b->keys[i]), (void *)(uintptr_t)(i + 1));
    }
}

static void by_address_free(struct by_address *b) {
    for (uint32_t i = 0; i < b->n; i++)
        free(b->keys[i]);
    free(b->keys);
    htab_free(&b->of);
}

static bool error_same(const struct rcpt_error *a, const struct rcpt_error *b) {
    return str_eq(a->dsn, b->dsn) && str_eq(a->text, b->text) && str_eq(a->mta, b->mta) &&
           str_eq(a->reply, b->reply);
}

/* Recipients of one attempt mostly wait for the same, and are noted one after the other. */
static uint32_t error_index(struct progress *p, const struct rcpt_error *e) {
    if (p->n_errors > 0 && error_same(&p->errors[p->n_errors - 1], e))
        return p->n_errors;
    if (p->n_errors == ERRORS_MAX || p->n_errors == p->n)
        return 0;
    p->errors[p->n_errors++] = *e;
    return p->n_errors;
}

void reasons_note(struct progress *p, const struct envelope *env, struct str file) {
    struct by_address all = {0};
    struct reasons_entry e;
    by_address_fill(&all, env);
    if (p->errors == NULL) {
        p->errors = mem_alloc((p->n + 1) * sizeof *p->errors);
        p->error_of = mem_zalloc((p->n + 1) * sizeof *p->error_of);
    }
    while (reasons_next(&file, &e)) {
        uintptr_t at = (uintptr_t)htab_get(&all.of, e.addr);
        if (at > 0 && p->done[at - 1] == RCPT_WAITS && e.err.text.n > 0)
            p->error_of[at - 1] = error_index(p, &e.err);
    }
    by_address_free(&all);
}

void reasons_revive(struct progress *p, const struct envelope *env, struct str file) {
    struct by_address all = {0};
    struct reasons_entry e;
    by_address_fill(&all, env);
    while (reasons_next(&file, &e)) {
        uintptr_t at = (uintptr_t)htab_get(&all.of, e.addr);
        if (at > 0)
            p->done[at - 1] = RCPT_WAITS;
    }
    by_address_free(&all);
}

/* -- writing -- */

static void write_line(struct sbuf *out, const char *name, struct str value) {
    if (value.n == 0)
        return;
    sbuf_printf(out, "%s=", name);
    sbuf_add_safe(out, value);
    sbuf_add_ch(out, '\n');
}

static void write_entry(struct sbuf *out, const struct rcpt *r, const struct rcpt_error *e,
                        uint64_t offset) {
    struct sbuf addr = {0};
    addr_external(&addr, r->addr);
    sbuf_add_c(out, "\n<");
    sbuf_add_safe(out, sbuf_str(&addr));
    sbuf_add_c(out, ">: ");
    sbuf_add_safe(out, e->text);
    sbuf_add_ch(out, '\n');
    write_line(out, "recipient", sbuf_str(&addr));
    sbuf_printf(out, "offset=%llu\n", (unsigned long long)offset);
    write_line(out, "dsn_orig_rcpt", r->orcpt);
    if (r->notify != 0)
        sbuf_printf(out, "notify_flags=%u\n", r->notify);
    write_line(out, "status", e->dsn);
    sbuf_add_c(out, "action=delayed\n");
    if (e->reply.n > 0)
        sbuf_add_c(out, "diag_type=smtp\n");
    write_line(out, "diag_text", e->reply);
    if (e->mta.n > 0)
        sbuf_add_c(out, "mta_type=dns\n");
    write_line(out, "mta_mname", e->mta);
    write_line(out, "reason", e->text);
    sbuf_add_ch(out, '\n');
    sbuf_free(&addr);
}

void reasons_write(struct sbuf *out, const struct envelope *env, const struct progress *p,
                   const uint64_t *offsets) {
    for (uint32_t i = 0; i < p->n && p->error_of != NULL; i++)
        if (p->done[i] == RCPT_WAITS && p->error_of[i] > 0)
            write_entry(out, &env->rcpts[i], &p->errors[p->error_of[i] - 1], offsets[i]);
}
