/*
 * web/steps.h - the steps of an explanation or a test, as an administrator may see them
 *
 * Any thread; the caller keeps steps from changing meanwhile.
 */
#ifndef PH_WEB_STEPS_H
#define PH_WEB_STEPS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* A copy of the step at i, for the caller.  Without global, files, queries and keys are left out,
 * and the names of the accounts at the relay hosts, which may be other customers', are replaced
 * wherever a step has one, also in what a relay host said.  The step that says what an alias stands
 * for becomes one that says that this is not shown; those behind it are NULL. */
json_t *steps_shown(json_t *steps, size_t i, bool global);
/* All of them. */
json_t *steps_all_shown(json_t *steps, bool global);

#endif
