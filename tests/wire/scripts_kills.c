/*
 * tests/wire/scripts_kills.c - named scripts: while a round goes on, kill -9 or a saved record
 *
 * What relay hosts have taken seconds before is known to the spool by then, and goes to no host
 * again.
 */
#include "scripts.h"

static const struct named rows[] = {
    {.name = "one recipient is taken, one put off, killed while the next host is silent",
     .road = ROAD_LIST,
     .can = PIPE_CAN,
     SMALL(1, 2),
     .must_send = 2,
     .may_send = 2,
     .twist = {STAGE_RCPT, ACT_CODE, 450, 1, 1},
     .host1 = WIRE_SILENT,
     .event = EVENT_KILL,
     .event_ms = 15000},
    {.name = "one destination takes it, killed while the other one is silent",
     .road = ROAD_TRANSPORT,
     .can = PIPE_CAN,
     SMALL(1, 2),
     .may_send = 2,
     .shape = SHAPE_SPREAD,
     .host1 = WIRE_SILENT,
     .event = EVENT_KILL,
     .event_ms = 15000},
    {.name = "mail that may be tried once waits while a record is saved",
     WAITING_MAIL,
     .event = EVENT_SAVED,
     .event_ms = 20000,
     .lifetime_s = 1},
    {.name = "a record is saved",
     .can = PIPE_CAN,
     SMALL(2, 1),
     .event = EVENT_SAVED,
     .event_ms = 10,
     .event2 = EVENT_SAVED,
     .event2_ms = 30,
     .shape = SHAPE_MORE},
};

const struct named_group scripts_kills = {rows, sizeof rows / sizeof rows[0]};
