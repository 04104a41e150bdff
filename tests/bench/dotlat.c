/*
 * Sends mail at a steady rate over many connections and says how long each final dot waited for its
 * 250.  Used by load.py.
 *
 *   dotlat PORT CONNECTIONS RATE SECONDS BYTES
 *
 * Open loop: a message is sent when its time has come, whatever became of the ones before; when no
 * connection is free it waits for one, and that wait counts.  Prints "count p50 p99 max" with times
 * in microseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum state { GREET, EHLO, IDLE, MAIL, DOT };

struct client {
    int fd;
    enum state st;
    int64_t due, sent; /* microseconds */
    char line[512];
    size_t n;
};

static struct client *clients;
static int *idle, n_idle;
static char *body;
static size_t body_n;
static uint32_t *times;
static size_t n_times;

static int64_t now_us(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void put(struct client *c, const char *p, size_t n) {
    while (n > 0) {
        ssize_t w = send(c->fd, p, n, MSG_NOSIGNAL);
        if (w < 0 && errno != EAGAIN) {
            perror("dotlat: send");
            exit(1);
        }
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        }
    }
}

static void put_c(struct client *c, const char *text) {
    put(c, text, strlen(text));
}

/* The last line of a reply. */
static void on_reply(struct client *c, int i) {
    char d = c->line[0];
    switch (c->st) {
    case GREET:
        put_c(c, "EHLO load.example\r\n");
        c->st = EHLO;
        break;
    case EHLO:
        c->st = IDLE;
        idle[n_idle++] = i;
        break;
    case MAIL:
        if (d == '3') {
            put(c, body, body_n);
            c->sent = now_us();
            c->st = DOT;
        } else if (d != '2') {
            fprintf(stderr, "dotlat: %s\n", c->line);
            exit(1);
        }
        break;
    case DOT:
        if (d != '2') {
            fprintf(stderr, "dotlat: %s\n", c->line);
            exit(1);
        }
        times[n_times++] = (uint32_t)(now_us() - c->sent);
        c->st = IDLE;
        idle[n_idle++] = i;
        break;
    default:
        break;
    }
}

static void on_input(int i) {
    struct client *c = &clients[i];
    ssize_t r = recv(c->fd, c->line + c->n, sizeof c->line - 1 - c->n, 0);
    if (r <= 0) {
        if (r < 0 && errno == EAGAIN)
            return;
        fprintf(stderr, "dotlat: a connection was closed\n");
        exit(1);
    }
    c->n += (size_t)r;
    for (char *nl; (nl = memchr(c->line, '\n', c->n)) != NULL;) {
        size_t used = (size_t)(nl - c->line) + 1;
        *nl = '\0';
        if (c->line[3] != '-')
            on_reply(c, i);
        memmove(c->line, c->line + used, c->n - used);
        c->n -= used;
    }
}

static int cmp(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void connect_all(int ep, int port, int conns) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < conns; i++) {
        int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
            perror("dotlat: connect");
            exit(1);
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
        clients[i] = (struct client){.fd = fd};
    }
}

int main(int argc, char **argv) {
    if (argc != 6)
        return 2;
    int port = atoi(argv[1]), conns = atoi(argv[2]), ep = epoll_create1(0);
    double rate = atof(argv[3]), seconds = atof(argv[4]);
    size_t size = (size_t)atoi(argv[5]), total = (size_t)(rate * seconds);
    clients = calloc((size_t)conns, sizeof *clients);
    idle = calloc((size_t)conns, sizeof *idle);
    times = calloc(total + 1, sizeof *times);
    body = malloc(size + 100);
    body_n = (size_t)sprintf(body, "From: a@x.example\r\nSubject: load\r\n\r\n");
    while (body_n < size)
        body_n += (size_t)sprintf(
            body + body_n, "%.70s\r\n",
            "the quick brown fox jumps over the lazy dog, again and again and again");
    body_n += (size_t)sprintf(body + body_n, ".\r\n");
    connect_all(ep, port, conns);
    int64_t begin = now_us() + 500000;
    size_t started = 0;
    while (n_times < total) {
        struct epoll_event ev[256];
        int n = epoll_wait(ep, ev, 256, 0);
        for (int i = 0; i < n; i++)
            on_input((int)ev[i].data.u32);
        int64_t now = now_us();
        while (started < total && n_idle > 0 &&
               now >= begin + (int64_t)((double)started * 1e6 / rate)) {
            struct client *c = &clients[idle[--n_idle]];
            put_c(c, "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n");
            c->st = MAIL;
            started++;
        }
        if (n == 0)
            usleep(50);
    }
    double took = (double)(now_us() - begin) / 1e6;
    qsort(times, n_times, sizeof *times, cmp);
    printf("%zu %u %u %u %.0f\n", n_times, times[n_times / 2], times[n_times * 99 / 100],
           times[n_times - 1], (double)n_times / took);
    return 0;
}
