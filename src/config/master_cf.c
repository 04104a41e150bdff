/*
 * config/master_cf.c - master.cf; see master_cf.h
 *
 * "name type private unpriv chroot wakeup maxproc command + args"; of the arguments only -o is
 * used.  Lines of other kinds are kept as SERVICE_UNUSED, for `check` to list.
 */
#include "config/master_cf.h"

#include <stdlib.h>
#include <string.h>

#include "config/secret.h"
#include "util/lines.h"
#include "util/mem.h"

struct parse {
    struct config *c;
    const char *path;
    struct service **passes; /* lines of type "pass"; the snapshot owns them */
    size_t n_passes;
};

static struct service *service_add(struct config *c, enum service_kind kind, struct str name,
                                   struct str command, int line) {
    struct service *s = MEM_NEW(struct service);
    s->kind = kind;
    s->name = str_dup(name);
    s->command = str_dup(command);
    s->line = line;
    s->overrides.path = mem_strdup("master.cf");
    c->services = mem_realloc(c->services, (c->n_services + 1) * sizeof(struct service *));
    c->services[c->n_services++] = s;
    return s;
}

static enum service_kind kind_of(struct str type, struct str command) {
    bool inet = str_eq_c(type, "inet"), local = str_eq_c(type, "unix");
    if (inet && str_eq_c(command, "smtpd"))
        return SERVICE_SMTPD;
    if (local && str_eq_c(command, "smtp"))
        return SERVICE_SMTP;
    if (local && str_eq_c(command, "lmtp"))
        return SERVICE_LMTP;
    if (local && str_eq_c(command, "error"))
        return SERVICE_ERROR;
    if (local && str_eq_c(command, "discard"))
        return SERVICE_DISCARD;
    if (local && str_eq_c(command, "local"))
        return SERVICE_LOCAL;
    return SERVICE_UNUSED;
}

/* A listener by itself: its clients go to the "smtpd pass" line, and that line's -o hold. */
static bool is_postscreen(struct str type, struct str command) {
    return str_eq_c(type, "inet") && str_eq_c(command, "postscreen");
}

/* The line is not what it should be; text is the part of it to quote. */
static void master_cf_wrong(struct parse *p, int line, const char *why, struct str text) {
    struct sbuf shown = {0};
    secret_quote(text, &shown);
    diag_add(&p->c->diags, DIAG_ERROR, p->path, line, "%s: \"%.*s\"", why,
             STR_FMT(sbuf_str(&shown)));
    sbuf_free(&shown);
}

static void override_add(struct parse *p, struct service *s, struct str text, int line) {
    if (text.n >= 2 && text.p[0] == '{')
        text = str_trim(str_make(text.p + 1, text.n - 2));
    ptrdiff_t eq = str_chr(text, '=');
    struct str name = str_trim(str_make(text.p, eq < 0 ? 0 : (size_t)eq));
    if (name.n == 0 || str_chr(name, ' ') >= 0 || str_chr(name, '\t') >= 0) {
        master_cf_wrong(p, line, "-o needs name=value without blanks, or { name = value }", text);
        return;
    }
    cfg_file_set(&s->overrides, name, str_trim(str_from(text, (size_t)eq + 1)), line);
}

/* Where the value of an -o begins in arg: behind "-o", or behind "-vo" and its like; 0: arg has
 * none. */
static size_t option_o(struct str arg) {
    size_t at = 1;
    while (at < arg.n && strchr("vdDsSl", arg.p[at]) != NULL && arg.p[at] != '\0')
        at++;
    return arg.n > at && arg.p[0] == '-' && arg.p[at] == 'o' ? at + 1 : 0;
}

/* A word that belongs to no option is often the rest of a value: a blank ends one that does not
 * stand between braces. */
static void parse_args(struct parse *p, struct service *s, struct str rest, int line) {
    struct str arg;
    while (str_split_braces(&rest, " \t", &arg)) {
        size_t at = option_o(arg);
        if (at > 0 && at < arg.n)
            override_add(p, s, str_from(arg, at), line);
        else if (at > 0 && str_split_braces(&rest, " \t", &arg))
            override_add(p, s, arg, line);
        else if (at > 0 || arg.p[0] != '-')
            s->has_stray_word = true;
    }
}

static void pass_keep(struct parse *p, struct service *s) {
    p->passes = mem_realloc(p->passes, (p->n_passes + 1) * sizeof *p->passes);
    p->passes[p->n_passes++] = s;
}

/* What postscreen lets in is served by the pass line of that name (smtpd_service_name), with its
 * overrides and its process limit: postscreen's own, 1, is of clients without number. */
static void pass_apply(struct parse *p, struct service *s) {
    const struct cfg_entry *e = cfg_file_find(&s->overrides, STR_LIT("smtpd_service_name"));
    if (e == NULL)
        e = cfg_file_find(&p->c->main, STR_LIT("smtpd_service_name"));
    s->maxproc = -1;
    for (size_t i = 0; i < p->n_passes; i++) {
        const struct service *pass = p->passes[i];
        if (strcmp(pass->name, e == NULL ? "smtpd" : e->value) != 0)
            continue;
        s->maxproc = pass->maxproc;
        s->has_stray_word = s->has_stray_word || pass->has_stray_word;
        for (size_t k = 0; k < pass->overrides.n; k++)
            cfg_file_set(&s->overrides, str_of(pass->overrides.v[k].name),
                         str_of(pass->overrides.v[k].value), pass->overrides.v[k].line);
    }
}

/* Another word is a slip of the pen: the port that was meant would not be there. */
static void type_check(struct parse *p, struct str type, int no) {
    static const char types[] = "inet unix unix-dgram fifo pass";
    char *word = str_dup(type);
    if (!list_has_word(str_of(types), word)) {
        struct sbuf shown = {0};
        secret_quote(type, &shown);
        diag_add(&p->c->diags, DIAG_ERROR, p->path, no, "\"%s\" is no type of service: %s", shown.p,
                 types);
        sbuf_free(&shown);
    }
    free(word);
}

static void master_cf_parse_line(void *ctx, struct str line, int no) {
    struct parse *p = ctx;
    struct str f[8], rest = line;
    for (size_t i = 0; i < 8; i++) {
        if (!str_split(&rest, " \t", &f[i])) {
            master_cf_wrong(p, no, "bad field count: a service needs 8 fields", line);
            return;
        }
    }
    type_check(p, f[1], no);
    enum service_kind kind = kind_of(f[1], f[7]);
    if (is_postscreen(f[1], f[7])) {
        kind = SERVICE_SMTPD;
        diag_add(&p->c->diags, DIAG_NOTE, p->path, no,
                 "postscreen is not part of Posthouse: %.*s is served as a plain smtpd",
                 STR_FMT(f[0]));
    }
    struct service *s = service_add(p->c, kind, f[0], f[7], no);
    s->postscreen = is_postscreen(f[1], f[7]);
    s->inet = str_eq_c(f[1], "inet");
    if (str_eq_c(f[1], "pass"))
        pass_keep(p, s);
    if (str_eq_c(f[0], "retry") && kind == SERVICE_ERROR)
        s->kind = SERVICE_RETRY;
    uint64_t max = 0;
    if (str_u64(f[6], &max))
        s->maxproc = (int64_t)max;
    else if (str_eq_c(f[6], "-"))
        s->maxproc = -1;
    parse_args(p, s, rest, no);
}

static void master_cf_parse_orphan(void *ctx, struct str line, int no) {
    master_cf_wrong(ctx, no, "logical line must not start with whitespace", line);
}

static const struct lines_ops parse_ops = {master_cf_parse_line, master_cf_parse_orphan};

void master_cf_parse(struct config *c, const char *path, struct str text) {
    struct parse p = {c, path, NULL, 0};
    lines_logical(text, true, &parse_ops, &p);
    for (size_t i = 0; i < c->n_services; i++)
        if (c->services[i]->postscreen)
            pass_apply(&p, c->services[i]);
    free(p.passes);
}

const struct service *master_cf_transport(const struct config *c, struct str name) {
    for (size_t i = c->n_services; i > 0; i--) { /* of two lines the last one counts */
        const struct service *s = c->services[i - 1];
        if (s->kind != SERVICE_SMTPD && str_eq_c(name, s->name))
            return s;
    }
    return NULL;
}

static void builtin_add(struct config *c, enum service_kind kind, const char *name,
                        const char *cmd) {
    if (master_cf_transport(c, str_of(name)) == NULL)
        service_add(c, kind, str_of(name), str_of(cmd), 0)->maxproc = -1;
}

void master_cf_builtin(struct config *c) {
    builtin_add(c, SERVICE_ERROR, "error", "error");
    builtin_add(c, SERVICE_RETRY, "retry", "error");
    builtin_add(c, SERVICE_DISCARD, "discard", "discard");
}

void master_cf_defaults(struct config *c) {
    service_add(c, SERVICE_SMTPD, STR_LIT("smtp"), STR_LIT("smtpd"), 0)->maxproc = -1;
    builtin_add(c, SERVICE_SMTP, "smtp", "smtp");
    builtin_add(c, SERVICE_SMTP, "relay", "smtp");
    builtin_add(c, SERVICE_LMTP, "lmtp", "lmtp");
    builtin_add(c, SERVICE_LOCAL, "local", "local");
    const struct cfg_entry *cert = cfg_file_find(&c->main, STR_LIT("smtpd_tls_cert_file"));
    const struct cfg_entry *chain = cfg_file_find(&c->main, STR_LIT("smtpd_tls_chain_files"));
    if ((cert == NULL || cert->value[0] == '\0') && (chain == NULL || chain->value[0] == '\0'))
        return;
    struct service *s = service_add(c, SERVICE_SMTPD, STR_LIT("submission"), STR_LIT("smtpd"), 0);
    cfg_file_set(&s->overrides, STR_LIT("syslog_name"), STR_LIT("postfix/submission"), 0);
    cfg_file_set(&s->overrides, STR_LIT("smtpd_tls_security_level"), STR_LIT("encrypt"), 0);
    s->maxproc = -1;
    s = service_add(c, SERVICE_SMTPD, STR_LIT("submissions"), STR_LIT("smtpd"), 0);
    cfg_file_set(&s->overrides, STR_LIT("syslog_name"), STR_LIT("postfix/submissions"), 0);
    cfg_file_set(&s->overrides, STR_LIT("smtpd_tls_wrappermode"), STR_LIT("yes"), 0);
    s->maxproc = -1;
}
