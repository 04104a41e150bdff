/*
 * maps/turns.c - threads for questions to databases; see turns.h
 *
 * One lock.  A task has a place, with a thread that is called for it, or it waits in its table's
 * row.  A place is one of the TURNS_OWN of its table, or one of the TURNS_SHARED.  A task that ends
 * makes room for one other at most, and its thread goes on with that one: no table waits while
 * its next task could have a place.
 */
#include "maps/turns.h"

#include <pthread.h>
#include <stdlib.h>

#include "util/htab.h"
#include "util/list.h"
#include "util/mem.h"

struct turns_table {
    struct dl link; /* turns->waiting, while its row is not empty */
    struct dl row;  /* struct turn: they wait for a place */
    size_t n_places;
};

/* A task from turns_push to its end. */
struct turn {
    struct dl link; /* turns_table->row, then turns->ready, then none */
    struct task *task;
    struct turns_table *table;
};

struct turns {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct htab tables; /* struct turns_table by name */
    struct dl waiting;  /* tables; the one that has its turn comes first */
    struct dl ready;    /* struct turn: they have a place */
    size_t n_shared;    /* places that tables have beyond TURNS_OWN */
    size_t n_threads;   /* all that there are */
    size_t n_idle;      /* threads that wait, without those that are being woken */
    size_t n_woken;     /* threads that are to stop waiting */
};

struct turns *turns_new(void) {
    struct turns *t = MEM_NEW(struct turns);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    dl_init(&t->waiting);
    dl_init(&t->ready);
    return t;
}

static struct turns_table *turns_table_get(struct turns *t, struct str name) {
    struct turns_table *table = htab_get(&t->tables, name);
    if (table != NULL)
        return table;
    table = MEM_NEW(struct turns_table);
    dl_init(&table->row);
    htab_put(&t->tables, str_make(str_dup(name), name.n), table); /* the name stays, too */
    return table;
}

static bool turns_has_place(const struct turns *t, const struct turns_table *table) {
    return table->n_places < TURNS_OWN || t->n_shared < TURNS_SHARED;
}

static void turn_begin(struct turns *t, struct turn *turn) {
    if (++turn->table->n_places > TURNS_OWN)
        t->n_shared++;
    dl_push(&t->ready, &turn->link);
}

/* Gives the place of a task that has ended to one that waits. */
static void turn_end(struct turns *t, struct turn *turn) {
    if (turn->table->n_places-- > TURNS_OWN)
        t->n_shared--;
    free(turn);
    DL_EACH (it, &t->waiting) {
        struct turns_table *table = DL_OWNER(it, struct turns_table, link);
        if (!turns_has_place(t, table))
            continue;
        turn_begin(t, DL_OWNER(dl_pop(&table->row), struct turn, link));
        dl_remove(&table->link);
        if (!dl_empty(&table->row))
            dl_push(&t->waiting, &table->link);
        return;
    }
}

/* Until a task is ready. */
static struct turn *turn_await(struct turns *t) {
    struct dl *n;
    while ((n = dl_pop(&t->ready)) == NULL) {
        t->n_idle++;
        while (t->n_woken == 0)
            pthread_cond_wait(&t->wake, &t->lock);
        t->n_woken--;
    }
    return DL_OWNER(n, struct turn, link);
}

static void *turns_main(void *arg) {
    struct turns *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        struct turn *turn = turn_await(t);
        pthread_mutex_unlock(&t->lock);
        turn->task->run(turn->task);
        pthread_mutex_lock(&t->lock);
        turn_end(t, turn);
    }
    return NULL;
}

/* A thread for one more task: one that waits, or a new one.  False: there is none at all. */
static bool turns_call_thread(struct turns *t) {
    pthread_t thread;
    if (t->n_idle > 0) {
        t->n_idle--;
        t->n_woken++;
        pthread_cond_signal(&t->wake);
    } else if (pthread_create(&thread, NULL, turns_main, t) == 0) {
        pthread_detach(thread);
        t->n_threads++;
    } /* else one of those that there are takes it */
    return t->n_threads > 0;
}

bool turns_push(struct turns *t, struct str name, struct task *task) {
    struct turn *turn = MEM_NEW(struct turn);
    turn->task = task;
    pthread_mutex_lock(&t->lock);
    struct turns_table *table = turn->table = turns_table_get(t, name);
    bool first = dl_empty(&table->row), taken = true;
    if (first && turns_has_place(t, table)) {
        turn_begin(t, turn);
        taken = turns_call_thread(t);
    } else {
        dl_push(&table->row, &turn->link);
        if (first)
            dl_push(&t->waiting, &table->link);
    }
    if (!taken) {
        dl_remove(&turn->link);
        turn_end(t, turn);
    }
    pthread_mutex_unlock(&t->lock);
    return taken;
}
