/*
 * config/secret.h - which texts of the configuration are secret
 *
 * The one place that says so, for what lists parameters and for what explains look-ups; any thread,
 * nothing is kept. How the other secrets are kept from view is in docs/architecture.md ("Secrets").
 */
#ifndef PH_CONFIG_SECRET_H
#define PH_CONFIG_SECRET_H

#include <stdbool.h>

#include "util/str.h"

struct config;
struct params;

enum secret_kind {
    SECRET_NOT,
    SECRET_VALUE, /* the whole value, as of mytable_password */
    SECRET_INLINE /* tables: what is written into the value itself (inline:, static:) */
};

/* What is secret of the value of the main.cf parameter name, or of a slip of its name. */
enum secret_kind secret_param(const char *name);
/* The same of a setting: rows that are written into the value of a name that is none may be logins,
 * too. */
enum secret_kind secret_setting(const char *name, const char *value);

/* Appends text of a configuration that cannot be read as what it should be, to be quoted in an
 * error: all of it, or, where a word of it may be a password or be about one, the name that it
 * begins with, if that is one, and "(hidden)". */
void secret_quote(struct str text, struct sbuf *out);
/* The same of a whole line of main.cf: one that is a single word, and no name, may be the rest of
 * the value before it. */
void secret_quote_line(struct str line, struct sbuf *out);
/* The same of the value of the parameter name: "(hidden)" where a part of it is secret. */
const char *secret_quote_value(const char *name, const char *value);
/* The same of the names behind the $ of that value which stand for nothing: a password may have a
 * $. */
const char *secret_quote_undefined(const char *name, struct str value, const char *names);

/* Are the answers of the tables in spec secret: logins, or relay records?  p: the parameters of the
 * transport or service that asks. */
bool secret_answers(const struct config *c, const struct params *p, const char *spec);

#endif
