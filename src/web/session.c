/*
 * web/session.c - sign-in and sessions; see session.h
 */
#include "web/session.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "accounts/password.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/net.h"
#include "web/adminlog.h"
#include "web/throttle.h"
#include "web/token.h"

#define COOKIE     "posthouse"
#define LIFE_S     43200 /* a session's, whatever happens in it */
#define TOUCH_S    30    /* how exactly its last use is known */
#define ROLE_MS    2000  /* how long a role is believed */
#define FAILED_MS  1000  /* how long a store that did not answer is not asked for one again */
#define ROLES      64U
#define PASS_MIN   8U
#define PASS_BYTES 1024U        /* at a login; new ones: PASSWORD_MAX */
#define KNOWN_S    (90 * 86400) /* how long an address of a sign-in is known */
#define OWN_MAX    1000         /* sessions of one administrator of some domains: the last ones */

/* -- roles, for a moment -- */

struct role {
    char *admin; /* NULL: the slot is free */
    struct admin is;
    int64_t until_ms;
    enum store_rc rc; /* STORE_YES, or STORE_ERROR */
    bool asking;      /* for whomever: others of the slot wait */
};

static struct role roles[ROLES];
static pthread_mutex_t roles_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t roles_asked = PTHREAD_COND_INITIALIZER;

static struct role *role_slot(const char *admin) {
    return &roles[str_hash(str_of(admin)) % ROLES];
}

static bool role_known(const struct role *slot, const char *admin) {
    return slot->admin != NULL && strcmp(slot->admin, admin) == 0 &&
           slot->until_ms > clock_mono_ms();
}

/* False: the store is to be asked, and role_learned to be called.  However many requests of an
 * administrator come at a time, one asks for all of them: a database has few connections. */
static bool role_look(const char *admin, struct admin *is, enum store_rc *rc) {
    struct role *slot = role_slot(admin);
    pthread_mutex_lock(&roles_lock);
    while (slot->asking && !role_known(slot, admin))
        pthread_cond_wait(&roles_asked, &roles_lock);
    bool known = role_known(slot, admin);
    if (known)
        *is = slot->is;
    *rc = slot->rc;
    slot->asking = slot->asking || !known;
    pthread_mutex_unlock(&roles_lock);
    return known;
}

/* STORE_NO is not remembered. */
static void role_learned(const char *admin, const struct admin *is, enum store_rc rc) {
    struct role *slot = role_slot(admin);
    int64_t until_ms = clock_mono_ms() + (rc == STORE_YES ? ROLE_MS : FAILED_MS);
    pthread_mutex_lock(&roles_lock);
    if (rc != STORE_NO) {
        free(slot->admin);
        *slot = (struct role){mem_strdup(admin), *is, until_ms, rc, false};
    }
    slot->asking = false;
    pthread_cond_broadcast(&roles_asked);
    pthread_mutex_unlock(&roles_lock);
}

static enum store_rc role_find(struct web *w, const char *admin, struct admin *is, char **why) {
    enum store_rc rc;
    *is = (struct admin){0};
    if (!role_look(admin, is, &rc)) {
        rc = store_admin_find(w->store, admin, is, why);
        role_learned(admin, is, rc);
    } else if (rc == STORE_ERROR) {
        *why = mem_strdup("it did not answer a moment ago");
    }
    return rc;
}

/* The store is asked again at the next request of that administrator. */
static void role_forget(const char *admin) {
    pthread_mutex_lock(&roles_lock);
    role_slot(admin)->until_ms = 0;
    pthread_mutex_unlock(&roles_lock);
}

/* -- where administrators come from -- */

static void known_note(struct req *r, const char *admin) {
    char text[INET6_ADDRSTRLEN];
    state_run(r->w->state, NULL, NULL,
              "INSERT OR REPLACE INTO known (admin, network, at) VALUES (?, ?, ?)", "ssi", admin,
              netaddr_network(r->client, THROTTLE_NETWORK, text), now_s());
}

static void known_take(void *arg, sqlite3_stmt *row) {
    (void)row;
    *(bool *)arg = true;
}

/* Has that administrator signed in from the client's address before? */
static bool known_is(struct req *r, const char *admin) {
    char text[INET6_ADDRSTRLEN];
    bool known = false;
    state_run(r->w->state, known_take, &known,
              "SELECT 1 FROM known WHERE admin = ? AND network = ?", "ss", admin,
              netaddr_network(r->client, THROTTLE_NETWORK, text));
    return known;
}

/* -- cookies -- */

static void set_cookie(struct req *r, const char *secret) {
    struct sbuf b = {0};
    sbuf_printf(&b, COOKIE "=%s; HttpOnly; SameSite=Strict%s%s", secret, r->https ? "; Secure" : "",
                secret[0] == '\0' ? "; Max-Age=0" : "");
    reply_header(r, "Set-Cookie", b.p);
    sbuf_wipe(&b);
}

/* A program may sign in a thousand times a second. */
static void login_bound(struct req *r, const char *admin) {
    state_run(r->w->state, NULL, NULL,
              "DELETE FROM session WHERE admin = ? AND rowid <= (SELECT rowid FROM session WHERE "
              "admin = ? ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
              "ssi", admin, admin, (int64_t)OWN_MAX);
}

/* msg: of the log. */
static void login_session_start(struct req *r, const char *admin, const struct admin *is, bool page,
                                const char *msg) {
    char secret[SECRET_TEXT], csrf[SECRET_TEXT], hash[HASH_TEXT];
    secret_new(secret);
    secret_new(csrf);
    secret_hash(secret, hash);
    int rc = state_run(
        r->w->state, NULL, NULL,
        "INSERT INTO session (hash, admin, csrf, page, ip, created, used, mark) VALUES (?, ?, ?, "
        "?, ?, ?, ?, ?)",
        "sssisiis", hash, admin, csrf, (int64_t)page, r->client, now_s(), now_s(), is->mark);
    if (rc == 1) {
        if (!is->global)
            login_bound(r, admin);
        r->who.admin = mem_strdup(admin);
        r->who.page = page;
        r->who.is = *is;
        r->who.global = is->global;
        reply_data(
            r, json_pack("{s:s, s:b, s:s}", "admin", admin, "global", is->global, "csrf", csrf));
        set_cookie(r, secret);
        known_note(r, admin);
        adminlog(r, "login", admin, "%s", msg);
    } else {
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                   "The session cannot be kept: see the mail log of this server.");
    }
    mem_wipe(secret, sizeof secret);
}

struct found {
    struct who *who;
    int64_t used;
};

static void take_session(void *arg, sqlite3_stmt *row) {
    struct found *f = arg;
    f->who->admin = mem_strdup(state_text(row, 0));
    f->who->csrf = mem_strdup(state_text(row, 1));
    f->who->page = sqlite3_column_int(row, 2) != 0;
    f->who->scopes = SCOPE_ALL;
    f->used = sqlite3_column_int64(row, 3);
    snprintf(f->who->began, sizeof f->who->began, "%s", state_text(row, 4));
}

/* When the session was used last; 0: there is none, or it has ended. */
static int64_t find_session(struct web *w, struct who *who) {
    struct found f = {who, 0};
    int64_t now = now_s();
    state_run(w->state, take_session, &f,
              "SELECT admin, csrf, page, used, mark FROM session WHERE hash = ? AND used > ? AND "
              "created > "
              "?",
              "sii", who->key, now - w->cfg->p.web_session_time, now - LIFE_S);
    return f.used;
}

static void take_token(void *arg, sqlite3_stmt *row) {
    struct found *f = arg;
    struct who *who = f->who;
    const char *domain = state_text(row, 2);
    who->admin = mem_strdup(state_text(row, 0));
    who->scopes = token_scopes(state_text(row, 1));
    who->domain = domain[0] == '\0' ? NULL : mem_strdup(domain);
    who->token = true;
    f->used = sqlite3_column_int64(row, 3);
    snprintf(who->began, sizeof who->began, "%s", state_text(row, 4));
}

static int64_t find_token(struct web *w, struct who *who) {
    struct found f = {who, 0};
    state_run(
        w->state, take_token, &f,
        "SELECT admin, scopes, domain, used, born FROM token WHERE hash = ? AND (expires = 0 OR "
        "expires > ?)",
        "si", who->key, now_s());
    return f.used;
}

/* Notes its use, not more often than anybody wants to know. */
static void touch(struct req *r, int64_t used, const char *sql) {
    int64_t now = now_s();
    if (r->who.admin != NULL && now - used >= TOUCH_S)
        state_run(r->w->state, NULL, NULL, sql, "is", now, r->who.key);
}

/* A session ends when the administrator's password is changed, and a token with the account that
 * made it: a later one of the same address is another account. */
static bool same_account(const struct who *who) {
    if (!who->token)
        return strcmp(who->began, who->is.mark) == 0;
    return who->began[0] == '\0' || who->is.born[0] == '\0' ||
           strcmp(who->began, who->is.born) == 0;
}

bool session_lasts(struct web *w, const struct who *who) {
    struct who now = {.token = who->token};
    char *why = NULL;
    memcpy(now.key, who->key, sizeof now.key);
    if (who->token)
        find_token(w, &now);
    else
        find_session(w, &now);
    bool lasts = now.admin != NULL && role_find(w, now.admin, &now.is, &why) == STORE_YES &&
                 same_account(&now) && (now.is.global || !who->global);
    who_free(&now);
    free(why);
    return lasts;
}

bool session_identify(struct req *r) {
    const char *header = req_header(r, "Authorization");
    const char *cookie = MHD_lookup_connection_value(r->conn, MHD_COOKIE_KIND, COOKIE);
    char *why = NULL;
    if (header != NULL && strncasecmp(header, "Bearer ", 7) == 0) {
        secret_hash(header + 7, r->who.key);
        touch(r, find_token(r->w, &r->who), "UPDATE token SET used = ? WHERE hash = ?");
    } else if (cookie != NULL && cookie[0] != '\0') {
        secret_hash(cookie, r->who.key);
        touch(r, find_session(r->w, &r->who), "UPDATE session SET used = ? WHERE hash = ?");
    }
    if (r->who.admin == NULL) {
        reply_fail(r, MHD_HTTP_UNAUTHORIZED,
                   cookie != NULL ? "Session expired, please re-login." : "Login required.");
        return false;
    }
    enum store_rc rc = role_find(r->w, r->who.admin, &r->who.is, &why);
    r->who.global = r->who.is.global && r->who.domain == NULL;
    if (rc == STORE_ERROR)
        reply_store_failed(r, why);
    else if (rc == STORE_NO)
        reply_fail(r, MHD_HTTP_UNAUTHORIZED, "Login required.");
    if (rc == STORE_YES && !same_account(&r->who)) {
        reply_fail(r, MHD_HTTP_UNAUTHORIZED,
                   r->who.token ? "The token is of an earlier account of that address."
                                : "Session expired, please re-login.");
        return false;
    }
    return rc == STORE_YES;
}

/* -- requests that a foreign page sends with our cookie -- */

/* "https://host:port" against the Host that the browser asked for. */
static bool same_host(struct req *r, const char *origin) {
    const char *host = req_header(r, "X-Forwarded-Host");
    const char *at = strstr(origin, "://");
    if (host == NULL || r->direct)
        host = req_header(r, "Host");
    return at != NULL && host != NULL && strcasecmp(at + 3, host) == 0;
}

bool session_origin_ok(struct req *r) {
    const char *origin = req_header(r, "Origin"), *site = req_header(r, "Sec-Fetch-Site");
    if ((origin == NULL || same_host(r, origin)) &&
        (site == NULL || strcmp(site, "same-origin") == 0 || strcmp(site, "none") == 0))
        return true;
    reply_fail(r, MHD_HTTP_FORBIDDEN, "The request comes from another site.");
    return false;
}

bool session_csrf_ok(struct req *r) {
    const char *word = req_header(r, "X-CSRF-Token");
    if (r->who.token || !r->who.page || (word != NULL && secret_equal(word, r->who.csrf)))
        return true;
    reply_fail(r, MHD_HTTP_FORBIDDEN,
               "Security token did not match. Please refresh current page and re-perform form "
               "action.");
    return false;
}

/* -- signing in -- */

static void sign_in(struct req *r, const char *user, const char *password, bool known) {
    struct admin a;
    char *why = NULL;
    enum store_rc rc = store_admin_verify(r->w->store, user, password, &a, &why);
    throttle_end(r->client, user, known,
                 rc == STORE_YES  ? THROTTLE_RIGHT
                 : rc == STORE_NO ? THROTTLE_WRONG
                                  : THROTTLE_UNKNOWN);
    if (rc == STORE_ERROR) {
        reply_store_failed(r, why);
        return;
    }
    if (rc == STORE_NO) {
        log_warn("web", "%s: login failed for %s", r->client, user);
        reply_fail(r, MHD_HTTP_UNAUTHORIZED, "Username or password is incorrect.");
        return;
    }
    bool page = req_header(r, "Origin") != NULL || req_header(r, "Sec-Fetch-Site") != NULL;
    login_session_start(r, user, &a, page, "Admin login success");
}

static void refuse_guess(struct req *r, unsigned wait) {
    char seconds[16];
    bool full = wait == THROTTLE_FULL;
    snprintf(seconds, sizeof seconds, "%u", full ? 1 : wait);
    if (full)
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "Too many sign in at a time: try again.");
    else
        reply_fail(r, MHD_HTTP_TOO_MANY_REQUESTS,
                   "Too many failed logins: try again in %u seconds.", wait);
    reply_header(r, "Retry-After", seconds);
}

void session_login(struct req *r) {
    const char *name = req_text(r, "username"), *password = req_text(r, "password");
    if (name == NULL || password == NULL || strlen(name) > 255 || strlen(password) > PASS_BYTES ||
        str_has_control(str_of(name))) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "username and password are needed.");
        return;
    }
    char *user = mem_strdup(name);
    str_lower(user, strlen(user));
    bool known = known_is(r, user);
    unsigned wait = throttle_begin(r->client, user, known);
    if (wait > 0)
        refuse_guess(r, wait);
    else
        sign_in(r, user, password, known);
    free(user);
}

void session_logout(struct req *r) {
    if (state_run(r->w->state, NULL, NULL, "DELETE FROM session WHERE hash = ?", "s", r->who.key) <
        0) {
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                   "The session goes on, it cannot be ended: see the mail log of this server.");
        return;
    }
    reply_ok(r);
    set_cookie(r, "");
}

void session_show(struct req *r) {
    reply_data(r, json_pack("{s:o, s:b, s:s, s:s}", "admin", json_text(r->who.admin), "global",
                            r->who.global, "csrf", r->who.csrf == NULL ? "" : r->who.csrf,
                            "version", PH_VERSION));
}

/* -- the first administrator's link -- */

static void take_admin(void *arg, sqlite3_stmt *row) {
    *(char **)arg = mem_strdup(state_text(row, 0));
}

/* With the old password its sessions end, and links to set another one. */
static bool set_password(struct req *r, const char *admin, const char *password) {
    struct sbuf hash = {0};
    char *why = NULL;
    bool made = password_hash(password, &hash);
    enum store_rc rc = made ? store_admin_password(r->w->store, admin, hash.p, &why) : STORE_ERROR;
    sbuf_wipe(&hash);
    if (rc == STORE_ERROR)
        reply_store_failed(r, made ? why : mem_strdup("the password cannot be hashed"));
    if (rc == STORE_ERROR)
        return false;
    role_forget(admin);
    state_run(r->w->state, NULL, NULL, "DELETE FROM session WHERE admin = ?", "s", admin);
    state_run(r->w->state, NULL, NULL, "DELETE FROM link WHERE admin = ?", "s", admin);
    return true;
}

void session_welcome(struct req *r) {
    const char *secret = req_text(r, "token"), *password = req_text(r, "password");
    char hash[HASH_TEXT], *admin = NULL;
    if (secret == NULL || password == NULL || strlen(password) < PASS_MIN ||
        strlen(password) > PASSWORD_MAX) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST,
                   "A password has at least %u characters, and at most %u bytes.", PASS_MIN,
                   PASSWORD_MAX);
        return;
    }
    secret_hash(secret, hash);
    state_run(r->w->state, take_admin, &admin,
              "SELECT admin FROM link WHERE hash = ? AND expires > ?", "si", hash, now_s());
    /* The request that deletes the link may use it: a link works once. */
    if (admin == NULL ||
        state_run(r->w->state, NULL, NULL, "DELETE FROM link WHERE hash = ?", "s", hash) != 1) {
        log_warn("web", "%s: a link that is not valid", r->client);
        reply_fail(r, MHD_HTTP_FORBIDDEN,
                   "This link is not valid any more. Make a new one: posthouse admin link ADDRESS");
    } else if (set_password(r, admin, password)) {
        struct admin is;
        char *why = NULL;
        enum store_rc rc = role_find(r->w, admin, &is, &why);
        if (rc == STORE_ERROR)
            reply_store_failed(r, why);
        else if (rc == STORE_NO)
            reply_fail(r, MHD_HTTP_FORBIDDEN, "%s is no administrator any more.", admin);
        else
            login_session_start(r, admin, &is, true, "Admin password set with a one-time link");
    }
    free(admin);
}

/* -- what an administrator may -- */

enum store_rc session_manages(const struct req *r, const char *domain, char **why) {
    if (r->who.domain != NULL && strcmp(r->who.domain, domain) != 0)
        return STORE_NO;
    return r->who.is.global ? STORE_YES : store_manages(r->w->store, r->who.admin, domain, why);
}

bool session_may(struct req *r, const char *domain) {
    char *why = NULL;
    enum store_rc rc = session_manages(r, domain, &why);
    if (rc == STORE_ERROR)
        reply_store_failed(r, why);
    else if (rc == STORE_NO)
        reply_fail(r, MHD_HTTP_FORBIDDEN, "Permission denied.");
    return rc == STORE_YES;
}

const char *session_lists(const struct req *r) {
    return r->who.global ? NULL : r->who.admin;
}

void session_sweep(struct web *w) {
    int64_t now = now_s();
    state_run(w->state, NULL, NULL, "DELETE FROM session WHERE used < ? OR created < ?", "ii",
              now - w->cfg->p.web_session_time, now - LIFE_S);
    state_run(w->state, NULL, NULL, "DELETE FROM link WHERE expires < ?", "i", now);
    state_run(w->state, NULL, NULL, "DELETE FROM known WHERE at < ?", "i", now - KNOWN_S);
    state_run(w->state, NULL, NULL,
              "DELETE FROM log WHERE timestamp < datetime('now', '-365 days')", "");
    state_run(w->state, NULL, NULL, "DELETE FROM run WHERE started < ?", "i", now - 30 * 86400);
    state_run(w->state, NULL, NULL, "DELETE FROM sample WHERE at < ?", "i", now - 31 * 86400);
}
