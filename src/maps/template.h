/*
 * maps/template.h - query and result templates with %s, %u, %d, %1 … of tables in databases
 *
 * As in mysql_table(5) and its like: in a query the key is taken apart, in a result format the
 * result (%s %u %d) and the key (%S %U %D %1 … %9).  Any thread.
 */
#ifndef PH_MAPS_TEMPLATE_H
#define PH_MAPS_TEMPLATE_H

#include "maps/maps.h"

typedef void (*template_quote_fn)(void *arg, struct str text, struct sbuf *out);

/* What is wrong with the template ("unknown %x"), or NULL; static text. */
const char *template_check(const char *t);
/* May a table with such a "domain" list (NULL: none) be asked for key at all?  *err (MATCH_ERROR:
 * the list's own table or file cannot be asked) is the caller's to free. */
enum match_rc template_key_has(struct str key, struct matchlist *domains, char **err);
/* Does anything in it depend on the key? */
bool template_is_dynamic(const char *t);
/* Appends the query for key, each part through quote (NULL: as it is).  False: it cannot be asked,
 * since the key lacks a part that the template needs: the answer is "not found". */
bool template_query(const char *t, struct str key, template_quote_fn quote, void *arg,
                    struct sbuf *out);
/* Appends one result, after a comma if out holds one already.  False: skipped. */
bool template_result(const char *t, struct str result, struct str key, struct sbuf *out);

#endif
