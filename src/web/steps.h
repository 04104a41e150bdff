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
 * and the name of the account at the relay host, which may be another customer's, is replaced
 * wherever a step has it, also in what the relay host said. */
json_t *steps_shown(json_t *steps, size_t i, bool global);
/* All of them. */
json_t *steps_all_shown(json_t *steps, bool global);

#endif
