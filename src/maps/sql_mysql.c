/*
 * maps/sql_mysql.c - MariaDB and MySQL behind mysql: tables; see sql.h
 */
#include <errno.h>
#include <mysql.h>
#include <stdlib.h>
#include <string.h>

#include "maps/sql.h"
#include "util/mem.h"

#define CR_FIRST 2000 /* the library's own errors: the connection is of no use */
#define CR_LAST  2999

static char *mysql_message(MYSQL *db) {
    return mem_strdup(*mysql_error(db) == '\0' ? "no answer" : mysql_error(db));
}

static void mysql_set_tls(MYSQL *db, const struct tabconf *c) {
    const char *bad = NULL, *ca = tabconf_str(c, "tls_CAfile", NULL);
    const char *path = tabconf_str(c, "tls_CApath", NULL),
               *cert = tabconf_str(c, "tls_cert_file", NULL);
    const char *key = tabconf_str(c, "tls_key_file", NULL),
               *ciphers = tabconf_str(c, "tls_ciphers", NULL);
    my_bool verify = tabconf_bool(c, "tls_verify_cert", false, &bad), on = 1;
    if (ca == NULL && path == NULL && cert == NULL && key == NULL && ciphers == NULL && !verify)
        return;
    mysql_ssl_set(db, key, cert, ca, path, ciphers);
    mysql_optionsv(db, MYSQL_OPT_SSL_ENFORCE, &on);
    mysql_optionsv(db, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
}

static void mysql_set_options(MYSQL *db, const struct tabconf *c) {
    unsigned connect = REMOTE_CONNECT_S, answer = REMOTE_ANSWER_S;
    const char *file = tabconf_str(c, "option_file", NULL);
    mysql_optionsv(db, MYSQL_OPT_CONNECT_TIMEOUT, &connect);
    mysql_optionsv(db, MYSQL_OPT_READ_TIMEOUT, &answer);
    mysql_optionsv(db, MYSQL_OPT_WRITE_TIMEOUT, &answer);
    mysql_optionsv(db, MYSQL_SET_CHARSET_NAME, tabconf_str(c, "charset", "utf8mb4"));
    if (file != NULL) {
        mysql_optionsv(db, MYSQL_READ_DEFAULT_FILE, file);
        mysql_optionsv(db, MYSQL_READ_DEFAULT_GROUP, tabconf_str(c, "option_group", "client"));
    }
    mysql_set_tls(db, c);
}

/* "host", "host:port", "inet:host:port", "unix:/path". */
static bool connect_to(MYSQL *db, const char *name, const struct tabconf *c) {
    struct str host = str_of(name), port = STR_LIT("");
    uint64_t port_no = 0;
    bool local = str_istarts(host, "unix:");
    if (local || str_istarts(host, "inet:"))
        host = str_from(host, 5);
    local = local || host.p[0] == '/';
    ptrdiff_t colon = local ? -1 : str_rchr(host, ':');
    if (colon >= 0) {
        port = str_from(host, (size_t)colon + 1);
        host = str_make(host.p, (size_t)colon);
    }
    str_u64(port, &port_no);
    char *h = str_dup(host);
    /* "localhost" means the socket to the library; here it means what it says. */
    const char *where = local ? NULL : strcmp(h, "localhost") == 0 ? "127.0.0.1" : h;
    bool ok = mysql_real_connect(db, where, tabconf_str(c, "user", NULL),
                                 tabconf_str(c, "password", NULL), tabconf_str(c, "dbname", NULL),
                                 (unsigned)port_no, local ? h : NULL, CLIENT_MULTI_RESULTS) != NULL;
    free(h);
    return ok;
}

static void *my_connect(const char *host, const struct tabconf *c, char **why) {
    MYSQL *db = mysql_init(NULL);
    if (db == NULL) {
        *why = mem_strdup("out of memory");
        return NULL;
    }
    mysql_set_options(db, c);
    if (connect_to(db, host, c))
        return db;
    *why = mysql_message(db);
    mysql_close(db);
    return NULL;
}

static void my_close(void *conn) {
    mysql_close(conn);
}

static void my_quote(void *conn, struct str text, struct sbuf *out) {
    char *at = sbuf_room(out, 2 * text.n + 1);
    sbuf_advance(out, mysql_real_escape_string(conn, at, text.p, text.n));
}

static void mysql_take_rows(MYSQL_RES *r, sql_value_fn fn, void *arg) {
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(r)) != NULL) {
        const unsigned long *n = mysql_fetch_lengths(r);
        for (unsigned i = 0; i < mysql_num_fields(r); i++)
            fn(arg, row[i] == NULL ? STR_NONE : str_make(row[i], n[i]));
    }
}

static enum remote_rc mysql_failure(MYSQL *db, char **why) {
    unsigned code = mysql_errno(db);
    *why = mysql_message(db);
    return code >= CR_FIRST && code <= CR_LAST ? REMOTE_LOST : REMOTE_FAILED;
}

/* A stored procedure gives several results, the last one without rows. */
static enum remote_rc my_ask(void *conn, const char *query, sql_value_fn fn, void *arg, int *sets,
                             char **why) {
    MYSQL *db = conn;
    int more = mysql_real_query(db, query, strlen(query));
    while (more == 0) {
        MYSQL_RES *r = mysql_store_result(db);
        if (r != NULL) {
            mysql_take_rows(r, fn, arg);
            mysql_free_result(r);
            ++*sets;
        } else if (mysql_errno(db) != 0) {
            break;
        }
        more = mysql_next_result(db);
        if (more == -1)
            return REMOTE_OK;
    }
    return mysql_failure(db, why);
}

/* Does a backslash in a text stand for itself?  The server says it with each answer. */
static bool mysql_backslash_is_plain(const MYSQL *db) {
    return (db->server_status & SERVER_STATUS_NO_BACKSLASH_ESCAPES) != 0;
}

/* Behind the text in quotes that begins at p. */
static const char *mysql_text_end(const char *p, bool plain_backslash) {
    char mark = *p++;
    while (*p != '\0') {
        if (*p == '\\' && p[1] != '\0' && !plain_backslash)
            p++;
        else if (*p == mark && p[1] == mark)
            p++;
        else if (*p == mark)
            return p + 1;
        p++;
    }
    return p;
}

/* The usual collations take letters with and without accents for equal (and so müller.example for
 * muller.example); a text with a collation of its own is compared by that. */
static void my_exact(void *conn, const char *query, struct sbuf *out) {
    bool plain = mysql_backslash_is_plain(conn);
    while (*query != '\0') {
        bool quoted = *query == '\'' || *query == '"';
        const char *end = quoted ? mysql_text_end(query, plain) : query + 1;
        struct str part = str_make(query, (size_t)(end - query));
        sbuf_add_str(out, part);
        if (quoted && !str_is_ascii(part))
            sbuf_printf(out, " COLLATE %s_bin", mysql_character_set_name(conn));
        query = end;
    }
}

const struct sql_ops sql_mysql = {.host = "localhost",
                                  .pool = {my_connect, my_close},
                                  .quote = my_quote,
                                  .ask = my_ask,
                                  .exact = my_exact};
