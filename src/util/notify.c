/*
 * util/notify.c - telling systemd how a service is; see notify.h
 */
#include "util/notify.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* SCM_MAX_FD of the kernel. */
#define FDS_MOST 253

/* A path, or with '@' the name of an abstract socket.  0: neither. */
static socklen_t notify_address(struct sockaddr_un *to) {
    const char *name = getenv("NOTIFY_SOCKET");
    size_t length = name == NULL ? 0 : strlen(name);
    if (length < 2 || (name[0] != '/' && name[0] != '@') || length >= sizeof to->sun_path)
        return 0;
    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    memcpy(to->sun_path, name, length);
    if (name[0] == '@')
        to->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

bool notify_wanted(void) {
    struct sockaddr_un to;
    return notify_address(&to) != 0;
}

void notify_send(const char *lines) {
    notify_send_fds(lines, NULL, 0);
}

void notify_send_fds(const char *lines, const int *fds, size_t n) {
    struct sockaddr_un to;
    union {
        char bytes[CMSG_SPACE(FDS_MOST * sizeof *fds)];
        struct cmsghdr align;
    } control;
    struct iovec text = {(void *)(uintptr_t)lines, strlen(lines)};
    struct msghdr msg = {.msg_name = &to, .msg_iov = &text, .msg_iovlen = 1};
    msg.msg_namelen = notify_address(&to);
    int fd =
        msg.msg_namelen == 0 || n > FDS_MOST ? -1 : socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (n > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n * sizeof *fds);
        memset(control.bytes, 0, msg.msg_controllen);
        struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(n * sizeof *fds);
        memcpy(CMSG_DATA(head), fds, n * sizeof *fds);
    }
    (void)!sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(fd);
}

void notify_reloading(void) {
    char lines[80];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(lines, sizeof lines, "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    notify_send(lines);
}

int notify_watchdog_ms(void) {
    const char *every = getenv("WATCHDOG_USEC"), *whom = getenv("WATCHDOG_PID");
    if (every == NULL || (whom != NULL && strtol(whom, NULL, 10) != getpid()))
        return 0;
    long long ms = strtoll(every, NULL, 10) / 2000;
    return ms > 0 && ms < INT32_MAX ? (int)ms : 0;
}
