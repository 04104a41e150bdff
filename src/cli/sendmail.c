/*
 * cli/sendmail.c - sendmail(1) as Postfix has it: options, recipients and header of a message
 *
 * What a program or a person wrote is read here; submission.c hands it to the daemon.  An argument
 * with a control character is refused: arguments become SMTP commands.
 */
#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/listing.h"
#include "cli/submission.h"
#include "mail/address.h"
#include "mail/addrlist.h"
#include "mail/header.h"
#include "mail/words.h"
#include "util/mem.h"

#define EX_IOERR_ 74
#define ENVID_MAX 100

struct sendmail {
    struct submission s;
    const char *mode;    /* of -b: "m", "p", "s", … */
    const char *name;    /* -F; NULL: not given */
    const char *aliases; /* of -o: "A" and a database; NULL: not given */
    const char *queue;   /* what stands behind -q; NULL: no -q */
    bool from_header;    /* -t */
    bool dot_ends;       /* not -i */
    bool resent;         /* there is a Resent- field */
    bool has_from, has_resent_from;
    struct sbuf notify; /* of -N, as NOTIFY has it */
};

/* -- the header -- */

/* The line and those that continue it. */
static struct str field_take(struct str *rest) {
    size_t end = 0;
    do {
        const char *nl = memchr(rest->p + end, '\n', rest->n - end);
        end = nl == NULL ? rest->n : (size_t)(nl - rest->p) + 1;
    } while (end < rest->n && (rest->p[end] == ' ' || rest->p[end] == '\t'));
    struct str field = str_make(rest->p, end);
    *rest = str_from(*rest, end);
    return field;
}

static void recipient_take(void *arg, const struct addrlist_item *item) {
    if (item->addr.n > 0)
        submission_add(arg, item->addr);
}

/* Does the field name recipients of this message? */
static bool names_recipients(const struct sendmail *m, struct str name) {
    static const char *const fields[][3] = {{"to", "cc", "bcc"},
                                            {"resent-to", "resent-cc", "resent-bcc"}};
    for (size_t i = 0; i < 3; i++)
        if (str_ieq_c(name, fields[m->resent][i]))
            return true;
    return false;
}

/* Calls fn for each field of the header section; returns what follows it. */
static struct str header_each(struct sendmail *m, struct str content,
                              void (*fn)(struct sendmail *m, struct str name, struct str field)) {
    while (content.n > 0 && header_field_name(content).n > 0) {
        struct str name = header_field_name(content);
        fn(m, name, field_take(&content));
    }
    return content;
}

static void field_note(struct sendmail *m, struct str name, struct str field) {
    (void)field;
    m->resent = m->resent || str_istarts(name, "resent-");
    m->has_from = m->has_from || str_ieq_c(name, "from");
    m->has_resent_from = m->has_resent_from || str_ieq_c(name, "resent-from");
}

/* -t */
static void field_recipients(struct sendmail *m, struct str name, struct str field) {
    size_t colon = (size_t)str_chr(field, ':');
    if (names_recipients(m, name))
        addrlist_each(str_from(field, colon + 1), recipient_take, &m->s);
}

/* -F, else NAME, else the user's entry in passwd(5), of which "&" is the user's name. */
static void full_name(const struct sendmail *m, struct sbuf *out) {
    const struct passwd *pw = getpwuid(getuid());
    const char *env = getenv("NAME");
    if (m->name != NULL || env != NULL) {
        sbuf_add_c(out, m->name != NULL ? m->name : env);
        return;
    }
    for (const char *p = pw == NULL ? "" : pw->pw_gecos; *p != '\0' && *p != ','; p++)
        if (*p == '&')
            sbuf_printf(out, "%c%s", *pw->pw_name & ~0x20, pw->pw_name + 1);
        else
            sbuf_add_ch(out, *p);
}

static void add_sender(const struct sendmail *m, struct sbuf *out) {
    addr_external(out, str_of(m->s.from));
    if (strchr(m->s.from, '@') == NULL)
        sbuf_printf(out, "@%s", m->s.cfg->p.myorigin);
}

/* "From: Joe User <joe@example.com>"; "From: joe@example.com" without a full name. */
static void add_from(const struct sendmail *m, const char *field, struct sbuf *out) {
    struct sbuf name = {0};
    full_name(m, &name);
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] < ' ' || name.p[i] == 0x7f)
            name.p[i] = ' ';
    sbuf_printf(out, "%s: ", field);
    if (name.n == 0) {
        add_sender(m, out);
    } else {
        words_add_name(out, sbuf_str(&name), str_of(m->s.cfg->p.full_name_encoding_charset),
                       "\n\t");
        sbuf_add_c(out, " <");
        add_sender(m, out);
        sbuf_add_ch(out, '>');
    }
    sbuf_add_ch(out, '\n');
    sbuf_free(&name);
}

/* The field that says who sends the message, unless it is there or comes from elsewhere (-G).
 * The daemon adds the others that are missing, and this one for the null sender. */
static void add_author(const struct sendmail *m, struct sbuf *out) {
    if (m->s.is_remote || m->s.from[0] == '\0')
        return;
    if (m->resent && !m->has_resent_from)
        add_from(m, "Resent-From", out);
    else if (!m->resent && !m->has_from)
        add_from(m, "From", out);
}

/* The field that is missing, then those that are there, with -t without those that name hidden
 * recipients. */
static void header_rewrite(struct sendmail *m) {
    struct str rest = sbuf_str(&m->s.content);
    struct sbuf out = {0};
    add_author(m, &out);
    if (rest.n > 0 && (rest.p[0] == ' ' || rest.p[0] == '\t') && out.n > 0)
        sbuf_add_ch(&out, '\n'); /* the body begins there: it continues no field of ours */
    while (rest.n > 0 && header_field_name(rest).n > 0) {
        struct str name = header_field_name(rest), field = field_take(&rest);
        if (!m->from_header || (!str_ieq_c(name, "bcc") && !str_ieq_c(name, "resent-bcc")))
            sbuf_add_str(&out, field);
    }
    sbuf_add_str(&out, rest);
    sbuf_free(&m->s.content);
    m->s.content = out;
}

/* Without the lines that mbox files have before a message. */
static struct str without_mbox_lines(struct str in) {
    for (;;) {
        const char *nl = header_is_mbox_line(in) ? memchr(in.p, '\n', in.n) : NULL;
        if (nl == NULL)
            return in;
        in = str_from(in, (size_t)(nl - in.p) + 1);
    }
}

/* Reads the message; with dot_ends a line with a dot alone ends it.  False: it cannot be read. */
static bool content_read(struct sendmail *m) {
    struct sbuf in = {0};
    ssize_t n;
    while ((n = read(0, sbuf_room(&in, 65536), 65536)) > 0 || (n < 0 && errno == EINTR))
        sbuf_advance(&in, n > 0 ? (size_t)n : 0);
    struct str rest = without_mbox_lines(sbuf_str(&in));
    while (rest.n > 0) {
        const char *nl = memchr(rest.p, '\n', rest.n);
        size_t end = nl == NULL ? rest.n : (size_t)(nl - rest.p) + 1;
        struct str line = str_make(rest.p, end);
        if (m->dot_ends &&
            (str_eq_c(line, ".\n") || str_eq_c(line, ".\r\n") || str_eq_c(line, ".")))
            break;
        sbuf_add(&m->s.content, rest.p, end);
        rest = str_from(rest, end);
    }
    sbuf_free(&in);
    if (n < 0)
        fprintf(stderr, "sendmail: fatal: cannot read the message: %s\n", strerror(errno));
    return n >= 0;
}

/* -- options -- */

struct sender_option {
    struct sendmail *m;
    size_t n; /* addresses in it */
};

/* The first one counts. */
static void sender_take(void *arg, const struct addrlist_item *item) {
    struct sender_option *option = arg;
    struct sendmail *m = option->m;
    struct str addr = item->addr;
    if (option->n++ > 0)
        return;
    if (addr.n > 1 && str_chr(addr, '@') > 0 && addr.p[addr.n - 1] == '.')
        addr.n--; /* as at the daemon's door */
    free(m->s.from);
    m->s.from = str_dup(addr);
}

/* -f: no address is the null sender. */
static void sender_option(struct sendmail *m, const char *arg) {
    struct sender_option option = {.m = m};
    free(m->s.from);
    m->s.from = mem_strdup("");
    addrlist_each(str_of(arg), sender_take, &option);
    if (option.n > 1)
        fprintf(stderr, "sendmail: warning: -f option specified malformed sender: %s\n", arg);
}

/* A value that asks for no report that there is: the message goes without it. */
static void value_ignored(char option) {
    fprintf(stderr, "sendmail: warning: bad -%c option value -- ignored\n", option);
}

/* -N: a list of never, or of success, failure and delay.  Writes it into out as NOTIFY has it;
 * NULL: it is none. */
static const char *notify_value(const char *arg, struct sbuf *out) {
    static const char *const values[] = {"NEVER", "SUCCESS", "FAILURE", "DELAY"};
    struct str rest = str_of(arg), w;
    unsigned seen = 0; /* a bit for each of values */
    sbuf_reset(out);
    while (str_split(&rest, ", \t", &w)) {
        size_t i = 0;
        while (i < 4 && !str_ieq_c(w, values[i]))
            i++;
        if (i == 4)
            return NULL;
        seen |= 1U << i;
    }
    for (size_t i = 0; i < 4; i++)
        if ((seen & 1U << i) != 0)
            sbuf_printf(out, "%s%s", out->n > 0 ? "," : "", values[i]);
    return seen == 0 || (seen > 1 && (seen & 1) != 0) ? NULL : out->p;
}

/* -V: what ENVID may hold (RFC 3461 section 4.4). */
static const char *envid_value(const char *arg) {
    size_t n = 0;
    while (arg[n] >= ' ' && arg[n] < 0x7f)
        n++;
    return n == 0 || n > ENVID_MAX || arg[n] != '\0' ? NULL : arg;
}

static int usage_error(const char *what, const char *arg) {
    fprintf(stderr, "sendmail: fatal: %s: %s\n", what, arg);
    return EX_USAGE_;
}

/* What is to be reported to the sender. */
static void report_option(struct sendmail *m, int opt) {
    const char *value = NULL;
    if (opt == 'V')
        value = m->s.envid = envid_value(optarg);
    else if (opt == 'N')
        value = m->s.notify = notify_value(optarg, &m->notify);
    else
        value = m->s.ret = strcasecmp(optarg, "full") == 0   ? "FULL"
                           : strcasecmp(optarg, "hdrs") == 0 ? "HDRS"
                                                             : NULL;
    if (value == NULL)
        value_ignored((char)opt);
}

static int option_take(struct sendmail *m, int opt) {
    switch (opt) {
    case 'f':
    case 'r':
        sender_option(m, optarg);
        break;
    case 'F':
        m->name = optarg;
        break;
    case 'G':
        m->s.is_remote = true;
        break;
    case 't':
        m->from_header = true;
        break;
    case 'i':
        m->dot_ends = false;
        break;
    case 'o':
        m->dot_ends = m->dot_ends && optarg[0] != 'i';
        m->aliases = optarg[0] == 'A' ? optarg : m->aliases;
        break;
    case 'b':
        m->mode = optarg;
        break;
    case 'I':
        m->mode = "i";
        break;
    case 'q':
        m->queue = optarg == NULL ? "" : optarg;
        break;
    case 'V':
    case 'N':
    case 'R':
        report_option(m, opt);
        break;
    default:
        break;
    }
    return opt == '?' ? EX_USAGE_ : 0;
}

/* Arguments become SMTP commands and header fields. */
static int arguments_check(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        for (const char *p = argv[i]; *p != '\0'; p++)
            if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f) {
                fprintf(stderr,
                        "sendmail: fatal: argument %d has a line break or another control "
                        "character: nothing is sent\n",
                        i);
                return EX_DATAERR_;
            }
    return 0;
}

/* -q: all of the queue; -qIID: one message; -qRSITE: the mail for a domain; -q30m: that is the
 * daemon's own matter. */
static int queue_run(const struct config *cfg, const char *what) {
    bool one = what[0] == 'I' || what[0] == 'R';
    const char *option = what[0] == 'I' ? "-i" : what[0] == 'R' ? "-s" : "-f";
    char *args[] = {(char *)(uintptr_t) "postqueue", (char *)(uintptr_t)option,
                    one ? (char *)(uintptr_t)what + 1 : NULL, NULL};
    if (what[0] >= '0' && what[0] <= '9')
        return EX_OK_;
    if (one ? what[1] == '\0' : what[0] != '\0')
        return usage_error("specify -q, -qIID (a message) or -qRSITE (the mail for a domain), not",
                           what);
    return cli_postqueue(cfg->dir, one ? 3 : 2, args);
}

static int no_recipients(const struct sendmail *m) {
    fputs(m->from_header
              ? "sendmail: fatal: No recipient addresses found in message header\n"
              : "sendmail: fatal: Recipient addresses must be specified on the command line "
                "or via the -t option\n",
          stderr);
    return EX_USAGE_;
}

static int message_send(struct sendmail *m) {
    if (!content_read(m))
        return EX_IOERR_;
    header_each(m, sbuf_str(&m->s.content), field_note);
    if (m->from_header)
        header_each(m, sbuf_str(&m->s.content), field_recipients);
    header_rewrite(m);
    return m->s.n_rcpts == 0 ? no_recipients(m) : submission_send(&m->s);
}

/* A message would come to nothing that is given to a call which sends none. */
static bool sends_nothing(const struct sendmail *m) {
    return m->queue != NULL || (m->mode[0] != 'm' && m->mode[0] != 'v');
}

static int mode_run(struct sendmail *m) {
    if (sends_nothing(m) && (m->s.n_rcpts > 0 || m->from_header))
        return usage_error("no mail is sent by this call, and it has recipients",
                           m->s.n_rcpts > 0 ? m->s.rcpts[0].addr : "-t");
    switch (m->mode[0]) {
    case 'p':
        return listing_run("sendmail", m->s.cfg);
    case 's':
        return submission_dialogue(m->s.cfg);
    case 'v':
        return m->s.n_rcpts == 0 ? no_recipients(m) : submission_verify(&m->s);
    case 'i':
        return cli_newaliases(m->s.cfg->dir, m->aliases == NULL ? 1 : 3,
                              (char *[]){(char *)(uintptr_t) "newaliases", (char *)(uintptr_t) "-o",
                                         (char *)(uintptr_t)m->aliases, NULL});
    case 'm':
        return m->queue != NULL ? queue_run(m->s.cfg, m->queue) : message_send(m);
    default:
        return usage_error("-b: not a mode that Posthouse has", m->mode);
    }
}

static char *own_name(void) {
    const struct passwd *pw = getpwuid(getuid());
    return mem_strdup(pw == NULL ? "unknown" : pw->pw_name);
}

int cli_sendmail(const char *dir, int argc, char **argv) {
    struct sendmail m = {.mode = "m", .dot_ends = true, .s = {.from = own_name()}};
    int opt, rc = arguments_check(argc, argv);
    optind = 1;
    while (rc == 0 &&
           (opt = getopt(argc, argv, "+A:B:b:C:ce:F:f:Gh:IiL:mN:no:O:p:q::R:r:tUV:vX:x")) != -1) {
        if (opt == 'C')
            dir = cli_dir_or_file(optarg);
        rc = option_take(&m, opt);
    }
    struct config *cfg = rc == 0 ? cli_config_with_mistakes("sendmail", dir) : NULL;
    signal(SIGPIPE, SIG_IGN);
    if (rc == 0 && cfg == NULL)
        rc = EX_TEMPFAIL_;
    m.s.cfg = cfg;
    for (int i = optind; rc == 0 && i < argc; i++)
        addrlist_each(str_of(argv[i]), recipient_take, &m.s);
    if (rc == 0)
        rc = mode_run(&m);
    submission_free(&m.s);
    sbuf_free(&m.notify);
    return rc;
}
