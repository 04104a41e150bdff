/*
 * daemon/reload.c - being asked for a reload; see reload.h
 *
 * Connections are taken at most once in RELOAD_GAP_MS, RELOAD_ASKERS at a time: however often
 * reloads are asked for, and by whomever, the supervisor does not spend its time on them.
 */
#include "daemon/reload.h"

#include <errno.h>
#include <pwd.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/log.h"
#include "util/os.h"

#define RELOAD_GAP_MS 500
#define RELOAD_ASKERS 64U

static int64_t served_ms; /* when connections were taken last; 0: never */

static const struct passwd *web_user(const struct config *cfg) {
    return geteuid() == 0 ? getpwnam(cfg->p.web_owner) : NULL;
}

int64_t reload_group(const struct config *cfg) {
    const struct passwd *web = web_user(cfg);
    return web == NULL ? -1 : (int64_t)web->pw_gid;
}

int reload_wait_ms(void) {
    int64_t left = served_ms == 0 ? 0 : served_ms + RELOAD_GAP_MS - clock_mono_ms();
    return left <= 0 ? 0 : (int)left;
}

static bool may_ask(int fd, const struct config *cfg) {
    uid_t peer;
    if (os_peer_uid(fd, &peer) < 0)
        return false;
    const struct passwd *web = web_user(cfg);
    if (peer == 0 || peer == geteuid() || (web != NULL && peer == web->pw_uid))
        return true;
    log_warn("master", "user %u may not ask for a reload", (unsigned)peer);
    return false;
}

void reload_serve(int fd, const struct config *cfg, bool (*reload)(void)) {
    int askers[RELOAD_ASKERS];
    size_t n = 0, taken = 0;
    served_ms = clock_mono_ms();
    while (taken < RELOAD_ASKERS) {
        int asker = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (asker < 0)
            break;
        taken++;
        if (may_ask(asker, cfg))
            askers[n++] = asker;
        else
            close(asker);
    }
    if (n == 0)
        return;
    const char *answer = reload() ? RELOAD_DONE "\n" : RELOAD_REFUSED "\n";
    for (size_t i = 0; i < n; i++) {
        send(askers[i], answer, strlen(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
        close(askers[i]);
    }
}
