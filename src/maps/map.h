/*
 * maps/map.h - a lookup table: one interface, one file a type
 *
 * Tables live in the lookup process (and in the command-line tools); the relay asks by message
 * (query.h).  A table that cannot be opened is still a struct map, and every answer is an error:
 * mail that needs it waits, the daemon goes on.  Any thread may ask; a table in a file is asked by
 * one at a time, one in a database (shared) by many.
 */
#ifndef PH_MAPS_MAP_H
#define PH_MAPS_MAP_H

#include <pthread.h>
#include <sys/stat.h>

#include "util/str.h"

enum map_rc { MAP_ERROR = -1, MAP_NOT_FOUND = 0, MAP_FOUND = 1 };

struct map;
struct maps;
struct tabconf;

/* A table in a database may answer with several rows, one that is made of tables with what several
 * of them say. */
enum map_values {
    VALUES_JOINED, /* a comma between each two, as Postfix does */
    VALUES_ONE     /* more than one is an error: joined they would be read as one that no row has */
};

struct map_pair {
    struct str key;
    struct str value;
};

/* Do keys and values in a file end in a NUL? */
enum map_nul {
    MAP_NUL_AS_EVER, /* as Postfix does by itself: yes, but for cdb */
    MAP_NUL_YES,
    MAP_NUL_NO
};

struct map_ops {
    const char *type;
    const char *suffix; /* of the file beside the source, ".db"; "" if the source itself; NULL: no
                         * file */
    bool fixed;         /* exact keys, folded by the caller; else patterns that see the whole key */
    bool shared;        /* get may run on many threads at once */
    bool remote;        /* in a database or behind a socket */
    /* Opens m->name; negative errno with m->err set. */
    int (*open)(struct map *m);
    void (*close)(struct map *m);
    /* A NUL follows key, here and in where. */
    enum map_rc (*get)(struct map *m, struct str key, struct sbuf *value);
    /* Calls fn for every pair, until it returns non-zero; NULL: cannot be listed. */
    int (*each)(struct map *m, int (*fn)(void *arg, struct str key, struct str value), void *arg);
    /* The same of each rule of a table of patterns; key is then where the rule stands ("line 7");
     * NULL: it has none. */
    void (*rules)(struct map *m, int (*fn)(void *arg, struct str key, struct str value), void *arg);
    /* Would the server be asked for key at all?  NULL: always. */
    bool (*asks)(struct map *m, struct str key);
    /* Appends where the answer for key comes from: a line of a file, a statement, a search.  NULL:
     * the spec says it all. */
    void (*where)(struct map *m, struct str key, struct sbuf *out);
    /* Writes a new file; NULL: cannot be written.  Replaces path atomically. */
    int (*build)(const char *path, const struct map_pair *v, size_t n, mode_t mode,
                 enum map_nul nul, const char **why);
};

struct map {
    const struct map_ops *ops;
    char *spec; /* "hash:/etc/postfix/x" */
    char *name; /* "/etc/postfix/x" or what stands in {} */
    char *dir;  /* where relative names begin, or NULL */
    char *path; /* file that holds the data, or NULL */
    void *state;
    struct tabconf *given; /* instead of a file; owned */
    char *err;             /* why the last open or look-up failed */
    size_t several;        /* it failed because of so many values, where there may be one; else 0 */
    char *remark;          /* of the last open: the first line that is not understood, or NULL */
    size_t remarks;        /* how many lines are not, or say what another one has said */
    pthread_rwlock_t lock; /* to ask or to open; shared tables are asked with it for reading */
    pthread_mutex_t err_lock; /* of err, several, seen and seen_ms */
    struct stat st;           /* of path when it was opened; map_read_from */
    struct stat seen; /* of path, which is being written in place: as it was last, and since */
    int64_t seen_ms;  /* when */
    _Atomic int64_t checked_ms; /* when path was last looked at */
    enum map_values values;
    bool opened;
    bool fold;
    bool fixed; /* as ops->fixed, or as the first of the tables that it is made of */
};

/* spec is "type:name" or "proxy:type:name".  dir is where relative names begin.  Never NULL. */
struct map *map_open_as(const char *spec, const char *dir, enum map_values values);
/* From now on a text that is being written when it is opened is waited for, for a moment; then it
 * is asked nothing until it has settled.  Before there are threads. */
void map_wait_for_texts(void);
/* The same, with VALUES_JOINED. */
struct map *map_open(const char *spec, const char *dir);
/* A table in a database with its parameters in conf (taken over) instead of a file; spec is for
 * messages. */
struct map *map_open_conf(const struct map_ops *ops, const char *spec, struct tabconf *conf,
                          enum map_values values);
void map_close(struct map *m);
/* Folds the key for fixed tables and follows changes of the file.  On MAP_ERROR m->err says why
 * (read it with map_error). */
enum map_rc map_get(struct map *m, struct str key, struct sbuf *value);
/* Why the last look-up failed; the caller frees. */
char *map_error(struct map *m);
/* The same, and in *several how many values there were where there may be one; 0: it failed for
 * another reason. */
char *map_fault(struct map *m, size_t *several);
/* Does an answer for key need a server?  Quick: asks none. */
bool map_asks(struct map *m, struct str key);
/* Where the answer for key comes from, for people; may ask a file or the server's library. */
void map_where(struct map *m, struct str key, struct sbuf *out);
/* Returns 0 to go on. */
typedef int (*map_row_fn)(void *arg, struct str key, struct str value);
int map_each(struct map *m, map_row_fn fn, void *arg);
/* Calls fn for every row that can be told without asking a server: also the rules of a table of
 * patterns, with "line 7" for a key, and what a static table says, with "". */
void map_rows(struct map *m, map_row_fn fn, void *arg);
/* The tables that m is made of (unionmap, pipemap); NULL: none. */
const struct maps *map_parts(const struct map *m);
/* Keeps st, the state that m's file had when it was opened, to compare later looks with.  A file
 * that is newer than a tick of the kernel's clock may be written again and keep its times: it
 * counts as changed at the next look. */
void map_read_from(struct map *m, const struct stat *st);
/* The file that a program made cannot be used as it is: sets the error, with what to do.  -EIO. */
int map_broken(struct map *m, const char *why);
void map_set_error(struct map *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Sets the error of VALUES_ONE, which says how many values there are and shows none of them; shown:
 * the table, as maps_show shows it. */
void map_set_several(struct map *m, const char *shown, size_t n);
/* The error of part, which m is made of, becomes m's; unless it is that of VALUES_ONE, which names
 * its table, named stands before it ("": nothing does). */
void map_take_error(struct map *m, struct map *part, const char *named);
/* A line of the file, or rule, is not what it should be: logs "text", keeps the first such text in
 * m->remark and counts it.  They are gone when the table is closed, or opened again. */
void map_remark(struct map *m, const char *text);
/* From now on they are not logged: a program that shows m->remark itself calls this before it has
 * other threads. */
void map_log_no_remarks(void);
/* NULL if there is no such type. */
const struct map_ops *map_type(struct str type);
/* "source is newer than the database", or NULL; the caller frees. */
char *map_stale(const struct map *m);
/* Is the spec's syntax that of a table ("word:rest", or braces)? */
bool map_looks_like(struct str spec);

/* The text of a table source in postmap(1)'s syntax: calls fn for each entry.  Remarks
 * ("expected format: key whitespace value") go to warn. */
void map_source_parse(struct str text, bool fold,
                      void (*fn)(void *arg, struct str key, struct str value, int line),
                      void (*warn)(void *arg, int line, const char *text), void *arg);
/* The same of aliases(5): entries are "name: value". */
void alias_source_parse(struct str text, bool fold,
                        void (*fn)(void *arg, struct str key, struct str value, int line),
                        void (*warn)(void *arg, int line, const char *text), void *arg);

extern const struct map_ops map_hash, map_btree, map_lmdb, map_cdb, map_texthash, map_inline,
    map_static, map_regexp, map_pcre, map_cidr, map_fail, map_mysql, map_pgsql, map_sqlite,
    map_ldap, map_union, map_pipe, map_socket, map_tcp, map_accounts, map_relays, map_unix;

#endif
