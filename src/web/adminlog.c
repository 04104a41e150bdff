/*
 * web/adminlog.c - what administrators did; see adminlog.h
 */
#include "web/adminlog.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"
#include "util/mem.h"

#define PAGE    50U
#define LOG_OWN 10000 /* of one administrator of some domains; the mail log has all */

/* Deletes the oldest entries of an administrator of some domains: they do not fill the disk. */
static void adminlog_bound(struct req *r) {
    if (r->who.admin != NULL && !r->who.is.global)
        state_run(r->w->state, NULL, NULL,
                  "DELETE FROM log WHERE admin = ? AND id <= (SELECT id FROM log WHERE admin = ? "
                  "ORDER BY id DESC LIMIT 1 OFFSET ?)",
                  "ssi", r->who.admin, r->who.admin, (int64_t)LOG_OWN);
}

void adminlog(struct req *r, const char *event, const char *account, const char *fmt, ...) {
    struct sbuf msg = {0};
    va_list ap;
    const char *at = strchr(account, '@');
    const char *domain = at == NULL ? account : at + 1, *user = at == NULL ? "" : account;
    const char *admin = r->who.admin == NULL ? "" : r->who.admin;
    if (r->who.admin != NULL && !r->who.page)
        sbuf_add_c(&msg, "[API] ");
    va_start(ap, fmt);
    sbuf_vprintf(&msg, fmt, ap);
    va_end(ap);
    state_run(r->w->state, NULL, NULL,
              "INSERT INTO log (admin, ip, domain, username, event, msg) VALUES (?, ?, ?, ?, ?, ?)",
              "ssssss", admin, r->client, domain, user, event, msg.p);
    adminlog_bound(r);
    log_info("web", "%s admin=%s, domain=%s, username=%s, event=%s, ip=%s", msg.p, admin, domain,
             user, event, r->client);
    sbuf_free(&msg);
}

static void adminlog_add_entry(void *arg, sqlite3_stmt *row) {
    static const char *const names[] = {"id",       "timestamp", "admin",    "ip", "domain",
                                        "username", "event",     "loglevel", "msg"};
    json_t *o = json_object();
    json_object_set_new(o, names[0], json_integer(sqlite3_column_int64(row, 0)));
    for (int i = 1; i < 9; i++)
        json_object_set_new(o, names[i], json_text(state_text(row, i)));
    json_array_append_new(arg, o);
}

void adminlog_list(struct req *r) {
    unsigned limit = PAGE, before = INT32_MAX;
    if (!req_number(r, "limit", 500, &limit) || !req_number(r, "before", INT32_MAX, &before))
        return;
    json_t *list = json_array();
    const char *domain = req_query(r, "domain"), *admin = req_query(r, "admin"),
               *event = req_query(r, "event");
    state_run(r->w->state, adminlog_add_entry, list,
              "SELECT id, timestamp, admin, ip, domain, username, event, loglevel, msg FROM log "
              "WHERE id < ? AND (? = '' OR domain = ?) AND (? = '' OR admin = ?) AND (? = '' OR "
              "event = ?) ORDER BY id DESC LIMIT ?",
              "issssssi", (int64_t)before, domain, domain, admin, admin, event, event,
              (int64_t)limit + 1);
    bool more = json_array_size(list) > limit;
    if (more)
        json_array_remove(list, limit);
    reply_data(r, json_pack("{s:o, s:b}", "entries", list, "more", more));
}
