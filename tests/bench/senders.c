/*
 * Sends mail from many senders over many sessions, as fast as it is taken; for
 * tests/bench/lookups.py.
 *
 * senders PORT SESSIONS COUNT SENDERS DOMAINS SIZE: message i is from s<i % SENDERS>@d<that %
 * DOMAINS>.example.  MAIL, RCPT and DATA go in one packet (the server offers PIPELINING).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum state { GREETING, EHLO, ENVELOPE, BODY, DONE };

struct session {
    int fd;
    enum state state;
    int wanted; /* replies until the next step */
    int last;   /* code of the last reply */
    char in[8192];
    size_t n;
};

static long next, total, n_senders, n_domains, refused;
static char *body;
static size_t body_n;

static void put(struct session *s, const char *p, size_t n) {
    while (n > 0) {
        ssize_t k = send(s->fd, p, n, MSG_NOSIGNAL);
        if (k < 0) {
            perror("send");
            exit(1);
        }
        p += k;
        n -= (size_t)k;
    }
}

static void begin_mail(struct session *s) {
    char text[300];
    if (next == total) {
        put(s, "QUIT\r\n", 6);
        s->state = DONE;
        return;
    }
    long who = next++ % n_senders;
    int n = snprintf(text, sizeof text,
                     "MAIL FROM:<s%ld@d%ld.example>\r\nRCPT TO:<r@elsewhere.example>\r\nDATA\r\n",
                     who, who % n_domains);
    put(s, text, (size_t)n);
    s->state = ENVELOPE;
    s->wanted = 3;
}

/* The replies of a step are all there. */
static void step(struct session *s) {
    switch (s->state) {
    case GREETING:
        put(s, "EHLO bench.example\r\n", 20);
        s->state = EHLO;
        s->wanted = 1;
        break;
    case ENVELOPE:
        if (s->last != 354) {
            fprintf(stderr, "senders: refused with %d\n", s->last);
            exit(1);
        }
        put(s, body, body_n);
        s->state = BODY;
        s->wanted = 1;
        break;
    default:
        refused += s->state == BODY && s->last != 250;
        begin_mail(s);
        break;
    }
}

static void take(struct session *s) {
    ssize_t k = read(s->fd, s->in + s->n, sizeof s->in - s->n);
    if (k <= 0) {
        fprintf(stderr, "senders: connection lost\n");
        exit(1);
    }
    s->n += (size_t)k;
    char *at = s->in, *nl;
    while ((nl = memchr(at, '\n', s->n - (size_t)(at - s->in))) != NULL) {
        s->last = atoi(at);
        if (nl - at > 3 && at[3] != '-' && --s->wanted == 0)
            step(s);
        at = nl + 1;
    }
    s->n -= (size_t)(at - s->in);
    memmove(s->in, at, s->n);
}

static int dial(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        perror("connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 7)
        return 2;
    long n = atol(argv[2]), size = atol(argv[6]), left = n;
    total = atol(argv[3]);
    n_senders = atol(argv[4]);
    n_domains = atol(argv[5]);
    body = malloc((size_t)size + 300);
    body_n = (size_t)sprintf(body, "From: bench@x.example\r\nSubject: x\r\n\r\n");
    for (; (long)body_n < size; body_n += 72)
        memcpy(body + body_n,
               "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef012345\r\n", 72);
    memcpy(body + body_n, ".\r\n", 3);
    body_n += 3;
    struct session *v = calloc((size_t)n, sizeof *v);
    struct pollfd *p = calloc((size_t)n, sizeof *p);
    for (long i = 0; i < n; i++) {
        v[i].fd = dial(atoi(argv[1]));
        v[i].wanted = 1;
        p[i] = (struct pollfd){.fd = v[i].fd, .events = POLLIN};
    }
    while (left > 0 && poll(p, (nfds_t)n, 60000) > 0)
        for (long i = 0; i < n; i++) {
            if (p[i].fd < 0 || p[i].revents == 0)
                continue;
            take(&v[i]);
            if (v[i].state == DONE) {
                p[i].fd = -1;
                close(v[i].fd);
                left--;
            }
        }
    if (left > 0 || refused > 0)
        fprintf(stderr, "senders: %ld sessions stuck, %ld messages refused\n", left, refused);
    return left > 0 || refused > 0;
}
