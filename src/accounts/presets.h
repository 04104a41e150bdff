/*
 * accounts/presets.h - providers that people relay through: host, port, TLS, and what to enter
 *
 * Constants, for any thread: what the page and posthouse setup offer.  docs/providers.md has the
 * same list for people.
 */
#ifndef PH_ACCOUNTS_PRESETS_H
#define PH_ACCOUNTS_PRESETS_H

#include <stddef.h>

/* mechanisms and note may be empty; user and password say in words what the provider wants there.
 */
struct preset {
    const char *id, *name, *hosts, *tls, *mechanisms, *user, *password, *note;
};

/* The first one is any relay host that has no preset of its own. */
extern const struct preset presets[];
extern const size_t presets_n;

#endif
