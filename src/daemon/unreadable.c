/*
 * daemon/unreadable.c - messages of the spool that this version cannot read; see unreadable.h
 */
#include "daemon/unreadable.h"

#include <stdio.h>

#include "daemon/overview.h"
#include "util/htab.h"
#include "util/mem.h"

void unreadable_add(struct unreadable_list *l, uint64_t id, struct envelope *env) {
    l->v = mem_realloc(l->v, (l->n + 1) * sizeof *l->v);
    l->v[l->n++] = (struct unreadable){id, env};
}

void unreadable_show(struct sbuf *b, const struct unreadable_list *l,
                     const struct sched_filter *f) {
    bool judged = f->queues == 0 && !f->by_hop && f->sender.n == 0 && f->rcpt.n == 0 &&
                  f->reason.n == 0 && f->site.n == 0;
    for (size_t i = 0; i < l->n && judged; i++) {
        const struct unreadable *u = &l->v[i];
        char qid[QID_MAX];
        snprintf(qid, sizeof qid, "%016llx", (unsigned long long)u->id);
        struct str name = str_of(u->env == NULL ? qid : u->env->qid);
        if (f->ids == NULL || htab_get(f->ids, name) != NULL)
            overview_unreadable(b, name, u->id, u->env);
    }
}
