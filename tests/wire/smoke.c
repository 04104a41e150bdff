/*
 * tests/wire/smoke.c - the smallest scenario: one client, one message by DATA, one relay host
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

static const char content[] = "From: a@a.test\r\nSubject: smoke\r\n\r\nhello\r\n..dot\r\n";

struct smoke {
    unsigned accepted, delivered;
};

struct client {
    struct wire_peer peer;
    struct wire_end *e;
    unsigned stage;
    char line[1000];
    size_t n;
};

static void say(struct wire_end *e, const char *text) {
    wire_send(e, text, strlen(text));
}

static void client_opened(struct wire_peer *p, struct wire_end *e) {
    ((struct client *)p)->e = e;
}

/* One whole reply line. */
static void client_line(struct client *c) {
    static const char *const lines[] = {"EHLO c.test\r\n", "MAIL FROM:<a@a.test>\r\n",
                                        "RCPT TO:<b@b.test>\r\n", "DATA\r\n"};
    struct smoke *s = wire_user(wire_world_of(c->e));
    if (c->line[3] != ' ')
        return;
    if (c->stage == 5)
        s->accepted += c->line[0] == '2';
    if (c->stage < 4 && c->line[0] == '2') {
        say(c->e, lines[c->stage]);
    } else if (c->stage == 4 && c->line[0] == '3') {
        say(c->e, content);
        say(c->e, ".\r\n");
    } else {
        say(c->e, "QUIT\r\n");
        c->stage = 5;
    }
    c->stage++;
}

static void client_input(struct wire_peer *p, const char *bytes, size_t n) {
    struct client *c = (struct client *)p;
    for (size_t i = 0; i < n; i++) {
        c->line[c->n++] = bytes[i];
        if (bytes[i] != '\n' && c->n < sizeof c->line - 1)
            continue;
        c->line[c->n] = '\0';
        c->n = 0;
        client_line(c);
    }
}

static void client_eof(struct wire_peer *p) {
    wire_close(((struct client *)p)->e);
}

static const struct wire_peer_ops client_ops = {
    .opened = client_opened, .input = client_input, .eof = client_eof};

struct host {
    struct wire_peer peer;
    struct wire_end *e;
    char line[4096];
    size_t n;
    bool data;
};

static void host_opened(struct wire_peer *p, struct wire_end *e) {
    ((struct host *)p)->e = e;
    say(e, "220 relay.test ESMTP\r\n");
}

static void host_line(struct host *h) {
    struct smoke *s = wire_user(wire_world_of(h->e));
    if (h->data) {
        if (strcmp(h->line, ".\r\n") == 0) {
            h->data = false;
            s->delivered++;
            say(h->e, "250 2.0.0 taken\r\n");
        }
    } else if (strncmp(h->line, "EHLO", 4) == 0) {
        say(h->e, "250-relay.test\r\n250 PIPELINING\r\n");
    } else if (strncmp(h->line, "DATA", 4) == 0) {
        h->data = true;
        say(h->e, "354 go\r\n");
    } else {
        say(h->e, strncmp(h->line, "QUIT", 4) == 0 ? "221 bye\r\n" : "250 2.1.0 ok\r\n");
    }
}

static void host_input(struct wire_peer *p, const char *bytes, size_t n) {
    struct host *h = (struct host *)p;
    for (size_t i = 0; i < n; i++) {
        h->line[h->n++] = bytes[i];
        if (bytes[i] != '\n' && h->n < sizeof h->line - 1)
            continue;
        h->line[h->n] = '\0';
        h->n = 0;
        host_line(h);
    }
}

static void host_eof(struct wire_peer *p) {
    wire_close(((struct host *)p)->e);
}

static const struct wire_peer_ops host_ops = {
    .opened = host_opened, .input = host_input, .eof = host_eof};

static struct wire_peer *host_new(void *arg, const struct netaddr *to) {
    struct host *h = calloc(1, sizeof *h);
    (void)arg;
    (void)to;
    h->peer.ops = &host_ops;
    return &h->peer;
}

static void begin(struct wire_world *w, void *arg) {
    struct client *c = calloc(1, sizeof *c);
    (void)arg;
    c->peer.ops = &client_ops;
    wire_client_connect(w, &c->peer, "10.1.0.7", 25);
}

uint64_t script_count(void) {
    return 1;
}

const char *script_name(uint64_t seed) {
    (void)seed;
    return "one message";
}

void script_setup(struct wire_world *w, uint64_t seed) {
    (void)seed;
    wire_set_user(w, calloc(1, sizeof(struct smoke)));
    wire_main_cf(w, "relayhost = [10.2.0.1]\n");
    wire_host(w, "10.2.0.1", 25, WIRE_LISTENS, host_new, NULL);
    wire_at(w, 10, begin, NULL);
}

bool script_over(struct wire_world *w) {
    (void)w;
    return false;
}

void script_check(struct wire_world *w) {
    const struct smoke *s = wire_user(w);
    if (s->accepted == 0 && !wire_faulted(w))
        wire_fail(w, "the message was not accepted");
    if (s->delivered < s->accepted)
        wire_fail(w, "accepted %u, delivered %u", s->accepted, s->delivered);
}
