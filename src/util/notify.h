/*
 * util/notify.h - telling systemd how a service is: sd_notify(3)
 *
 * The supervisor's alone, on its one thread.  Without systemd (no NOTIFY_SOCKET) nothing happens.
 */
#ifndef PH_UTIL_NOTIFY_H
#define PH_UTIL_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>

/* Is there a NOTIFY_SOCKET to send to? */
bool notify_wanted(void);
/* Sends lines of sd_notify(3), such as "READY=1\nSTATUS=serving".  A datagram that cannot be sent
 * is lost: the service goes on. */
void notify_send(const char *lines);

/* The same with n descriptors, which stay the caller's; the kernel takes 253 at once. */
void notify_send_fds(const char *lines, const int *fds, size_t n);

/* Says that a reload begins, with the time that systemd wants of it; READY=1 ends it. */
void notify_reloading(void);

/* The time between two signs of life in milliseconds, half of what systemd waits for one
 * (WATCHDOG_USEC); 0: it wants none of this process. */
int notify_watchdog_ms(void);

#endif
