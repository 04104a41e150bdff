/*
 * route/alias_walk.c - the names that an alias leads to; see alias_walk.h
 *
 * local(8) meets an alias once at each depth, so in aliases that name each other it goes round
 * until it is too deep, and an address has the owner of the alias that names it there.  The walk
 * does the same: 25 times the number of edges at most.
 */
#include "route/alias_walk.h"

#include <stdlib.h>
#include <string.h>

#include "util/htab.h"
#include "util/mem.h"

static bool is_node_of(const void *val, const void *key) {
    return str_ieq(str_of(((const struct alias_node *)val)->addr), *(const struct str *)key);
}

static struct alias_node *alias_node_new(struct alias_graph *g, uint32_t from, struct str addr,
                                         uint64_t hash) {
    struct alias_node *node = MEM_NEW(struct alias_node);
    if (g->n == g->cap) {
        g->cap = g->cap == 0 ? 8 : g->cap * 2;
        g->v = mem_realloc(g->v, g->cap * sizeof *g->v);
    }
    node->addr = str_dup(addr);
    node->at = g->n;
    node->by = from;
    node->depth = g->n == 0 ? 0 : g->v[from]->depth + 1;
    g->v[g->n++] = node;
    kset_add(&g->seen, hash, node);
    return node;
}

static void alias_node_link(struct alias_graph *g, struct alias_node *from, uint32_t to) {
    if (from->n_kids == from->cap_kids) {
        from->cap_kids = from->cap_kids == 0 ? 4 : from->cap_kids * 2;
        from->kids = mem_realloc(from->kids, from->cap_kids * sizeof *from->kids);
    }
    from->kids[from->n_kids++] = to;
    g->edges++;
}

uint32_t alias_graph_add(struct alias_graph *g, uint32_t from, struct str addr) {
    uint64_t hash = kset_mix_folded(KSET_SEED, addr);
    struct alias_node *node = kset_get(&g->seen, hash, is_node_of, &addr);
    bool first = g->n == 0;
    if (node == NULL)
        node = alias_node_new(g, from, addr, hash);
    if (!first)
        alias_node_link(g, g->v[from], node->at);
    return node->at;
}

bool alias_graph_names_itself(const struct alias_graph *g, uint32_t *alias, uint32_t *kid) {
    for (uint32_t i = 0; i < g->n; i++)
        for (uint32_t k = 0; k < g->v[i]->n_kids; k++) {
            const char *name = g->v[g->v[i]->kids[k]]->name;
            if (name == NULL || strcmp(name, g->v[i]->name) != 0)
                continue;
            *alias = i;
            *kid = g->v[i]->kids[k];
            return true;
        }
    return false;
}

bool alias_graph_goes_on(const struct alias_graph *g) {
    for (uint32_t i = 0; i < g->n; i++)
        if (g->v[i]->name == NULL)
            return true;
    return false;
}

/* -- the walk -- */

struct alias_way {
    struct alias_graph *g;
    struct alias_groups *out;
    struct htab by_owner; /* number of the group */
    bool (*ends)(void *arg, struct str addr);
    void *arg;
};

static struct alias_group *group_of_owner(struct alias_way *w, const char *owner) {
    struct alias_groups *all = w->out;
    uintptr_t at = owner == NULL ? 0 : (uintptr_t)htab_get(&w->by_owner, str_of(owner));
    if (owner != NULL && at == 0) {
        at = all->n++;
        all->v = mem_realloc(all->v, all->n * sizeof *all->v);
        all->v[at] = (struct alias_group){.owner = owner};
        htab_put(&w->by_owner, str_of(owner), (void *)at);
    }
    return &all->v[at];
}

static void walk_takes(struct alias_way *w, struct alias_node *node, const char *owner) {
    struct alias_group *group = group_of_owner(w, owner);
    if (group->n == group->cap) {
        group->cap = group->cap == 0 ? 8 : group->cap * 2;
        group->addrs = mem_realloc(group->addrs, group->cap * sizeof *group->addrs);
    }
    group->addrs[group->n++] = node->addr;
    node->taken = true;
    w->out->addrs++;
}

/* Meets the node in that depth, at most ALIAS_DEPTH_MAX, on a way with that owner. */
static void walk_meets(struct alias_way *w, uint32_t at, uint32_t level, const char *owner) {
    struct alias_node *node = w->g->v[at];
    if (node->taken || (node->levels & 1U << level) != 0)
        return;
    node->levels |= 1U << level;
    if (node->owner != NULL)
        owner = node->owner;
    if (node->name == NULL ||
        (level > 0 && w->ends != NULL && w->ends(w->arg, str_of(node->addr)))) {
        walk_takes(w, node, owner);
        return;
    }
    for (uint32_t i = 0; i < node->n_kids && level < ALIAS_DEPTH_MAX; i++)
        walk_meets(w, node->kids[i], level + 1, owner);
}

void alias_walk(struct alias_graph *g, bool (*ends)(void *arg, struct str addr), void *arg,
                struct alias_groups *out) {
    struct alias_way w = {.g = g, .out = out, .ends = ends, .arg = arg};
    *out = (struct alias_groups){.v = MEM_NEW(struct alias_group), .n = 1};
    walk_meets(&w, 0, 0, NULL);
    if (out->v[0].n == 0) {
        out->n--;
        memmove(out->v, out->v + 1, out->n * sizeof *out->v);
    }
    htab_free(&w.by_owner);
}

void alias_groups_free(struct alias_groups *groups) {
    for (uint32_t i = 0; i < groups->n; i++)
        free(groups->v[i].addrs);
    free(groups->v);
    *groups = (struct alias_groups){0};
}

void alias_graph_free(struct alias_graph *g) {
    if (g == NULL)
        return;
    for (uint32_t i = 0; i < g->n; i++) {
        free(g->v[i]->addr);
        free(g->v[i]->name);
        free(g->v[i]->owner);
        free(g->v[i]->kids);
        free(g->v[i]);
    }
    free(g->v);
    kset_free(&g->seen);
    free(g);
}
