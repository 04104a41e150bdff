/*
 * web/changing.c - changes of one domain's accounts, one after the other; see changing.h
 */
#include "web/changing.h"

#include <pthread.h>
#include <string.h>

/* In the order in which they came; a domain's first one has its turn. */
static struct dl changes = {&changes, &changes};
static pthread_mutex_t changes_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changes_ended = PTHREAD_COND_INITIALIZER;

/* The first of the domain, or with users the first that changes all of its users; NULL: there is
 * none.  Under the lock. */
static const struct changing *changes_first(const char *domain, bool users) {
    DL_EACH (it, &changes) {
        const struct changing *c = DL_OWNER(it, struct changing, link);
        if (strcmp(c->domain, domain) == 0 && (c->users || !users))
            return c;
    }
    return NULL;
}

bool changing_begin(struct req *r, struct changing *c) {
    pthread_mutex_lock(&changes_lock);
    bool may = !c->users || changes_first(c->domain, true) == NULL;
    if (may)
        dl_push(&changes, &c->link);
    while (may && changes_first(c->domain, false) != c)
        pthread_cond_wait(&changes_ended, &changes_lock);
    pthread_mutex_unlock(&changes_lock);
    if (!may)
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                   "All users of the domain are being changed already: try again.");
    return may;
}

void changing_end(struct changing *c) {
    pthread_mutex_lock(&changes_lock);
    dl_remove(&c->link);
    pthread_cond_broadcast(&changes_ended);
    pthread_mutex_unlock(&changes_lock);
}
