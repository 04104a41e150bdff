/*
 * daemon/renew.c - certificates that were renewed; see renew.h
 *
 * A file has changed when its inode, size or time has.  Files are taken only when they are as they
 * were at the look before: a renewal writes one after the other.
 */
#include "daemon/renew.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/certrows.h"
#include "daemon/confine.h"
#include "deliver/secure.h"
#include "receive/certificate.h"
#include "receive/sni.h"
#include "util/clock.h"
#include "util/log.h"

#define RENEW_LOOK_MS   3000
#define RENEW_SETTLE_MS 1000 /* after a change was seen */

static struct {
    bool any;          /* the configuration in use names files */
    struct sbuf taken; /* the files' state when they were read last; empty: not known */
    struct sbuf seen;  /* … when they were looked at last */
    struct sbuf said;  /* what was wrong then, a line each */
    bool unsettled;    /* files have changed and are not taken yet */
    int64_t looked_ms;
} renew;

static void stamp_file(void *arg, const char *file) {
    struct sbuf *stamps = arg;
    struct stat st;
    if (stat(file, &st) < 0)
        sbuf_printf(stamps, "%s: %d\n", file, errno);
    else
        sbuf_printf(stamps, "%s: %llu %llu %lld %lld.%09ld %lld.%09ld\n", file,
                    (unsigned long long)st.st_dev, (unsigned long long)st.st_ino,
                    (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                    (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

static void stamp_all(const struct config *cfg, struct sbuf *stamps) {
    sbuf_reset(stamps);
    confine_certificates(cfg, stamp_file, stamps);
    certrows_tables(cfg, stamp_file, stamps);
    renew.looked_ms = clock_mono_ms();
}

void renew_begin(const struct config *cfg) {
    stamp_all(cfg, &renew.seen);
    sbuf_reset(&renew.taken); /* they may have changed since they were read */
    sbuf_reset(&renew.said);
    renew.any = renew.unsettled = renew.seen.n > 0;
}

int renew_wait_ms(void) {
    int64_t left =
        renew.looked_ms + (renew.unsettled ? RENEW_SETTLE_MS : RENEW_LOOK_MS) - clock_mono_ms();
    return !renew.any ? -1 : left <= 0 ? 0 : (int)left;
}

static void again_file(void *arg, const char *file) {
    cfg_source_again(arg, file);
}

struct anchors_look {
    const struct config *cfg;
    const struct params *p;
    char *why;
};

static void look_at_anchor(void *arg, const char *file) {
    struct anchors_look *look = arg;
    struct tls_policy policy = {.level = LEVEL_SECURE, .anchors = (char *)(uintptr_t)file};
    struct sbuf text = {0};
    const char *param = NULL;
    char *why = NULL;
    if (look->why == NULL && !secure_check(look->cfg, look->p, &policy, &param, &why)) {
        sbuf_printf(&text, "%s: %s", param, why);
        look->why = sbuf_take(&text);
    }
    free(why);
}

/* NULL: all trust anchors that rows name can be used; else why not. */
static char *anchors_broken(const struct config *cfg, const struct params *p) {
    struct anchors_look look = {cfg, p, NULL};
    certrows_files(cfg, p, false, look_at_anchor, &look);
    return look.why;
}

/* Are the rows of a service those of main.cf, which are looked at before?  There may be thousands,
 * for each of dozens of services, and no process is started again meanwhile. */
static bool rows_are_main(const struct config *cfg, const struct params *p, bool server) {
    const char *own = server ? p->tls_server_sni_maps : p->smtp_tls_policy_maps;
    const char *shared = server ? cfg->p.tls_server_sni_maps : cfg->p.smtp_tls_policy_maps;
    return p != &cfg->p && strcmp(own, shared) == 0;
}

/* NULL: TLS can be had with what the parameters p name for that side; else why not. */
static char *side_broken(const struct config *cfg, const struct params *p, bool server) {
    char *why = NULL;
    const char *param = NULL;
    if (server) {
        SSL_CTX_free(certificate_load(cfg, p, &why));
        return why != NULL || rows_are_main(cfg, p, true) ? why : sni_broken(cfg, p);
    }
    if (secure_check(cfg, p, &(struct tls_policy){.level = LEVEL_MAY}, &param, &why) &&
        !rows_are_main(cfg, p, false))
        why = anchors_broken(cfg, p);
    return why;
}

/* Once for as long as it is the same. */
static void say_broken(const struct service *svc, const char *why, struct sbuf *said) {
    struct sbuf line = {0};
    sbuf_printf(&line, "\n%s%scertificate files have changed and cannot be used: %s\n",
                svc == NULL ? "" : svc->name, svc == NULL ? "" : ": ", why);
    if (renew.said.n == 0 || strstr(renew.said.p, line.p) == NULL)
        log_error("master", "%.*s; what was loaded before stays in use", (int)line.n - 2,
                  line.p + 1);
    sbuf_add_str(said, sbuf_str(&line));
    sbuf_free(&line);
}

struct keep {
    struct config *next;
    const struct config *now;
};

static void keep_file(void *arg, const char *file) {
    struct keep *k = arg;
    cfg_source_take(k->next->source, k->now->source, file);
}

/* Where the new files of one side are broken and the old were not, the old ones stay. */
static void keep_side(struct config *next, const struct config *now, size_t at, bool server,
                      struct sbuf *said) {
    const struct params *p = at == 0 ? &next->p : &next->services[at - 1]->p;
    const struct params *old = at == 0 ? &now->p : &now->services[at - 1]->p;
    char *why = side_broken(next, p, server),
         *before = why == NULL ? NULL : side_broken(now, old, server);
    struct keep k = {next, now};
    if (why != NULL && before == NULL) {
        say_broken(at == 0 ? NULL : next->services[at - 1], why, said);
        confine_certificates_of(next, p, server, keep_file, &k);
        certrows_take(next, now, p, server);
    }
    free(why);
    free(before);
}

struct config *renew_look(const struct config *cfg) {
    struct sbuf stamps = {0};
    stamp_all(cfg, &stamps);
    bool changed = !str_eq(sbuf_str(&stamps), sbuf_str(&renew.taken));
    bool settled = str_eq(sbuf_str(&stamps), sbuf_str(&renew.seen));
    sbuf_free(&renew.seen);
    renew.seen = stamps;
    renew.unsettled = changed && !settled;
    if (!changed || !settled)
        return NULL;
    sbuf_reset(&renew.taken);
    sbuf_add_str(&renew.taken, sbuf_str(&renew.seen));
    struct sbuf said = {0};
    struct cfg_source *src = cfg_source_copy(cfg->source);
    confine_certificates(cfg, again_file, src);
    struct config *next = config_build(src);
    certrows_read(next);
    for (size_t i = 0; i <= next->n_services && next->n_services == cfg->n_services; i++) {
        keep_side(next, cfg, i, true, &said);
        keep_side(next, cfg, i, false, &said);
    }
    sbuf_free(&renew.said);
    renew.said = said;
    if (!cfg_source_same(next->source, cfg->source))
        return next;
    config_unref(next);
    return NULL;
}
