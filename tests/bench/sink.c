/*
 * A relay host that takes all mail and drops it, for tests/bench/lookups.py: smtp-sink of Postfix
 * takes one connection at a time and has no CHUNKING, which most relay hosts have by now.
 *
 * sink PORT COUNTER [nochunking]: listens on every address; the number of messages taken is in the
 * first eight bytes of the file COUNTER.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define IN_MAX 65536U

struct peer {
    int fd;
    int in_data; /* content of DATA */
    size_t skip; /* bytes of a chunk still to come */
    int last;    /* of that chunk */
    size_t n;
    char out[4096];
    size_t out_n;
    char in[IN_MAX];
};

static uint64_t *taken;
static const char *ehlo;

static void say(struct peer *p, const char *text) {
    size_t n = strlen(text);
    if (p->out_n + n < sizeof p->out) {
        memcpy(p->out + p->out_n, text, n);
        p->out_n += n;
    }
}

static void command(struct peer *p, const char *line) {
    if (strncasecmp(line, "EHLO", 4) == 0) {
        say(p, ehlo);
    } else if (strncasecmp(line, "DATA", 4) == 0) {
        say(p, "354 go ahead\r\n");
        p->in_data = 1;
    } else if (strncasecmp(line, "BDAT ", 5) == 0) {
        p->skip = strtoul(line + 5, NULL, 10);
        p->last = strcasestr(line, "LAST") != NULL;
        if (p->skip == 0)
            say(p, "250 2.0.0 Ok\r\n");
        if (p->skip == 0 && p->last)
            ++*taken;
    } else if (strncasecmp(line, "QUIT", 4) == 0) {
        say(p, "221 2.0.0 Bye\r\n");
    } else {
        say(p, "250 2.0.0 Ok\r\n");
    }
}

/* Uses what it can of p->in from at on; returns how much. */
static size_t step(struct peer *p, size_t at) {
    char *from = p->in + at, *end;
    size_t n = p->n - at;
    if (p->skip > 0) {
        size_t k = n < p->skip ? n : p->skip;
        p->skip -= k;
        if (p->skip == 0) {
            say(p, "250 2.0.0 Ok\r\n");
            *taken += (uint64_t)p->last;
        }
        return k;
    }
    if (p->in_data) {
        end = memmem(from, n, "\r\n.\r\n", 5);
        if (end == NULL)
            return n > 4 ? n - 4 : 0;
        p->in_data = 0;
        ++*taken;
        say(p, "250 2.0.0 Ok\r\n");
        return (size_t)(end - from) + 5;
    }
    end = memchr(from, '\n', n);
    if (end == NULL)
        return 0;
    *end = '\0';
    command(p, from);
    return (size_t)(end - from) + 1;
}

static int serve(struct peer *p) {
    ssize_t k = read(p->fd, p->in + p->n, IN_MAX - p->n);
    size_t at = 0, used;
    if (k <= 0)
        return k < 0 && errno == EAGAIN;
    p->n += (size_t)k;
    while (at < p->n && (used = step(p, at)) > 0)
        at += used;
    p->n -= at;
    memmove(p->in, p->in + at, p->n);
    if (p->out_n > 0 && send(p->fd, p->out, p->out_n, MSG_NOSIGNAL) < 0)
        return 0;
    p->out_n = 0;
    return 1;
}

static void take_all(int listener, int ep) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct peer *p = calloc(1, sizeof *p);
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = p};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        p->fd = fd;
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
        if (send(fd, "220 sink ESMTP\r\n", 16, MSG_NOSIGNAL) < 0)
            perror("send");
    }
}

int main(int argc, char **argv) {
    struct epoll_event ev = {.events = EPOLLIN}, got[256];
    struct sockaddr_in a = {.sin_family = AF_INET};
    int on = 1;
    if (argc < 3)
        return 2;
    ehlo = argc > 3 ? "250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
                    : "250-sink\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-"
                      "ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n";
    int file = open(argv[2], O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, 8) < 0)
        return 1;
    taken = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    a.sin_port = htons((unsigned short)atoi(argv[1]));
    if (taken == MAP_FAILED || bind(listener, (struct sockaddr *)&a, sizeof a) < 0 ||
        listen(listener, 4096) < 0) {
        perror("sink");
        return 1;
    }
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
    for (;;) {
        int n = epoll_wait(ep, got, 256, -1);
        for (int i = 0; i < n; i++) {
            struct peer *p = got[i].data.ptr;
            if (p == NULL) {
                take_all(listener, ep);
            } else if (!serve(p)) {
                close(p->fd);
                free(p);
            }
        }
    }
}
