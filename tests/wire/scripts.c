/*
 * tests/wire/scripts.c - the named scripts: small scenarios that are run with every fault at every
 * call, and without any fault as tests of their own
 */
#include <stdlib.h>
#include <string.h>

#include "scene.h"

#define PLAIN_CAN (CAN_SIZE | CAN_8BITMIME | CAN_DSN | CAN_SMTPUTF8)
#define PIPE_CAN  (PLAIN_CAN | CAN_PIPELINING)
#define CHUNK_CAN (PIPE_CAN | CAN_CHUNKING)
#define LOGIN_CAN (PIPE_CAN | CAN_STARTTLS | CAN_AUTH)

/* How the client goes about it. */
enum {
    SHAPE_BDAT = 1,
    SHAPE_TOGETHER = 2,
    SHAPE_NEXT = 4,
    SHAPE_TLS = 8,
    SHAPE_LOGIN = 16,      /* inside TLS */
    SHAPE_CUTS = 32,       /* many chunks, the last one empty */
    SHAPE_MORE = 64,       /* a second client with another message, a second later */
    SHAPE_MIXED = 128,     /* messages of alpha, beta and gamma in turn */
    SHAPE_REFUSED = 256,   /* smtpd_data_restrictions = reject */
    SHAPE_NOTIFY = 512,    /* NOTIFY=SUCCESS,FAILURE, with ORCPT and ENVID that hold controls */
    SHAPE_FLOOD = 1024,    /* commands without end before it, and no reading */
    SHAPE_ERRORS = 2048,   /* more errors than are borne with, before it */
    SHAPE_STRANGER = 8192, /* from an address that may not relay */
    SHAPE_BEHIND = 32768,  /* commands in clear behind STARTTLS */
    SHAPE_WRONG = 16384,   /* the password of SHAPE_LOGIN is wrong */
    SHAPE_LATE = 4096      /* the handshake comes after the time-out */
};

struct named {
    const char *name;
    enum road_kind road;
    enum login_kind login;
    const char *conf;
    unsigned can;
    unsigned sheds; /* of can, inside TLS */
    struct relay_twist twist, second;
    unsigned mails, rcpts;
    size_t size;
    enum content_text text;
    enum content_head head;
    unsigned shape;
    unsigned heals; /* connections after which host 0 is well; 0: as the twist says */
    enum scene_event event;
    int64_t event_ms; /* 0: none */
    enum client_end end;
    unsigned after;
};

static const struct named scripts[] = {
    {.name = "one message", .can = PLAIN_CAN, .mails = 1, .rcpts = 1, .size = 500},
    {.name = "pipelining",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 2,
     .size = 500,
     .shape = SHAPE_TOGETHER | SHAPE_NEXT},
    {.name = "chunks",
     .can = CHUNK_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 500,
     .shape = SHAPE_BDAT | SHAPE_TOGETHER},
    {.name = "many chunks",
     .can = CHUNK_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 900,
     .text = TEXT_ENDS,
     .shape = SHAPE_BDAT | SHAPE_CUTS},
    {.name = "three in one session",
     .can = CHUNK_CAN,
     .conf = "default_destination_concurrency_limit = 1\n",
     .mails = 3,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_TOGETHER | SHAPE_NEXT},
    {.name = "content of 256 KiB in one chunk",
     .can = CHUNK_CAN,
     .conf = "default_destination_concurrency_limit = 1\n",
     .mails = 2,
     .rcpts = 1,
     .size = 270000},
    {.name = "content of 256 KiB with dots",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 270000,
     .text = TEXT_DOTS},
    {.name = "content in a file",
     .can = CHUNK_CAN,
     .conf = "spool_body_file_size = 2048\n",
     .mails = 1,
     .rcpts = 1,
     .size = 9000},
    {.name = "content in a file, client gone",
     .can = CHUNK_CAN,
     .conf = "spool_body_file_size = 2048\n",
     .mails = 1,
     .rcpts = 1,
     .size = 9000,
     .after = 4,
     .end = CLIENT_RESETS},
    {.name = "long lines",
     .can = CHUNK_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 9000,
     .text = TEXT_LONG},
    {.name = "the first recipient is refused",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 3,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_CODE, 550, 0, 1}},
    {.name = "the second recipient is deferred",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 3,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_CODE, 450, 1, 1}},
    {.name = "all recipients are refused",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_CODE, 553, 0, 0}},
    {.name = "the sender is refused",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_MAIL, ACT_CODE, 552, 0, 1},
     .shape = SHAPE_TOGETHER},
    {.name = "the content is refused",
     .can = CHUNK_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_BODY, ACT_CODE, 554, 0, 1},
     .shape = SHAPE_TOGETHER},
    {.name = "the content is deferred",
     .can = PLAIN_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_BODY, ACT_CODE, 451, 0, 1}},
    {.name = "DATA is answered by 250",
     .can = PLAIN_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_DATA, ACT_CODE, 250, 0, 1}},
    {.name = "DATA is answered by 354 and 250",
     .can = PLAIN_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_DATA, ACT_EARLY, 250, 0, 1}},
    {.name = "DATA is answered by 354 twice",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_DATA, ACT_EXTRA, 354, 0, 1}},
    {.name = "the content is answered by 354",
     .can = CHUNK_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_BODY, ACT_CODE, 354, 0, 1}},
    {.name = "MAIL is answered by 354",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_MAIL, ACT_CODE, 354, 0, 1}},
    {.name = "RCPT is answered by 354",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_CODE, 354, 0, 1}},
    {.name = "MAIL is answered twice",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_MAIL, ACT_EXTRA, 250, 0, 1}},
    {.name = "RCPT is answered twice",
     .can = PLAIN_CAN,
     .mails = 2,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_EXTRA, 250, 0, 1}},
    {.name = "the content is answered twice",
     .can = PIPE_CAN,
     .conf = "default_destination_concurrency_limit = 1\n",
     .mails = 3,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_BODY, ACT_EXTRA, 250, 0, 1},
     .shape = SHAPE_TOGETHER | SHAPE_NEXT},
    {.name = "RCPT is not answered",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_NONE, 0, 0, 1}},
    {.name = "503 to MAIL",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_MAIL, ACT_CODE, 503, 0, 1}},
    {.name = "530 to MAIL",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_MAIL, ACT_CODE, 530, 0, 1}},
    {.name = "421 to MAIL",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_MAIL, ACT_CODE_CLOSE, 421, 0, 1},
     .road = ROAD_LIST},
    {.name = "greeting 554",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_GREETING, ACT_CODE_CLOSE, 554, 0, 0},
     .road = ROAD_LIST},
    {.name = "EHLO and HELO refused",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_EHLO, ACT_CODE, 550, 0, 0},
     .road = ROAD_LIST},
    {.name = "EHLO refused, HELO taken",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_EHLO, ACT_CODE, 502, 0, 1}},
    {.name = "reset at the greeting",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_GREETING, ACT_RESET_AFTER, 0, 0, 0},
     .road = ROAD_LIST},
    {.name = "close within the content",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300000,
     .twist = {STAGE_BODY, ACT_MIDDLE, 0, 0, 1}},
    {.name = "452 within the content",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300000,
     .twist = {STAGE_BODY, ACT_MIDDLE, 452, 0, 1}},
    {.name = "silence after the content",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_BODY, ACT_SILENT, 0, 0, 1}},
    {.name = "QUIT is not answered",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_QUIT, ACT_RESET, 0, 0, 0},
     .road = ROAD_LIST},
    {.name = "an endless reply",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_ENDLESS, 250, 0, 1}},
    {.name = "login", .login = LOGIN_HOST, .can = LOGIN_CAN, .mails = 1, .rcpts = 1, .size = 300},
    {.name = "login refused with an echo",
     .login = LOGIN_HOST,
     .can = LOGIN_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_AUTH, ACT_ECHO, 535, 0, 1}},
    {.name = "login without TLS",
     .login = LOGIN_HOST,
     .can = PIPE_CAN | CAN_AUTH,
     .mails = 1,
     .rcpts = 1,
     .size = 300},
    {.name = "logins of two senders",
     .login = LOGIN_SENDER,
     .can = LOGIN_CAN,
     .mails = 3,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_MIXED},
    {.name = "a second reply to STARTTLS",
     .can = PIPE_CAN | CAN_STARTTLS,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_STARTTLS, ACT_EXTRA, 250, 0, 1}},
    {.name = "STARTTLS, then garbage",
     .can = PIPE_CAN | CAN_STARTTLS,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_STARTTLS, ACT_EXTRA, 0, 0, 1}},
    {.name = "a record, and its host is down",
     .road = ROAD_RECORD,
     .can = LOGIN_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_GREETING, ACT_CODE_CLOSE, 421, 0, 0}},
    {.name = "a record",
     .road = ROAD_RECORD,
     .can = LOGIN_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300},
    {.name = "direct, the best host is down",
     .road = ROAD_DIRECT,
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_GREETING, ACT_CODE_CLOSE, 421, 0, 0}},
    {.name = "direct and by a relay host of the same name",
     .road = ROAD_BOTH,
     .can = PIPE_CAN,
     .mails = 3,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_MIXED},
    {.name = "by sender",
     .road = ROAD_SENDERS,
     .can = PIPE_CAN,
     .mails = 3,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_MIXED},
    {.name = "delete",
     .can = PIPE_CAN,
     .conf = "default_destination_concurrency_limit = 1\n",
     .mails = 4,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_BODY, ACT_SLOW, 50, 0, 1},
     .event = EVENT_DELETE_ALL,
     .event_ms = 20000},
    {.name = "hold",
     .can = PIPE_CAN,
     .conf = "default_destination_concurrency_limit = 1\n",
     .mails = 4,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_BODY, ACT_SLOW, 50, 0, 1},
     .event = EVENT_HOLD_ALL,
     .event_ms = 20000},
    {.name = "expire",
     .can = PIPE_CAN,
     .conf = "default_destination_concurrency_limit = 1\n",
     .mails = 4,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_BODY, ACT_SLOW, 50, 0, 1},
     .event = EVENT_EXPIRE_ALL,
     .event_ms = 20000},
    {.name = "killed",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300,
     .event = EVENT_KILL,
     .event_ms = 5,
     .shape = SHAPE_MORE},
    {.name = "power fails",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300,
     .event = EVENT_POWER,
     .event_ms = 5,
     .shape = SHAPE_MORE},
    {.name = "stopped",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300,
     .event = EVENT_STOP,
     .event_ms = 5,
     .shape = SHAPE_MORE},
    {.name = "reload",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300,
     .event = EVENT_RELOAD,
     .event_ms = 10,
     .shape = SHAPE_MORE},
    {.name = "small segments",
     .can = PIPE_CAN,
     .conf = "spool_segment_size = 65536\n",
     .mails = 4,
     .rcpts = 1,
     .size = 20000,
     .shape = SHAPE_MORE},
    {.name = "a client inside TLS",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_TLS | SHAPE_TOGETHER},
    {.name = "a client with a login",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_TLS | SHAPE_LOGIN},
    {.name = "a client that resets",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_TOGETHER,
     .end = CLIENT_RESETS,
     .after = 3},
    {.name = "a client that says nothing",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .end = CLIENT_STAYS,
     .after = 2},
    {.name = "power fails while mail waits",
     .can = PIPE_CAN,
     .mails = 3,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_GREETING, ACT_CODE_CLOSE, 421, 0, 0},
     .heals = 5,
     .event = EVENT_POWER,
     .event_ms = 20000},
    {.name = "killed while mail waits",
     .can = PIPE_CAN,
     .mails = 3,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_CODE, 450, 1, 0},
     .heals = 5,
     .event = EVENT_KILL,
     .event_ms = 20000},
    {.name = "power fails while large content waits",
     .can = PIPE_CAN,
     .conf = "spool_body_file_size = 2048\n",
     .mails = 2,
     .rcpts = 1,
     .size = 9000,
     .twist = {STAGE_GREETING, ACT_CODE_CLOSE, 421, 0, 0},
     .heals = 5,
     .event = EVENT_POWER,
     .event_ms = 20000},
    {.name = "killed after a report",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_CODE, 550, 1, 1},
     .event = EVENT_KILL,
     .event_ms = 20000,
     .shape = SHAPE_NOTIFY},
    {.name = "many segments, and power fails",
     .can = PIPE_CAN,
     .conf = "spool_segment_size = 65536\n",
     .mails = 6,
     .rcpts = 1,
     .size = 20000,
     .twist = {STAGE_GREETING, ACT_CODE_CLOSE, 421, 0, 0},
     .heals = 5,
     .event = EVENT_POWER,
     .event_ms = 20000,
     .shape = SHAPE_MORE},
    {.name = "large header",
     .can = CHUNK_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300000,
     .head = HEAD_LARGE,
     .conf = "always_add_missing_headers = yes\n"},
    {.name = "DATA is forbidden",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_REFUSED},
    {.name = "BDAT is forbidden",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_REFUSED | SHAPE_BDAT | SHAPE_TOGETHER},
    {.name = "login with a long password",
     .login = LOGIN_LONG,
     .can = LOGIN_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300},
    {.name = "reports of success to a host without DSN",
     .can = PIPE_CAN & ~(unsigned)CAN_DSN,
     .mails = 1,
     .rcpts = 2,
     .size = 300,
     .shape = SHAPE_NOTIFY},
    {.name = "controls in parameters",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_CODE, 550, 1, 1},
     .shape = SHAPE_NOTIFY},
    {.name = "a client that floods and reads nothing",
     .conf = "smtpd_junk_command_limit = 1000000\n",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_FLOOD,
     .end = CLIENT_DEAF},
    {.name = "a client with many errors that resets",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_ERRORS,
     .end = CLIENT_RESETS,
     .after = 4},
    {.name = "a late handshake",
     .can = PIPE_CAN,
     .conf = "smtpd_starttls_timeout = 5s\n",
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_TLS | SHAPE_LATE},
    {.name = "the table of senders, alpha only",
     .road = ROAD_SENDERS,
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300},
    {.name = "the table of transports",
     .road = ROAD_TRANSPORT,
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 2,
     .size = 300},
    {.name = "a fallback without the password",
     .road = ROAD_FALLBACK,
     .login = LOGIN_HOST,
     .can = LOGIN_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_GREETING, ACT_CODE_CLOSE, 421, 0, 1}},
    {.name = "commands behind STARTTLS",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_TLS | SHAPE_BEHIND},
    {.name = "content inside TLS, and no memory",
     .can = PIPE_CAN,
     .conf = "message_memory_limit = 1\n",
     .mails = 1,
     .rcpts = 1,
     .size = 60000,
     .shape = SHAPE_TLS},
    {.name = "less is offered inside TLS",
     .can = CHUNK_CAN | CAN_STARTTLS,
     .sheds = CAN_CHUNKING | CAN_DSN | CAN_SIZE,
     .mails = 1,
     .rcpts = 1,
     .size = 300},
    {.name = "MAIL is answered twice, the chunk is refused",
     .can = CHUNK_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_MAIL, ACT_EXTRA, 250, 0, 1},
     .second = {STAGE_BODY, ACT_CODE, 554, 0, 1}},
    {.name = "RCPT is answered twice, the content is refused",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_EXTRA, 250, 0, 1},
     .second = {STAGE_BODY, ACT_CODE, 554, 0, 1}},
    {.name = "a client that leaves after its content",
     .can = PIPE_CAN,
     .mails = 2,
     .rcpts = 1,
     .size = 300,
     .end = CLIENT_CLOSES,
     .after = 5},
    {.name = "a stranger",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 2,
     .size = 300,
     .shape = SHAPE_STRANGER | SHAPE_TOGETHER},
    {.name = "a stranger with a wrong password",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .shape = SHAPE_STRANGER | SHAPE_TLS | SHAPE_LOGIN | SHAPE_WRONG},
    {.name = "everything expires",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 2,
     .size = 300,
     .twist = {STAGE_RCPT, ACT_CODE, 450, 0, 0}},
    {.name = "a report that is refused",
     .can = PIPE_CAN,
     .mails = 1,
     .rcpts = 1,
     .size = 300,
     .twist = {STAGE_MAIL, ACT_CODE, 550, 0, 0}},
};

unsigned scripts_count(void) {
    return sizeof scripts / sizeof scripts[0];
}

const char *scripts_name(unsigned i) {
    return scripts[i].name;
}

static void add_parameters(struct client_mail *m) {
    bytes_text(&m->envid, m->number % 2 == 0 ? "an id" : "an\r\nid");
    for (unsigned i = 0; i < m->n_rcpts; i++) {
        m->rcpts[i].notify = LEDGER_SUCCESS | LEDGER_FAILURE;
        bytes_text(&m->rcpts[i].orcpt, "rfc822;old@far.example");
    }
}

static void add_before(struct client *c, const struct named *n) {
    struct bytes b = {0};
    unsigned lines =
        (n->shape & SHAPE_FLOOD) != 0 ? 150000 : 12; /* of which the replies are 28 MB */
    if ((n->shape & (SHAPE_FLOOD | SHAPE_ERRORS)) == 0)
        return;
    for (unsigned i = 0; i < lines; i++)
        bytes_text(&b, (n->shape & SHAPE_FLOOD) != 0 ? "EHLO a\r\n" : "NONSENSE\r\n");
    if ((n->shape & SHAPE_FLOOD) != 0)
        client_stall(c, true);
    client_raw(c, b.p, b.n, lines);
    bytes_free(&b);
    client_raw(c, "NONSENSE\r\n", 10, 1);
}

static void add_mail(struct scene *s, struct client *c, const struct named *n, unsigned i) {
    static const char *const domains[] = {"alpha.example", "beta.example", "gamma.example"};
    const char *from = domains[(n->shape & SHAPE_MIXED) != 0 ? i % 3 : 0];
    bool bdat = (n->shape & SHAPE_BDAT) != 0;
    unsigned how = ((n->shape & SHAPE_TOGETHER) != 0 ? CLIENT_TOGETHER : 0U) |
                   ((n->shape & SHAPE_NEXT) != 0 && i > 0 ? CLIENT_NEXT : 0U);
    const char *to = n->road == ROAD_BOTH ? "near.example" : "far.example";
    struct client_mail m = scene_mail(s, from, n->rcpts, to);
    if ((n->shape & SHAPE_NOTIFY) != 0)
        add_parameters(&m);
    content_make(&s->dice,
                 n->head != HEAD_USUAL ? n->head
                 : i % 2 == 0          ? HEAD_USUAL
                                       : HEAD_BARE,
                 n->text, n->size, !bdat, &m.content);
    if (!bdat) {
        client_data(c, &m, how);
        return;
    }
    size_t cuts[8], n_cuts = (n->shape & SHAPE_CUTS) != 0 ? 8 : 0;
    for (size_t k = 0; k < n_cuts; k++)
        cuts[k] = (k + 1) * m.content.n / 10;
    client_bdat(c, &m, how, cuts, n_cuts, n_cuts > 0);
}

static void add_client(struct scene *s, const struct named *n, int64_t ms) {
    struct client *c = scene_client(s);
    client_hello(c, true);
    if ((n->shape & SHAPE_TLS) != 0) {
        client_starttls(c, (n->shape & SHAPE_LATE) != 0 ? 7000 : 0,
                        (n->shape & SHAPE_BEHIND) != 0 ? "NOOP\r\nEHLO injected\r\n" : NULL);
        client_hello(c, true);
    }
    add_before(c, n);
    if ((n->shape & SHAPE_LOGIN) != 0)
        client_login(c, "PLAIN", "user@alpha.example",
                     (n->shape & SHAPE_WRONG) != 0 ? "wrong-Secret-6" : "client-Secret-5",
                     (n->shape & SHAPE_WRONG) == 0);
    for (unsigned i = 0; i < n->mails; i++)
        add_mail(s, c, n, i);
    client_ends(c, n->end, n->after);
    scene_begin(s, c, ms, (n->shape & SHAPE_STRANGER) != 0 ? "10.3.0.7" : "10.1.0.7",
                (n->shape & SHAPE_LOGIN) != 0 ? 587 : 25);
}

void scripts_setup(struct wire_world *w, unsigned i) {
    const struct named *n = &scripts[i];
    struct scene *s =
        scene_new(w, i, n->road, n->login, 998, 3600, (n->shape & SHAPE_REFUSED) != 0);
    wire_main_cf(w, "minimal_backoff_time = 60s\nmaximal_backoff_time = 600s\n%s",
                 n->conf == NULL ? "" : n->conf);
    wire_account(w, "user@alpha.example", "client-Secret-5");
    ledger_secret(s->ledger, "user@alpha.example", "client-Secret-5", 0, true);
    for (unsigned k = 0; k < SCENE_HOSTS; k++)
        s->hosts[k].plan.can = n->can;
    s->hosts[0].plan.twists[0] = n->twist;
    s->hosts[0].plan.twists[1] = n->second;
    s->hosts[0].plan.n_twists = n->twist.act == ACT_NORMAL    ? 0
                                : n->second.act == ACT_NORMAL ? 1
                                                              : 2;
    s->hosts[0].plan.sheds = n->sheds;
    s->hosts[0].plan.heals = n->heals > 0 ? n->heals : n->twist.times == 0 ? 0 : 1;
    scene_open(s);
    add_client(s, n, 0);
    if ((n->shape & SHAPE_MORE) != 0)
        add_client(s, n, 1000);
    if (n->event_ms > 0)
        scene_event(s, n->event, n->event_ms, 0);
    if (n->event == EVENT_HOLD_ALL)
        scene_event(s, EVENT_RELEASE_ALL, 200000, 0);
    s->ends_ms = 10000000;
}
