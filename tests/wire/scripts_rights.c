/*
 * tests/wire/scripts_rights.c - named scripts: who may send what, and under which login it goes
 */
#include "scripts.h"

#define LOGINS "smtpd_sender_login_maps = hash:owners\nsmtpd_sender_restrictions = "

static const struct named rows[] = {
    {.name = "a user sends as somebody else",
     .can = PIPE_CAN,
     .conf = LOGINS "reject_sender_login_mismatch\n",
     SMALL(1, 1),
     .owners = "other@alpha.example",
     .never = "m1r0@far.example",
     .shape = SHAPE_TLS | SHAPE_LOGIN},
    {.name = "a user sends as itself",
     .can = PIPE_CAN,
     .conf = LOGINS "reject_sender_login_mismatch\n",
     SMALL(1, 1),
     .must_send = 1,
     .owners = "other@alpha.example, user@alpha.example",
     .shape = SHAPE_TLS | SHAPE_LOGIN},
    {.name = "a client without a login sends as a user",
     .can = PIPE_CAN,
     .conf = LOGINS "reject_unauthenticated_sender_login_mismatch\n"
                    "smtpd_sasl_auth_enable = yes\n",
     SMALL(1, 1),
     .owners = "user@alpha.example",
     .never = "m1r0@far.example"},
    {.name = "a restriction behind one that only warns",
     .can = PIPE_CAN,
     .conf = "smtpd_recipient_restrictions = warn_if_reject reject_plaintext_session, "
             "check_recipient_access hash:access\n",
     SMALL(1, 2),
     .must_send = 1,
     .shape = SHAPE_ACCESS,
     .never = "m1r1@far.example"},
    {.name = "a relay record changes while a connection is kept",
     .road = ROAD_RECORD,
     .can = LOGIN_CAN,
     .conf = "smtp_connection_cache_time_limit = 20s\n",
     SMALL(1, 1),
     .must_send = 2,
     .shape = SHAPE_MORE,
     .more_ms = 8000,
     .event = EVENT_MOVE,
     .event_ms = 1000},
    {.name = "a login changes while a connection is kept",
     .login = LOGIN_HOST,
     .can = LOGIN_CAN,
     .conf = "smtp_connection_cache_time_limit = 20s\n",
     SMALL(1, 1),
     .must_send = 2,
     .shape = SHAPE_MORE,
     .more_ms = 8000,
     .event = EVENT_LOGIN,
     .event_ms = 1000},
    {.name = "a login stays, and its table is asked again",
     .login = LOGIN_HOST,
     .can = LOGIN_CAN,
     .conf = "smtp_connection_cache_time_limit = 20s\n",
     SMALL(1, 1),
     .must_send = 2,
     .shape = SHAPE_MORE,
     .more_ms = 8000},
};

const struct named_group scripts_rights = {rows, sizeof rows / sizeof rows[0]};
