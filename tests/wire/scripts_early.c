/*
 * tests/wire/scripts_early.c - named scripts: hosts that answer content before it has come
 *
 * Their replies come byte by byte, so that all, some or nothing of the content has left the product
 * when it reads the first byte.
 */
#include "scripts.h"

static const struct named rows[] = {
    {.name = "DATA is answered by 354 and 250, and the content is not read",
     .can = PLAIN_CAN,
     .split = true,
     SMALL(1, 1),
     .twist = {STAGE_DATA, ACT_EARLY, 250, 0, 0},
     .second = {STAGE_BODY, ACT_STALL, 0, 0, 0}},
    {.name = "DATA is answered by 354 and 250, and the content ends the connection",
     .can = PLAIN_CAN,
     .split = true,
     SMALL(1, 1),
     .twist = {STAGE_DATA, ACT_EARLY, 250, 0, 0},
     .second = {STAGE_BODY, ACT_MIDDLE, 452, 0, 0}},
    {.name = "DATA is answered by 354 and 250, and large content is not read",
     .can = PLAIN_CAN,
     .split = true,
     .mails = 1,
     .rcpts = 1,
     .size = 100000,
     .twist = {STAGE_DATA, ACT_EARLY, 250, 0, 0},
     .second = {STAGE_BODY, ACT_STALL, 0, 0, 0},
     .heals = 2},
    {.name = "the chunk is answered by 250 before it comes, byte by byte",
     .can = CHUNK_CAN,
     .split = true,
     .mails = 1,
     .rcpts = 1,
     .size = 100000,
     .twist = {STAGE_BODY, ACT_EARLY, 250, 0, 1},
     .heals = 1},
};

const struct named_group scripts_early = {rows, sizeof rows / sizeof rows[0]};
