/*
 * tests/wire/scripts_steps.c - named scripts: what is noted a step at a time, and what is owed
 *
 * The last group: what is added here leaves the chance of all other scripts as it is.
 */
#include "scripts.h"

static const struct named rows[] = {
    {.name = "taken recipient by recipient, killed while another host is silent",
     .road = ROAD_TRANSPORT,
     .can = PIPE_CAN,
     SMALL(1, 8),
     .conf = "smtp_destination_recipient_limit = 1\n",
     .may_send = 8,
     .shape = SHAPE_SPREAD,
     .host1 = WIRE_SILENT,
     .event = EVENT_KILL,
     .event_ms = 15000},
    {.name = "a report that names were expanded is owed over a kill",
     .can = PIPE_CAN,
     SMALL(2, 2),
     .virtuals = 3,
     .list = LIST_NESTED,
     .must_send = 4,
     .shape = SHAPE_NOTIFY,
     .twist = {STAGE_RCPT, ACT_CODE, 450, 0, 2},
     .heals = 1,
     .event = EVENT_KILL,
     .event_ms = 5000},
    {.name = "reports go to what the sender stands for",
     .can = PIPE_CAN,
     SMALL(2, 2),
     .virtuals = 2,
     .list = LIST_FLAT,
     .chief = true,
     .must_send = 2,
     .shape = SHAPE_NOTIFY,
     .twist = {STAGE_RCPT, ACT_CODE, 550, 0, 1}},
};

const struct named_group scripts_steps = {rows, sizeof rows / sizeof rows[0]};
