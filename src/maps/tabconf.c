/*
 * maps/tabconf.c - table configuration files; see tabconf.h
 */
#include "maps/tabconf.h"

#include <stdlib.h>
#include <string.h>

#include "util/fs.h"
#include "util/lines.h"
#include "util/mem.h"

#define TEXT_MAX (1U << 20)

struct pair {
    char *name;
    char *value;
};

struct tabconf {
    struct pair *v;
    size_t n;
};

static void value_free(char *value) {
    mem_wipe(value, strlen(value));
    free(value);
}

static struct pair *pair_find(const struct tabconf *c, struct str name) {
    for (size_t i = 0; i < c->n; i++)
        if (str_eq_c(name, c->v[i].name))
            return &c->v[i];
    return NULL;
}

/* Lines without '=' are no parameters: passed over, as Postfix does with a warning. */
static void tabconf_take_line(void *arg, struct str line, int no) {
    struct tabconf *c = arg;
    ptrdiff_t eq = str_chr(line, '=');
    (void)no;
    if (eq < 0)
        return;
    struct str name = str_trim(str_make(line.p, (size_t)eq));
    char *value = str_dup(str_trim(str_from(line, (size_t)eq + 1)));
    struct pair *p = pair_find(c, name);
    if (p != NULL) {
        value_free(p->value);
        p->value = value;
        return;
    }
    c->v = mem_realloc(c->v, (c->n + 1) * sizeof *c->v);
    c->v[c->n++] = (struct pair){str_dup(name), value};
}

static void take_orphan(void *arg, struct str line, int no) {
    (void)arg;
    (void)line;
    (void)no;
}

struct tabconf *tabconf_parse(struct str text) {
    static const struct lines_ops ops = {tabconf_take_line, take_orphan};
    struct tabconf *c = MEM_NEW(struct tabconf);
    lines_logical(text, true, &ops, c);
    return c;
}

void tabconf_set(struct tabconf *c, const char *name, const char *value) {
    struct pair *p = pair_find(c, str_of(name));
    if (p != NULL) {
        value_free(p->value);
        p->value = mem_strdup(value);
        return;
    }
    c->v = mem_realloc(c->v, (c->n + 1) * sizeof *c->v);
    c->v[c->n++] = (struct pair){mem_strdup(name), mem_strdup(value)};
}

static struct {
    char *(*fn)(void *arg, const char *name);
    void *arg;
} from_main;

void tabconf_use_main(char *(*fn)(void *arg, const char *name), void *arg) {
    from_main.fn = fn;
    from_main.arg = arg;
}

char *tabconf_main(const char *name) {
    return from_main.fn == NULL ? NULL : from_main.fn(from_main.arg, name);
}

/* Every parameter that a table file may have. */
static const char *const known[] = {"hosts",
                                    "user",
                                    "password",
                                    "dbname",
                                    "query",
                                    "result_format",
                                    "domain",
                                    "expansion_limit",
                                    "table",
                                    "select_field",
                                    "where_field",
                                    "additional_conditions",
                                    "select_function",
                                    "option_file",
                                    "option_group",
                                    "charset",
                                    "encoding",
                                    "idle_interval",
                                    "retry_interval",
                                    "require_result_set",
                                    "tls_cert_file",
                                    "tls_key_file",
                                    "tls_CAfile",
                                    "tls_CApath",
                                    "tls_ciphers",
                                    "dbpath",
                                    "tls_verify_cert",
                                    "server_host",
                                    "server_port",
                                    "bind",
                                    "bind_dn",
                                    "bind_pw",
                                    "search_base",
                                    "query_filter",
                                    "scope",
                                    "result_attribute",
                                    "result_filter",
                                    "timeout",
                                    "dereference",
                                    "chase_referrals",
                                    "version",
                                    "start_tls",
                                    "recursion_limit",
                                    "size_limit",
                                    "debuglevel",
                                    "tls_ca_cert_file",
                                    "tls_ca_cert_dir",
                                    "tls_cert",
                                    "tls_key",
                                    "tls_require_cert",
                                    "tls_cipher_suite",
                                    "tls_random_file",
                                    "special_result_attribute",
                                    "terminal_result_attribute",
                                    "leaf_result_attribute",
                                    "sasl_mechs",
                                    "sasl_realm",
                                    "sasl_authz_id",
                                    "sasl_minssf"};

struct tabconf *tabconf_legacy(const char *name) {
    struct tabconf *c = MEM_NEW(struct tabconf);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct sbuf full = {0};
        sbuf_printf(&full, "%s_%s", name, known[i]);
        char *value = tabconf_main(full.p);
        sbuf_free(&full);
        if (value == NULL)
            continue;
        tabconf_set(c, known[i], value);
        value_free(value);
    }
    if (c->n > 0)
        return c;
    tabconf_free(c);
    return NULL;
}

struct tabconf *tabconf_read(const char *path, char **why) {
    struct sbuf text = {0}, b = {0};
    struct tabconf *c = NULL;
    char words[FS_WHY_MAX];
    int rc = fs_read(path, &text, TEXT_MAX);
    if (rc == 0) {
        c = tabconf_parse(sbuf_str(&text));
    } else {
        sbuf_printf(&b, "open %s: %s", path, fs_read_why(rc, TEXT_MAX, words));
        *why = sbuf_take(&b);
    }
    sbuf_wipe(&text);
    return c;
}

void tabconf_free(struct tabconf *c) {
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->n; i++) {
        free(c->v[i].name);
        value_free(c->v[i].value);
    }
    free(c->v);
    free(c);
}

const char *tabconf_str(const struct tabconf *c, const char *name, const char *otherwise) {
    const struct pair *p = pair_find(c, str_of(name));
    return p == NULL ? otherwise : p->value;
}

int64_t tabconf_int(const struct tabconf *c, const char *name, int64_t otherwise,
                    const char **bad) {
    const char *v = tabconf_str(c, name, NULL);
    uint64_t n;
    if (v == NULL)
        return otherwise;
    if (str_u64(str_of(v), &n) && n <= INT32_MAX)
        return (int64_t)n;
    *bad = name;
    return otherwise;
}

bool tabconf_bool(const struct tabconf *c, const char *name, bool otherwise, const char **bad) {
    const char *v = tabconf_str(c, name, NULL);
    if (v == NULL)
        return otherwise;
    if (str_ieq_c(str_of(v), "yes") || str_ieq_c(str_of(v), "no"))
        return v[0] == 'y' || v[0] == 'Y';
    *bad = name;
    return otherwise;
}
