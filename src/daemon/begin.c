/*
 * daemon/begin.c - the start as a terminal sees it; see begin.h
 *
 * Standard error is a pipe until begin_done.  A NUL byte in it says that the daemon serves.
 */
#include "daemon/begin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/fs.h"
#include "util/log.h"

static bool in_background;

/* Prints what the daemon says until it serves or has ended. */
_Noreturn static void begin_wait(int from, pid_t daemon) {
    char text[4096];
    int status = 0;
    for (;;) {
        ssize_t n = read(from, text, sizeof text);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        const char *end = memchr(text, '\0', (size_t)n);
        fs_write_all(2, text, end == NULL ? (size_t)n : (size_t)(end - text));
        if (end != NULL)
            _exit(0);
    }
    if (waitpid(daemon, &status, 0) == daemon && WIFEXITED(status) && WEXITSTATUS(status) != 0)
        _exit(WEXITSTATUS(status));
    _exit(1);
}

void begin_in_background(void) {
    int say[2];
    if (pipe2(say, O_CLOEXEC) < 0) {
        perror("posthoused: pipe");
        exit(1);
    }
    pid_t pid = fork();
    if (pid < 0) {
        perror("posthoused: fork");
        exit(1);
    }
    if (pid > 0) {
        close(say[1]);
        begin_wait(say[0], pid);
    }
    close(say[0]);
    setsid();
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(fd, 0);
    dup2(fd, 1);
    dup2(say[1], 2);
    close(say[1]);
    close(fd);
    in_background = true;
}

static bool begin_print(const char *service, const char *text) {
    (void)service;
    fprintf(stderr, "posthoused: fatal: %s\n", text);
    return false; /* the log has it, too */
}

void begin_print_fatal(void) {
    log_on_fatal(begin_print);
}

void begin_done(void) {
    log_on_fatal(NULL);
    if (!in_background)
        return;
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    fs_write_all(2, "", 1);
    if (fd < 0)
        return;
    dup2(fd, 2);
    close(fd);
}
