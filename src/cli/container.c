/*
 * cli/container.c - posthouse container: the first process of a container
 *
 * One thread.  Makes the configuration that the environment asks for (container_plan.c) in
 * MAIL_CONFIG, which lies in the container's only volume, and becomes the daemon, with an
 * environment that has no secrets.  Nothing is started unless all of it is understood.  "container
 * health" asks the daemon whether it is well.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accounts/password.h"
#include "accounts/store.h"
#include "cli/cli.h"
#include "cli/container.h"
#include "config/unread.h"
#include "daemon/daemon.h"
#include "daemon/unread_say.h"
#include "mail/address.h"
#include "route/nexthop.h"
#include "util/fs.h"
#include "util/mem.h"

#define HEALTH_MS  5000
#define MADE_MARK  "# Made of the container's environment at each start"
#define HEAD_MAX   (8U << 20)
#define ROOTS_USER "posthouse" /* of a container that is started as root */

extern char **environ;

static bool container_failed(const char *what, const char *why) {
    fprintf(stderr, "posthouse: fatal: %s: %s\n", what, why);
    return false;
}

/* -- files -- */

static char *container_path(const char *dir, const char *name) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/%s", dir, name);
    return sbuf_take(&b);
}

/* In the place of what an earlier start has written. */
static bool container_write(const char *dir, const char *name, struct str text) {
    char *path = container_path(dir, name);
    int rc = unlink(path) < 0 && errno != ENOENT ? -errno : fs_write_whole(path, text, 0600, NULL);
    if (rc < 0)
        container_failed(path, strerror(-rc));
    free(path);
    return rc == 0;
}

/* '$' of a variable that is no line of main.cf stands for itself. */
static void container_add_line(struct sbuf *out, const struct container_line *line) {
    sbuf_printf(out, "%s = ", line->name);
    for (const char *p = line->value; *p != '\0'; p++) {
        if (*p == '$' && !line->verbatim)
            sbuf_add_ch(out, '$');
        sbuf_add_ch(out, *p);
    }
    sbuf_add_ch(out, '\n');
}

static bool container_write_main(const struct container_plan *plan, const char *dir) {
    struct sbuf b = {0};
    sbuf_add_c(&b, MADE_MARK ": what is changed here is lost.\n");
    for (size_t i = 0; i < plan->n_lines; i++)
        if (plan->lines[i].value[0] != '\0') /* POSTFIX_name= takes a line out */
            container_add_line(&b, &plan->lines[i]);
    bool ok = container_write(dir, "main.cf", sbuf_str(&b));
    sbuf_free(&b);
    return ok;
}

static bool container_write_master(const struct container_plan *plan, const char *dir) {
    struct sbuf b = {0};
    struct str rest = str_of(plan->ports), one;
    while (str_split(&rest, ", ", &one))
        sbuf_printf(&b, "%.*s inet n - n - - smtpd\n", STR_FMT(one));
    sbuf_add_c(&b, "smtp unix - - n - - smtp\nrelay unix - - n - - smtp\n");
    bool ok = container_write(dir, "master.cf", sbuf_str(&b));
    sbuf_free(&b);
    return ok;
}

static bool container_write_login(const struct container_plan *plan, const char *dir) {
    struct sbuf b = {0};
    struct str rest = str_of(plan->login_key), one;
    while (nexthop_split(&rest, &one)) /* the table is asked for one at a time */
        sbuf_printf(&b, "%.*s %s:%s\n", STR_FMT(one), plan->login_user, plan->login_password);
    bool ok = container_write(dir, "sasl_password", sbuf_str(&b));
    sbuf_wipe(&b);
    return ok;
}

/* -- users who may log in -- */

static bool container_add_user(struct store *st, const char *domain, struct str one,
                               struct container_plan *plan) {
    while (one.n > 0 && strchr(" \t", one.p[0]) != NULL)
        one = str_from(one, 1);
    ptrdiff_t colon = str_chr(one, ':');
    struct str name = str_make(one.p, colon < 0 ? 0 : (size_t)colon);
    char *password = str_dup(str_from(one, (size_t)(colon + 1))), *why = NULL;
    struct sbuf hash = {0}, user = {0};
    sbuf_printf(&user, str_chr(name, '@') < 0 ? "%.*s@%s" : "%.*s", STR_FMT(name), domain);
    str_lower(user.p, user.n);
    struct str part = addr_domain(sbuf_str(&user));
    bool ok = colon > 0 && password[0] != '\0' && strlen(password) <= PASSWORD_MAX &&
              addr_valid_host(part) && !str_has_control(sbuf_str(&user)) &&
              password_hash(password, &hash);
    if (ok) {
        ok = store_add_domain(st, part.p, &why) != STORE_ERROR;
        free(why);
        why = NULL;
        ok = ok && store_add_user(st, user.p, hash.p, &why) == STORE_YES;
    }
    if (!ok)
        container_plan_refuse(plan, plan->users_by,
                              why != NULL ? why : "name:password is wanted, with ',' between two");
    mem_wipe(password, strlen(password));
    free(password);
    free(why);
    sbuf_free(&hash);
    sbuf_free(&user);
    return ok;
}

/* The store of users is made anew: who is not in the environment any more is not there. */
static bool container_write_users(struct container_plan *plan, const struct config *cfg,
                                  const char *dir) {
    static const char *const files[] = {"accounts.db", "accounts.db-wal", "accounts.db-shm"};
    struct str rest = str_of(plan->users), one;
    char *why = NULL, *folder = container_path(dir, "users");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = container_path(folder, files[i]);
        unlink(path);
        free(path);
    }
    if (plan->users == NULL) {
        free(folder);
        return true;
    }
    struct store *st = store_embedded(folder, &why);
    size_t n = 0;
    bool ok = st != NULL || container_failed(folder, why);
    for (; ok && str_split(&rest, ",\r\n", &one); n++)
        ok = container_add_user(st, cfg->p.mydomain, one, plan);
    if (ok && n == 0)
        container_plan_refuse(plan, plan->users_by, "there is no name:password in it");
    ok = ok && n > 0;
    store_close(st);
    free(folder);
    free(why);
    return ok;
}

/* -- the configuration -- */

/* by: the variable that needs it; NULL: none. */
static void container_line_path(struct container_plan *plan, const char *param, const char *before,
                                const char *dir, const char *name, const char *by) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s%s/%s", before, dir, name);
    if (by != NULL)
        container_plan_need(plan, param, b.p, by);
    else
        container_plan_default(plan, param, b.p);
    sbuf_free(&b);
}

/* Lines that do not come of a variable. */
static void container_defaults(struct container_plan *plan, const char *dir, const char *volume) {
    bool root = geteuid() == 0;
    const struct passwd *own = root ? getpwnam(ROOTS_USER) : getpwuid(geteuid());
    if (own != NULL)
        container_plan_default(plan, "mail_owner", own->pw_name);
    container_line_path(plan, "queue_directory", "", volume, "queue", NULL);
    container_line_path(plan, "data_directory", "", volume, "data", NULL);
    container_plan_default(plan, "inet_interfaces", "all");
    container_plan_default(plan, "mydestination", "");
    container_plan_default(plan, "smtpd_relay_restrictions",
                           "permit_mynetworks, permit_sasl_authenticated, reject");
    if (plan->login_key != NULL)
        container_line_path(plan, "smtp_sasl_password_maps", "texthash:", dir, "sasl_password",
                            plan->login_by);
    if (plan->users != NULL) {
        container_plan_need(plan, "smtpd_sasl_auth_enable", "yes", plan->users_by);
        container_plan_default(plan, "smtpd_sasl_local_domain", "$mydomain");
        container_line_path(plan, "accounts_store", "sqlite:", dir, "users/accounts.db",
                            plan->users_by);
    }
    if (plan->senders.n > 0) {
        struct sbuf b = {0};
        sbuf_printf(&b, "check_sender_access texthash:%s/allowed_senders, %sreject", dir,
                    plan->users != NULL ? "permit_sasl_authenticated, " : "");
        container_plan_need(plan, "smtpd_recipient_restrictions", b.p, "ALLOWED_SENDER_DOMAINS");
        sbuf_free(&b);
    }
}

/* Names that mean nothing, and what Posthouse does not do, by their variables. */
static void container_check_names(struct container_plan *plan, const struct config *cfg) {
    for (size_t i = 0; i < plan->n_lines; i++) {
        const struct container_line *line = &plan->lines[i];
        if (line->by != NULL && param_find(line->name, strlen(line->name)) == NULL &&
            unread_find(line->name) == NULL && !config_name_used(cfg, line->name))
            container_plan_refuse(plan, line->by, "there is no parameter of that name");
    }
}

/* The variable that has made the line which text, "NAME: …", is about; NULL: none has. */
static const char *container_line_by(const struct container_plan *plan, const char *text) {
    for (size_t i = 0; i < plan->n_lines; i++) {
        size_t n = strlen(plan->lines[i].name);
        if (strncmp(text, plan->lines[i].name, n) == 0 && text[n] == ':')
            return plan->lines[i].by;
    }
    return NULL;
}

static void container_say(struct container_plan *plan, const struct diags *d) {
    for (size_t i = 0; i < d->n; i++) {
        const char *file = d->v[i].file == NULL ? "main.cf" : d->v[i].file;
        const char *by = container_line_by(plan, d->v[i].text);
        if (d->v[i].level == DIAG_ERROR)
            container_plan_refuse(plan, by == NULL ? file : by, d->v[i].text);
    }
}

static bool container_check(struct container_plan *plan, const struct config *cfg) {
    struct diags d = {0};
    daemon_check(cfg, DIAG_ERROR, &d); /* also what only lets mail wait: all of it would */
    unread_say_refused(cfg, DIAG_ERROR, &d);
    container_check_names(plan, cfg);
    container_say(plan, &cfg->diags);
    container_say(plan, &d);
    diag_free(&d);
    return plan->wrong == 0;
}

static bool container_folders(const char *dir, const char *volume) {
    struct sbuf why = {0};
    int rc = fs_mkdir(dir, 0700);
    if (rc == 0 && access(volume, W_OK) < 0)
        rc = -errno;
    if (rc < 0)
        sbuf_printf(&why, "%s: the container's volume has to belong to its user (%u)",
                    strerror(-rc), (unsigned)geteuid());
    bool ok = rc == 0 || container_failed(volume, why.p);
    sbuf_free(&why);
    return ok;
}

/* Is the configuration there one that an earlier start has made?  The command may be given where
 * there is no container. */
static bool container_may_write(const char *dir) {
    struct sbuf text = {0};
    char why[FS_WHY_MAX];
    char *path = container_path(dir, "main.cf");
    int rc = fs_read(path, &text, HEAD_MAX);
    bool ok =
        rc == -ENOENT || rc == -ENOTDIR || (rc == 0 && str_istarts(sbuf_str(&text), MADE_MARK));
    if (!ok)
        container_failed(path, rc < 0 ? fs_read_why(rc, HEAD_MAX, why)
                                      : "it was not made by posthouse container, which would write "
                                        "over it");
    sbuf_free(&text);
    free(path);
    return ok;
}

static bool container_make(struct container_plan *plan, const char *dir) {
    char *volume = fs_folder(str_of(dir));
    container_plan_read(plan, environ);
    container_defaults(plan, dir, volume);
    bool ok = plan->wrong == 0 && container_may_write(dir) && container_folders(dir, volume) &&
              container_write_login(plan, dir) &&
              container_write(dir, "allowed_senders", sbuf_str(&plan->senders)) &&
              container_write_main(plan, dir) && container_write_master(plan, dir);
    free(volume);
    if (!ok)
        return false;
    struct config *cfg = config_build(cfg_source_new(dir));
    ok = container_check(plan, cfg) && container_write_users(plan, cfg, dir);
    config_unref(cfg);
    return ok;
}

/* -- the daemon -- */

/* What of the environment the daemon may see: no secret is among it. */
static char **container_environment(void) {
    static const char *const names[] = {"PATH", "TZ", "MAIL_CONFIG", "NOTIFY_SOCKET",
                                        "WATCHDOG_USEC"};
    size_t n = 0;
    char **list = mem_zalloc((sizeof names / sizeof names[0] + 1) * sizeof *list);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct sbuf b = {0};
        const char *value = getenv(names[i]);
        if (value == NULL)
            continue;
        sbuf_printf(&b, "%s=%s", names[i], value);
        list[n++] = sbuf_take(&b);
    }
    return list;
}

static int container_become(const char *dir) {
    char *args[] = {(char *)(uintptr_t) "posthoused", (char *)(uintptr_t) "-c",
                    (char *)(uintptr_t)dir, (char *)(uintptr_t) "-f", NULL};
    char **list = container_environment();
    fflush(stderr);
    execvpe(PH_SBINDIR "/posthoused", args, list);
    execvpe("posthoused", args, list);
    container_failed(PH_SBINDIR "/posthoused", strerror(errno));
    return 1;
}

static bool container_runs(const struct config *cfg, char **why) {
    return ask_daemon(cfg->p.queue_directory, "{\"cmd\": \"reloads\"}", NULL, NULL, NULL, why) == 0;
}

/* The supervisor and the relay process answer, within some seconds. */
static int container_health(const char *dir) {
    struct config *cfg = cli_config("posthouse", dir);
    char *why = NULL;
    ask_set_patience(HEALTH_MS);
    bool well = cfg != NULL && container_runs(cfg, &why);
    if (why != NULL)
        container_failed("unhealthy", why);
    free(why);
    config_unref(cfg);
    return well ? 0 : 1;
}

int cli_container(const char *dir, int argc, char **argv) {
    struct container_plan plan = {0};
    dir = cli_dir(dir);
    if (argc == 2 && strcmp(argv[1], "health") == 0)
        return container_health(dir);
    if (argc != 1) {
        fputs("usage: posthouse container [health]\n", stderr);
        return EX_USAGE_;
    }
    if (dir[0] != '/')
        return container_failed(dir, "a whole path is wanted in MAIL_CONFIG") ? 0 : 1;
    umask(077);
    bool ok = container_make(&plan, dir);
    container_plan_free(&plan);
    return ok ? container_become(dir) : 1;
}
