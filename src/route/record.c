/*
 * route/record.c - relay records; see record.h
 */
#include "route/record.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

bool record_parse(struct record *r, struct str text) {
    json_t *o = json_loadb(text.p, text.n, 0, NULL);
    const char *id, *name, *hosts, *tls, *mechanisms, *user, *account;
    *r = (struct record){0};
    bool ok = o != NULL && json_unpack(o, "{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id", &id, "name",
                                       &name, "hosts", &hosts, "tls", &tls, "mechanisms",
                                       &mechanisms, "user", &user, "account", &account) == 0;
    if (ok)
        *r = (struct record){mem_strdup(id),     mem_strdup(name),       mem_strdup(hosts),
                             mem_strdup(tls),    mem_strdup(mechanisms), mem_strdup(user),
                             mem_strdup(account)};
    json_decref(o);
    return ok;
}

void record_free(struct record *r) {
    free(r->id);
    free(r->name);
    free(r->hosts);
    free(r->tls);
    free(r->mechanisms);
    free(r->user);
    free(r->account);
    *r = (struct record){0};
}
