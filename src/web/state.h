/*
 * web/state.h - what the page keeps of its own: sessions, tokens, links, log, samples, test results
 *
 * An SQLite file in data_directory.  Secrets are kept as their SHA-256 only.  Any thread; a
 * statement that fails is logged, and what it should have found is not there.
 */
#ifndef PH_WEB_STATE_H
#define PH_WEB_STATE_H

#include <sqlite3.h>
#include <stdint.h>

#include "util/str.h"

struct state;

/* NULL with *why (the caller frees). */
struct state *state_open(const char *data_directory, char **why);
void state_close(struct state *s);

typedef void (*state_row_fn)(void *arg, sqlite3_stmt *row);

/* Runs one statement.  sql: a literal, which stays prepared.  kinds: a letter for each "?": s text
 * (NULL: NULL), i int64_t.  fn (may be NULL) is called for each row.  How many rows it changed, or
 * -1. */
int state_run(struct state *s, state_row_fn fn, void *arg, const char *sql, const char *kinds, ...);
/* A column as text; NULL is "". */
const char *state_text(sqlite3_stmt *row, int column);

#define SECRET_TEXT 44U /* a new secret with its NUL: 256 bits */
#define HASH_TEXT   65U /* of a secret, with its NUL */

void secret_new(char out[SECRET_TEXT]);
void secret_hash(const char *secret, char out[HASH_TEXT]);
/* In constant time. */
bool secret_equal(const char *a, const char *b);
int64_t now_s(void);

#endif
