/*
 * cli/config.c - posthouse config, postconf: values of parameters
 *
 * One thread.  Options that do not go together are refused before anything is read or written.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/config_edit.h"
#include "cli/config_master.h"
#include "config/unread.h"
#include "daemon/setting.h"
#include "maps/maps.h"
#include "util/mem.h"

struct show {
    bool set_only, defaults, no_name, expand, json;
    bool quiet; /* no warnings */
    bool list;  /* of all: what is a secret or may have one within is hidden */
};

static const char *raw_value(const struct config *c, const char *name, bool defaults) {
    const struct cfg_entry *e = defaults ? NULL : cfg_file_find(&c->main, str_of(name));
    const struct param_info *info = param_find(name, strlen(name));
    return e != NULL ? e->value : info != NULL ? info->def : NULL;
}

/* Is name a variable of the administrator's that the tables of passwords are written with? */
static bool logins_use(const struct config *c, const char *name) {
    const struct cfg_entry *logins = cfg_file_find(&c->main, STR_LIT("smtp_sasl_password_maps"));
    const char *at =
        logins == NULL || param_find(name, strlen(name)) != NULL ? NULL : logins->value;
    while (at != NULL && (at = strchr(at, '$')) != NULL) {
        at += strspn(at, "${(");
        if (strncmp(at, name, strlen(name)) == 0)
            return true;
    }
    return false;
}

/* The value as it is listed; a listing of all ends up in forums. */
static char *without_secret(const struct config *c, const char *name, const char *value) {
    struct sbuf b = {0};
    if (logins_use(c, name))
        maps_show(value, &b);
    else
        setting_show(name, value, &b);
    return sbuf_take(&b);
}

/* A name that is none gets a warning and nothing else, and no exit status of its own, as from
 * Postfix's. */
static void print_value(const struct config *c, const char *name, const struct show *s) {
    const char *raw = raw_value(c, name, s->defaults);
    char *text = raw != NULL && s->expand ? config_value(c, name, NULL) : NULL;
    if (raw == NULL) {
        if (!s->quiet)
            fprintf(stderr, "postconf: warning: %s: unknown parameter\n", name);
        return;
    }
    char *v = s->list ? without_secret(c, name, text != NULL ? text : raw)
                      : mem_strdup(text != NULL ? text : raw);
    if (s->json)
        cli_print_pair(str_of(name), str_of(v));
    else if (s->no_name)
        printf("%s\n", v);
    else
        printf("%s =%s%s\n", name, v[0] == '\0' ? "" : " ", v);
    free(v);
    free(text);
}

static int postconf_by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int print_all(const struct config *c, const struct show *s) {
    size_t max = param_total + c->main.n, n = 0;
    const char **names = mem_alloc(max * sizeof(char *));
    if (!s->set_only)
        for (size_t i = 0; i < param_total; i++)
            names[n++] = param_table[i].name;
    for (size_t i = 0; i < c->main.n; i++)
        if (c->main.v[i].line > 0 &&
            (s->set_only || param_find(c->main.v[i].name, strlen(c->main.v[i].name)) == NULL) &&
            !s->defaults)
            names[n++] = c->main.v[i].name;
    qsort(names, n, sizeof(char *), postconf_by_name);
    for (size_t i = 0; i < n; i++)
        print_value(c, names[i], s);
    free(names);
    return 0;
}

static void print_docs(void) {
    static const char *types[] = {"text", "yes/no", "number", "seconds", "hours", "days"};
    for (size_t i = 0; i < param_total; i++) {
        const struct param_info *p = &param_table[i];
        printf("| `%s` | %s | `%s` | %s |\n", p->name, types[p->type],
               p->def[0] == '\0' ? " " : p->def, p->doc);
    }
}

/* A row of docs/parameters.md about what is not read; arg: the kind that is asked for. */
static void print_unread_docs(void *arg, const struct unread_row *row) {
    const char *kind = arg, *star = "";
    if (strncmp(row->kind, kind, strlen(kind)) != 0)
        return;
    if (strstr(row->kind, "suffix") != NULL || strstr(row->kind, "prefix") != NULL)
        star = "…";
    bool prefix = strstr(row->kind, "prefix") != NULL;
    printf("| `%s%s%s` | %s |\n", prefix ? "" : star, row->name, prefix ? star : "", row->text);
}

static void print_all_unread_docs(void) {
    char refused[] = "refused", harmless[] = "harmless";
    puts("\n## Refused\n\nSet to anything but what Postfix does by default, these parameters and "
         "restrictions ask for something that\nPosthouse does not do. A service that one of them "
         "concerns takes no mail (451 4.3.5), a transport sends none,\nuntil "
         "`accept_unimplemented` names it. A word in a line of master.cf that belongs to no option "
         "cannot be accepted: the line has\nto be put right.\n\n| name | what would be done "
         "instead |\n|---|---|");
    unread_each(print_unread_docs, refused);
    puts("\n## Harmless\n\nWhatever these are set to, mail is not harmed.\n\n| name | why |\n"
         "|---|---|");
    unread_each(print_unread_docs, harmless);
}

/* "kind TAB name TAB idle values TAB text", for scripts and tests. */
static void print_verdict(void *arg, const struct unread_row *row) {
    (void)arg;
    printf("%s\t%s\t%s\t%s\n", row->kind, row->name, row->idle, row->text);
}

static void print_verdicts(void) {
    for (size_t i = 0; i < param_total; i++)
        printf("read\t%s\t%s\t%s\n", param_table[i].name, param_table[i].def, param_table[i].doc);
    unread_each(print_verdict, NULL);
}

/* Text for roff: no line begins with a dot or quote, backslashes are doubled. */
static void print_roff(const char *s) {
    for (; *s != '\0'; s++)
        fputs(*s == '\\' ? "\\e" : *s == '-' ? "\\-" : (char[2]){*s, '\0'}, stdout);
}

static void print_man(void) {
    static const char *units[] = {"", "", "", " (seconds)", " (hours)", " (days)"};
    for (size_t i = 0; i < param_total; i++) {
        const struct param_info *p = &param_table[i];
        printf(".TP\n.B %s\n(default: ", p->name);
        print_roff(p->def[0] == '\0' ? "empty" : p->def);
        printf(")%s\n", units[p->type]);
        printf(".br\n\\&");
        print_roff(p->doc);
        putchar('\n');
    }
}

static int config_usage(void) {
    fputs("usage: posthouse config [-n] [-d] [-h|-j] [-q] [-x] [NAME …]  (-n set only, -d "
          "defaults, -h "
          "values only, -j JSON, -q without warnings, -x expanded); -e NAME=VALUE …, -X NAME … or "
          "-# NAME … to change main.cf; -M, -F or -P [-f] [-h|-H] [-x] [SERVICE[/TYPE[/…]] …] to "
          "show "
          "master.cf (services, fields or parameters); or "
          "-U: every name of Postfix's and what becomes of it\n",
          stderr);
    return EX_USAGE_;
}

/* -M, -F or -P; others: options of main.cf stand beside it. */
static int show_master(const char *dir, struct master_show *m, bool others, int argc, char **argv) {
    if (others || m->kind == '?' || (argc > 0 && strchr(argv[0], '=') != NULL))
        return config_usage(); /* master.cf is not changed */
    if (m->no_name && m->no_value)
        fputs("postconf: fatal: specify one of -h -H\n", stderr);
    else if (m->kind == 'M' && (m->no_name || m->no_value))
        fprintf(stderr, "postconf: fatal: with option -M, do not specify %s\n",
                m->no_name ? "-h" : "-H");
    else
        return config_master(dir, m, argc, argv);
    return 1;
}

int cli_postconf(const char *dir, int argc, char **argv) {
    struct show s = {0};
    struct master_show m = {0};
    int opt, edit = 0;
    optind = 1;
    while ((opt = getopt(argc, argv, "+c:ndhjqxeX#DRUMFPfH")) != -1) {
        switch (opt) {
        case 'c':
            dir = optarg;
            break;
        case 'n':
            s.set_only = true;
            break;
        case 'd':
            s.defaults = true;
            break;
        case 'h':
            s.no_name = true;
            break;
        case 'j':
            s.json = true;
            break;
        case 'q':
            s.quiet = true;
            break;
        case 'x':
            s.expand = true;
            break;
        case 'M':
        case 'F':
        case 'P':
            m.kind = m.kind == 0 || m.kind == opt ? (char)opt : '?';
            break;
        case 'f':
            m.fold = true;
            break;
        case 'H':
            m.no_value = true;
            break;
        case 'D': /* rows of docs/parameters.md */
            print_docs();
            print_all_unread_docs();
            return 0;
        case 'R': /* the body of posthouse-main.cf(5) */
            print_man();
            return 0;
        case 'e':
        case 'X':
        case '#':
            edit = edit == 0 || edit == opt ? opt : '?';
            break;
        case 'U': /* every name that Postfix has, and what Posthouse makes of it */
            print_verdicts();
            return 0;
        default:
            return config_usage();
        }
    }
    m.no_name = s.no_name;
    m.expand = s.expand;
    if (m.kind != 0)
        return show_master(dir, &m, edit != 0 || s.set_only || s.defaults || s.json || s.quiet,
                           argc - optind, argv + optind);
    if (m.fold || m.no_value)
        return config_usage();
    if (edit == 0 && optind < argc && strchr(argv[optind], '=') != NULL)
        edit = 'e'; /* "postconf NAME=VALUE" */
    if (edit == '?' ||
        (edit != 0 && (s.set_only || s.defaults || s.no_name || s.expand || s.json)) ||
        (s.json && s.no_name))
        return config_usage();
    if (edit != 0)
        return config_edit(dir, (char)edit, argc - optind, argv + optind);
    struct config *c = cli_config("postconf", dir);
    if (c == NULL)
        return 1;
    s.list = optind >= argc;
    if (s.list)
        return print_all(c, &s);
    for (int i = optind; i < argc; i++)
        print_value(c, argv[i], &s);
    return 0;
}
