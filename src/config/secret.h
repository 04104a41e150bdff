/*
 * config/secret.h - which texts of the configuration are secret
 *
 * The one place that says so, for what lists parameters and for what explains look-ups; any thread,
 * nothing is kept. How the other secrets are kept from view is in docs/architecture.md ("Secrets").
 */
#ifndef PH_CONFIG_SECRET_H
#define PH_CONFIG_SECRET_H

#include <stdbool.h>

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

/* Are the answers of the tables in spec secret: logins, or relay records?  p: the parameters of the
 * transport or service that asks. */
bool secret_answers(const struct config *c, const struct params *p, const char *spec);

#endif
