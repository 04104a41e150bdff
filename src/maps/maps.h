/*
 * maps/maps.h - lists of tables, and match lists
 *
 * A struct maps is what a parameter such as smtp_sasl_password_maps holds; a struct matchlist what
 * relay_domains or mynetworks holds.  Any thread may ask.
 */
#ifndef PH_MAPS_MAPS_H
#define PH_MAPS_MAPS_H

#include "maps/map.h"
#include "util/net.h"

struct maps {
    struct map **v;
    size_t n;
};

/* Opens every table of spec ("hash:/a, regexp:/b", braces allowed). */
struct maps *maps_open_as(const char *spec, const char *dir, enum map_values values);
/* The same, with VALUES_JOINED. */
struct maps *maps_open(const char *spec, const char *dir);
void maps_close(struct maps *m);

/* Appends spec for people to read: what stands in it besides types and files (static:, inline:,
 * words that are no table) may be a password and is left out. */
void maps_show(const char *spec, struct sbuf *out);

/* Is some table of spec (a list of tables or a match list) in a database or behind a socket? */
bool maps_are_remote(const char *spec);

/* Is the table of that index of spec one that the administrator of this machine fills: main.cf
 * itself or a file, and neither a database nor a server? */
bool maps_table_is_ours(const char *spec, size_t index);

/* Keys of one question.  A domain has up to 128 labels (RFC 1035 section 2.3.4), each of which
 * begins one; a few more are made of the address as a whole. */
#define KEYS_MAX 144

struct maps_key {
    struct str key;
    bool partial; /* a shortened form: not for pattern tables */
};

/* One table asked for one key, for people to read. */
struct maps_step {
    char *table;
    char *key;
    enum map_rc rc;
    bool skipped; /* not asked: a shortened key, a table of patterns */
    char *value;  /* MAP_FOUND; NULL if it is a secret */
    char *where;  /* file and line, statement or search; may be "" */
};

struct maps_trace {
    bool secret; /* what the tables answer is not to be kept */
    struct maps_step *v;
    size_t n;
};

struct maps_answer {
    enum map_rc rc;
    size_t key;   /* index of the key that was found or failed */
    size_t table; /* index of the table that answered */
    struct sbuf value;
    char *err;      /* MAP_ERROR: why; owned */
    size_t several; /* MAP_ERROR: so many values, where there may be one: err names the table and
                     * shows none of them; 0: another error */
    struct maps_trace *trace; /* NULL unless it was asked for; owned */
};

/* Does an answer need a server?  "domain = …" of a table, or a key without the part that its query
 * needs, may say no.  Quick. */
bool maps_ask_remote(const struct maps *m, const struct maps_key *keys, size_t n_keys);
/* Asks every table for the first key, then for the second, and so on.  An error ends the search:
 * a less specific key is never tried after one. */
void maps_find(struct maps *m, const struct maps_key *keys, size_t n_keys, struct maps_answer *a);
/* The same, and notes each step in trace. */
void maps_find_traced(struct maps *m, const struct maps_key *keys, size_t n_keys,
                      struct maps_answer *a, struct maps_trace *trace);
/* A further step, zeroed but for its texts; for a caller that builds a trace. */
struct maps_step *maps_trace_add(struct maps_trace *t, struct str table, struct str key);
void maps_trace_free(struct maps_trace *t);
void maps_answer_free(struct maps_answer *a);

enum match_kind {
    MATCH_DOMAIN,
    MATCH_NETWORK,
    MATCH_STRING,
    MATCH_USER /* a login name; the lookup process is asked by the number of the user */
};

/* How a list of domains or hosts is compared, as bits. */
enum match_how {
    MATCH_PARENTS = 1,  /* example.com also matches sub.example.com */
    MATCH_IDNA2003 = 2, /* spellings mean the same as enable_idna2003_compatibility says */
    MATCH_WHOLE = 4     /* nor does .example.com, in a table either */
};
#define MATCH_HOW_ALL (MATCH_PARENTS | MATCH_IDNA2003 | MATCH_WHOLE)

static inline unsigned match_how(bool parents, bool idna2003) {
    return (parents ? MATCH_PARENTS : 0U) | (idna2003 ? MATCH_IDNA2003 : 0U);
}

/* How mydestination, virtual_alias_domains and virtual_mailbox_domains are compared: as in Postfix
 * subdomains are domains of their own there. */
static inline unsigned match_how_own(bool idna2003) {
    return match_how(false, idna2003) | MATCH_WHOLE;
}

enum match_rc { MATCH_ERROR = -1, MATCH_NO = 0, MATCH_YES = 1 };

/* A list that has a word is a table that was found to have it. */
static inline enum match_rc match_rc_of(enum map_rc rc) {
    return rc == MAP_FOUND ? MATCH_YES : rc == MAP_NOT_FOUND ? MATCH_NO : MATCH_ERROR;
}

static inline enum map_rc map_rc_of(enum match_rc rc) {
    return rc == MATCH_YES ? MAP_FOUND : rc == MATCH_NO ? MAP_NOT_FOUND : MAP_ERROR;
}

struct matchlist;

/* Parses a list of patterns, "!pattern", "type:table" and the pieces of files already put in
 * place of "/file/name".  how: bits of enum match_how. */
struct matchlist *matchlist_open(const char *spec, const char *dir, enum match_kind kind,
                                 unsigned how);
/* Is a pattern a table?  As in Postfix, one with a colon is, though there may be no such type:
 * taken for the name of a host or domain it would never fit, and so, behind "!", keep nothing out.
 */
bool matchlist_names_table(struct str pattern);
/* The "domain" list of a table in a database: strings, tables, and the names of files, which are
 * read now; one that cannot be read makes an error of each question that gets to it. */
struct matchlist *matchlist_of_table(const char *spec);
/* Why a file or a table of a list (NULL: none) that was just opened cannot be read, or NULL; the
 * list's. */
const char *matchlist_unopened(const struct matchlist *l);
/* Has the list (NULL: none) a table that may take long to answer? */
bool matchlist_asks_server(const struct matchlist *l);
void matchlist_close(struct matchlist *l);
/* key: a domain or string; for MATCH_NETWORK an address as text, or "address name" of a client.
 * *err (MATCH_ERROR) is the caller's to free. */
enum match_rc matchlist_has(struct matchlist *l, struct str key, char **err);
/* Does it ask tables?  Then only the lookup process can answer. */
bool matchlist_has_tables(const char *spec);
/* Has a network list anything but networks: names of hosts, or tables? */
bool matchlist_has_names(const char *spec);
/* A pattern of a network list that is wrong ("non-null host address bits"), or NULL; *what is the
 * pattern.  A key that matches before it is in the list or not; for all others it is an error. */
const char *matchlist_check_networks(const char *spec, struct str *what);
/* Has a network list a network with a large part of the Internet in it?  *what is the first. */
bool matchlist_wide_network(const char *spec, struct str *what);

#endif
