/*
 * route/alias_walk.h - the names that an alias leads to, and the walk that gives each its sender
 *
 * A graph has each address once; an address that is an alias has an edge to each address that the
 * alias stands for.  Which address is the sender of what goes on depends on the way to it, as with
 * Postfix's local(8): aliases are expanded in their place, depth first, and an address has the
 * owner of the innermost list on the first way that leads to it.  Any thread, one at a time; the
 * owner of the graph frees it.
 */
#ifndef PH_ROUTE_ALIAS_WALK_H
#define PH_ROUTE_ALIAS_WALK_H

#include "util/kset.h"
#include "util/str.h"

/* Aliases in each other, as local(8) has it: its limit of 100 counts four steps for each alias. */
#define ALIAS_DEPTH_MAX 25U

struct alias_node {
    char *addr;     /* internal form; owned */
    char *name;     /* of the alias that it is, in lower case; NULL: it goes on as it is; owned */
    char *owner;    /* the sender that this alias gives to what it stands for; NULL: none; owned */
    uint32_t at;    /* its own index */
    uint32_t by;    /* the alias that named it first; of the first node its own index */
    uint32_t depth; /* aliases on the shortest way to it */
    uint32_t *kids; /* the addresses that the alias stands for, in its order; owned */
    uint32_t n_kids, cap_kids;
    uint32_t levels; /* of the walk: a bit for each depth at which it was met */
    bool taken;      /* of the walk: it is in a group */
};

struct alias_graph {
    struct alias_node **v; /* the first one is what was asked for */
    uint32_t n, cap;
    size_t edges;
    struct kset seen; /* struct alias_node, by address */
};

/* Addresses that go on with one sender. */
struct alias_group {
    const char *owner;  /* that sender, of the graph; NULL: the sender stays */
    const char **addrs; /* of the graph; owned is the array alone */
    uint32_t n, cap;
};

struct alias_groups {
    struct alias_group *v; /* the one that keeps its sender, if there is one, is the first */
    uint32_t n;
    uint32_t addrs; /* of all groups */
};

/* The node with that address, added if there is none yet, and an edge to it from the node `from`
 * (of the first node: itself, and no edge).  Returns its index. */
uint32_t alias_graph_add(struct alias_graph *g, uint32_t from, struct str addr);
/* An alias that names itself, or an address with the same alias: then true, with both. */
bool alias_graph_names_itself(const struct alias_graph *g, uint32_t *alias, uint32_t *kid);
/* Does anything go on? */
bool alias_graph_goes_on(const struct alias_graph *g);
/* Walks once over a whole graph.  An address of an alias for which ends (may be NULL) says true is
 * not expanded: it goes on under its own name, and its own owner's if it has one.  The first node
 * is not asked for.  The caller ends with alias_groups_free, before it frees the graph. */
void alias_walk(struct alias_graph *g, bool (*ends)(void *arg, struct str addr), void *arg,
                struct alias_groups *out);
void alias_groups_free(struct alias_groups *groups);
/* g may be NULL. */
void alias_graph_free(struct alias_graph *g);

#endif
