/*
 * tests/wire/scripts_steps.c - named scripts: what becomes of a message is noted a step at a time
 *
 * The last group: what is added here leaves the chance of all other scripts as it is.
 */
#include "scripts.h"

static const struct named rows[] = {
    {.name =
         "one destination takes it recipient by recipient, killed while the other one is silent",
     .road = ROAD_TRANSPORT,
     .can = PIPE_CAN,
     SMALL(1, 8),
     .conf = "smtp_destination_recipient_limit = 1\n",
     .may_send = 8,
     .shape = SHAPE_SPREAD,
     .host1 = WIRE_SILENT,
     .event = EVENT_KILL,
     .event_ms = 15000},
};

const struct named_group scripts_steps = {rows, sizeof rows / sizeof rows[0]};
