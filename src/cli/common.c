/*
 * cli/common.c - what the commands share; see cli.h
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/audit.h"
#include "daemon/offline.h"
#include "util/fs.h"
#include "util/mem.h"

const char *cli_dir(const char *dir) {
    const char *env = getenv("MAIL_CONFIG");
    return dir != NULL ? dir : env != NULL ? env : PH_CONFIG_DIR;
}

const char *cli_dir_or_file(const char *arg) {
    struct stat st;
    return stat(arg, &st) == 0 && S_ISREG(st.st_mode) ? fs_folder(str_of(arg)) : arg;
}

void cli_put_safe(const char *text) {
    char *line = mem_strdup(text);
    for (char *p = line; (p = strchr(p, '\n')) != NULL;)
        *p = ' ';
    str_hide_controls(line, strlen(line));
    fputs(line, stdout);
    free(line);
}

void cli_put_json(struct str line) {
    for (size_t i = 0; i < line.n; i++) {
        unsigned char c = (unsigned char)line.p[i];
        unsigned char next = i + 1 < line.n ? (unsigned char)line.p[i + 1] : 0;
        if (c == 0xc2 && (next & 0xe0) == 0x80) {
            printf("\\u%04x", next);
            i++;
        } else {
            putchar(c);
        }
    }
    putchar('\n');
}

void cli_print_pair(struct str name, struct str value) {
    struct sbuf b = {0};
    sbuf_add_ch(&b, '{');
    sbuf_add_json(&b, name);
    sbuf_add_c(&b, ": ");
    sbuf_add_json(&b, value);
    sbuf_add_ch(&b, '}');
    puts(b.p);
    sbuf_free(&b);
}

char *cli_real_dir(const char *who, const char *dir) {
    char *full = realpath(cli_dir(dir), NULL);
    bool fresh = errno == ENOENT && strcmp(who, "posthouse") == 0;
    if (full == NULL)
        fprintf(stderr, "%s: fatal: %s: %s%s\n", who, cli_dir(dir), strerror(errno),
                fresh ? " (posthouse setup makes a configuration)" : "");
    return full;
}

/* NULL: there is no such directory. */
static struct config *config_load(const char *who, const char *dir, const char *severity) {
    char *full = cli_real_dir(who, dir);
    if (full == NULL)
        return NULL;
    struct config *c = config_build(cfg_source_new(full));
    free(full);
    for (size_t i = 0; i < c->diags.n; i++) {
        const struct diag *d = &c->diags.v[i];
        if (d->level == DIAG_ERROR && d->file != NULL && d->line > 0)
            fprintf(stderr, "%s: %s: %s, line %d: %s\n", who, severity, d->file, d->line, d->text);
        else if (d->level == DIAG_ERROR)
            fprintf(stderr, "%s: %s: %s: %s\n", who, severity, d->file == NULL ? dir : d->file,
                    d->text);
    }
    audit_tables_of(c);
    return c;
}

/* NULL where bad. */
static struct config *config_unless(struct config *c, bool bad) {
    if (c != NULL && bad)
        config_unref(c);
    return bad ? NULL : c;
}

struct config *cli_config(const char *who, const char *dir) {
    struct config *c = config_load(who, dir, "fatal");
    return config_unless(c, c != NULL && c->diags.errors > 0);
}

struct config *cli_config_with_mistakes(const char *who, const char *dir) {
    struct config *c = config_load(who, dir, "warning");
    return config_unless(c, c != NULL && access(c->main.path, R_OK) < 0);
}

int cli_control(const char *who, const struct config *cfg, const char *request, ask_line_fn fn,
                void *arg, struct ask_end *end) {
    char *why;
    int rc = ask_daemon(cfg->p.queue_directory, request, fn, arg, end, &why);
    if (rc < 0)
        fprintf(stderr, "%s: fatal: %s\n", who, why);
    free(why);
    return rc < 0 ? -1 : 0;
}

int cli_ask(const char *who, const struct config *cfg, const char *request, ask_line_fn fn,
            void *arg, struct ask_end *end, char **why) {
    int rc = ask_daemon(cfg->p.queue_directory, request, fn, arg, end, why);
    if (rc != -ENOENT && rc != -ECONNREFUSED)
        return rc;
    char *down = *why;
    int without = offline_ask(cfg->dir, request, fn, arg, why);
    if (without == -EOPNOTSUPP || without == -EAGAIN || without == -EACCES) {
        free(*why);
        *why = down;
        return rc;
    }
    free(down);
    fprintf(stderr, "%s: warning: Mail system is down -- accessing queue directly\n", who);
    return without;
}

int cli_control_status(const char *who, const struct config *cfg, const char *request,
                       ask_line_fn fn, void *arg, struct ask_end *end) {
    struct ask_end unused = {0};
    struct ask_end *e = end == NULL ? &unused : end;
    const struct passwd *pw = getpwuid(getuid());
    char *why;
    int rc = cli_ask(who, cfg, request, fn, arg, e, &why);
    if (rc < 0 && e->denied)
        fprintf(stderr, "%s: fatal: User %s(%ld) is not allowed to %s\n", who,
                pw == NULL ? "unknown" : pw->pw_name, (long)getuid(), why);
    else if (rc < 0)
        fprintf(stderr, "%s: fatal: %s\n", who, why);
    free(why);
    return rc == 0 ? EX_OK_ : EX_UNAVAILABLE_;
}

bool cli_take_flag(int *argc, char **argv, const char *flag) {
    for (int i = 1; i < *argc; i++)
        if (strcmp(argv[i], flag) == 0) {
            memmove(argv + i, argv + i + 1, (size_t)(*argc - i - 1) * sizeof(char *));
            --*argc;
            return true;
        }
    return false;
}

void cli_take_up(const struct config *cfg, unsigned uses) {
    char *why = NULL;
    bool known = (uses & ASK_STORE) != 0 && cfg->p.accounts_store[0] != '\0';
    int rc = ask_take_up(cfg->p.queue_directory, uses, known ? cfg->p.accounts_store : NULL, &why);
    if (rc == 1)
        puts("posthouse: the running daemon was reloaded");
    else if (rc < 0)
        fprintf(stderr, "posthouse: note: saved, but the running daemon was not told: %s\n", why);
    free(why);
}

bool cli_hop_wraps(const char *hop) {
    static const char *const ends[] = {":465"};
    return str_end_of(hop, ends, 1) >= 0;
}

/* Another change of a file takes less than this. */
#define LOCK_MS      5000
#define LOCK_LOOK_MS 20

int cli_lock_folder(const char *path) {
    static const struct timespec pause = {0, LOCK_LOOK_MS * 1000000L};
    char *folder = fs_folder(str_of(path));
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    for (int i = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
        bool busy = errno == EWOULDBLOCK;
        if (!busy || i == LOCK_MS / LOCK_LOOK_MS) {
            close(fd);
            return busy ? -EBUSY : -1;
        }
        nanosleep(&pause, NULL);
    }
    return fd;
}

/* -- a password from the terminal -- */

static volatile sig_atomic_t password_signal; /* that came while it was typed; 0: none */

static void password_on_signal(int number) {
    password_signal = number;
}

static const int password_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
#define N_PASSWORD_SIGNALS (sizeof password_signals / sizeof password_signals[0])
#define PASSWORD_ROOM      8192 /* a longer line leaves its beginning in freed memory */

struct password_line {
    char *text;
    size_t room;
    ssize_t n; /* negative: there is none */
};

static void password_line_read(struct password_line *line) {
    line->room = PASSWORD_ROOM;
    line->text = mem_alloc(line->room);
    line->n = getline(&line->text, &line->room, stdin);
}

/* A line that is typed without echo.  What ends or stops the program meanwhile does so when the
 * terminal is again as it was. */
static void password_type(struct password_line *line, const char *prompt,
                          const struct termios *was) {
    struct sigaction before[N_PASSWORD_SIGNALS], caught = {.sa_handler = password_on_signal};
    struct termios quiet = *was;
    password_signal = 0;
    for (size_t i = 0; i < N_PASSWORD_SIGNALS; i++)
        sigaction(password_signals[i], &caught, &before[i]); /* getline ends with it */
    quiet.c_lflag &= (tcflag_t)~ECHO;
    tcsetattr(0, TCSAFLUSH, &quiet);
    fprintf(stderr, "%s: ", prompt);
    password_line_read(line);
    tcsetattr(0, TCSAFLUSH, was);
    fputc('\n', stderr);
    for (size_t i = 0; i < N_PASSWORD_SIGNALS; i++)
        sigaction(password_signals[i], &before[i], NULL);
    if (password_signal == 0)
        return;
    raise(password_signal);
    line->n = -1;
}

char *cli_password(const char *prompt) {
    struct termios was;
    struct password_line line;
    if (isatty(0) && tcgetattr(0, &was) == 0)
        password_type(&line, prompt, &was);
    else
        password_line_read(&line);
    bool whole = line.n < 0 || memchr(line.text, '\0', (size_t)line.n) == NULL;
    if (!whole)
        fputs("posthouse: the password has a NUL byte\n", stderr);
    else if (line.n >= 0)
        line.text[strcspn(line.text, "\r\n")] = '\0';
    char *copy = line.n < 0 || !whole ? NULL : mem_strdup(line.text);
    mem_wipe(line.text, line.room);
    free(line.text);
    return copy;
}
