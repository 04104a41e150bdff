/*
 * daemon/confine_folders.c - the folders that the tables of a configuration lie in; see confine.h
 *
 * A table's own folder, and those of the files that its file names: a database, certificates.  What
 * a file of certificates includes is not followed.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/certrows.h"
#include "daemon/confine.h"
#include "maps/tabconf.h"
#include "util/codec.h"
#include "util/fs.h"

struct visit {
    void (*fn)(void *arg, const char *dir);
    void *arg;
};

static void path_folder(const struct visit *v, struct str path) {
    char *dir = fs_folder(path);
    if (path.n > 1 && path.p[0] == '/')
        v->fn(v->arg, dir);
    free(dir);
}

static const char *const file_params[] = {"dbpath",           "tls_CAfile",  "tls_cert_file",
                                          "tls_key_file",     "option_file", "tls_cert",
                                          "tls_ca_cert_file", "tls_key"};
static const char *const folder_params[] = {"tls_CApath", "tls_ca_cert_dir"};
static const char *const uri_params[] = {"sslrootcert=", "sslcert=", "sslkey=", "sslcrl="};

#define N(a) (sizeof(a) / sizeof(a)[0])

/* The files of a postgresql:// address, which has percent-encoded values. */
static void uri_folders(const struct visit *v, const char *uri) {
    for (size_t i = 0; i < N(uri_params); i++) {
        for (const char *p = uri; (p = strstr(p, uri_params[i])) != NULL;) {
            struct sbuf path = {0};
            p += strlen(uri_params[i]);
            if (percent_decode(&path, str_make(p, strcspn(p, "& ,\t"))))
                path_folder(v, sbuf_str(&path));
            sbuf_free(&path);
        }
    }
}

static void text_folders(const struct visit *v, const char *text);

/* The files and tables of "domain = …". */
static void domain_folders(const struct visit *v, const char *list) {
    struct str rest = str_of(list), w;
    text_folders(v, list);
    while (str_split(&rest, ", \t\r\n!", &w))
        path_folder(v, w);
}

/* The files that a table's file names. */
static void table_folders(const struct visit *v, struct str file) {
    char *path = str_dup(file), *why = NULL;
    struct tabconf *c = tabconf_read(path, &why);
    for (size_t i = 0; c != NULL && i < N(file_params); i++)
        path_folder(v, str_of(tabconf_str(c, file_params[i], "")));
    for (size_t i = 0; c != NULL && i < N(folder_params); i++)
        if (tabconf_str(c, folder_params[i], "")[0] == '/')
            v->fn(v->arg, tabconf_str(c, folder_params[i], ""));
    if (c != NULL) {
        uri_folders(v, tabconf_str(c, "hosts", ""));
        domain_folders(v, tabconf_str(c, "domain", ""));
    }
    tabconf_free(c);
    free(why);
    free(path);
}

/* Does "type:" end at p, where type's tables have a file that says how to connect? */
static bool has_table_file(const char *text, const char *p) {
    static const char *const types[] = {"mysql:", "pgsql:", "sqlite:", "ldap:"};
    for (size_t i = 0; i < N(types); i++) {
        size_t n = strlen(types[i]);
        if ((size_t)(p - text) >= n && memcmp(p - n, types[i], n) == 0)
            return true;
    }
    return false;
}

/* Folders of each "type:/path" in one parameter's text. */
static void text_folders(const struct visit *v, const char *text) {
    struct str rest = str_of(text), w;
    while (str_split(&rest, ", \t\r\n{}", &w)) {
        const char *slash = memchr(w.p, '/', w.n);
        if (slash == NULL || slash == w.p || slash[-1] != ':')
            continue;
        struct str path = str_from(w, (size_t)(slash - w.p));
        path_folder(v, path);
        if (has_table_file(w.p, slash))
            table_folders(v, path);
    }
}

static void params_folders(const struct visit *v, const struct params *p) {
    for (size_t i = 0; i < param_count; i++)
        if (param_table[i].type == PARAM_STR)
            text_folders(v, params_text_at(p, param_table[i].offset));
}

/* "foo_dbpath", of a table sqlite:foo with its parameters in main.cf; not smtp_tls_CAfile. */
static bool of_table(const char *name, const char *param) {
    size_t n = strlen(name), m = strlen(param);
    return n > m + 1 && name[n - m - 1] == '_' && strcmp(name + n - m, param) == 0 &&
           param_find(name, n) == NULL;
}

static void main_folders(const struct visit *v, const struct config *cfg) {
    for (size_t i = 0; i < cfg->main.n; i++) {
        const char *name = cfg->main.v[i].name;
        for (size_t k = 0; k < N(file_params); k++) {
            char *value = of_table(name, file_params[k]) ? config_value(cfg, name, NULL) : NULL;
            if (value != NULL)
                path_folder(v, str_of(value));
            free(value);
        }
    }
}

/* Does the parameter name a file (or, CApath, a folder) of certificates and keys? */
static bool names_certificates(const char *name) {
    static const char *const ends[] = {"_cert_file", "_key_file", "_chain_files",
                                       "_CAfile",    "_CApath",   "_trust_anchor_file"};
    return str_end_of(name, ends, N(ends)) >= 0;
}

/* Files of a certificate and its key are not read where a chain is named. */
static bool chain_is_instead(const struct params *p, const char *name, bool server) {
    static const char *const ends[] = {"_cert_file", "_key_file"};
    const char *chain = server ? p->smtpd_tls_chain_files : p->smtp_tls_chain_files;
    return chain[0] != '\0' && str_end_of(name, ends, N(ends)) >= 0;
}

static void params_certificates(const struct visit *v, const struct config *cfg,
                                const struct params *p, bool server) {
    for (size_t i = 0; i < param_count; i++) {
        struct str rest, file;
        if (param_table[i].type != PARAM_STR || !names_certificates(param_table[i].name) ||
            (strncmp(param_table[i].name, "smtpd_", 6) == 0) != server ||
            chain_is_instead(p, param_table[i].name, server))
            continue;
        for (rest = str_of(params_text_at(p, param_table[i].offset));
             str_split(&rest, ", \t\r\n", &file);) {
            struct sbuf path = {0};
            sbuf_printf(&path, "%s%s%.*s", file.p[0] == '/' ? "" : cfg->dir,
                        file.p[0] == '/' ? "" : "/", STR_FMT(file));
            v->fn(v->arg, path.p);
            sbuf_free(&path);
        }
    }
}

void confine_certificates_of(const struct config *cfg, const struct params *p, bool server,
                             void (*fn)(void *arg, const char *file), void *arg) {
    struct visit v = {fn, arg};
    params_certificates(&v, cfg, p, server);
    certrows_files(cfg, p, server, fn, arg);
}

void confine_certificates(const struct config *cfg, void (*fn)(void *arg, const char *file),
                          void *arg) {
    for (size_t i = 0; i <= cfg->n_services; i++) {
        const struct params *p = i == 0 ? &cfg->p : &cfg->services[i - 1]->p;
        confine_certificates_of(cfg, p, true, fn, arg);
        confine_certificates_of(cfg, p, false, fn, arg);
    }
}

void confine_folders_of(const char *text, void (*fn)(void *arg, const char *dir), void *arg) {
    struct visit v = {fn, arg};
    text_folders(&v, text);
}

void confine_folders(const struct config *cfg, void (*fn)(void *arg, const char *dir), void *arg) {
    struct visit v = {fn, arg};
    fn(arg, cfg->dir);
    main_folders(&v, cfg);
    text_folders(&v, cfg->p.accounts_store);
    text_folders(&v, cfg->relays_spec);
    path_folder(&v, str_of(cfg->p.relays_key_file));
    params_folders(&v, &cfg->p);
    for (size_t i = 0; i < cfg->n_services; i++)
        params_folders(&v, &cfg->services[i]->p);
}
