/*
 * cli/postqueue.c - postqueue(1) and mailq(1): list and flush the queue, as any user
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/listing.h"
#include "cli/orders.h"
#include "mail/address.h"

static int postqueue_fatal(const char *text, const char *arg) {
    if (arg == NULL)
        fprintf(stderr, "postqueue: fatal: %s\n", text);
    else
        fprintf(stderr, "postqueue: fatal: %s: \"%s\"\n", text, arg);
    return EX_UNAVAILABLE_;
}

static int postqueue_usage(void) {
    return postqueue_fatal("usage: postqueue -f | postqueue -i queueid | postqueue -j | postqueue "
                           "-p | postqueue -s site",
                           NULL);
}

/* req is stolen. */
static int flush_request(const struct config *cfg, json_t *req) {
    char *text = json_dumps(req, 0);
    json_decref(req);
    int rc = cli_control_status("postqueue", cfg, text, NULL, NULL, NULL);
    free(text);
    return rc;
}

/* A domain, or an address in brackets. */
static bool is_site(const char *site) {
    struct str s = str_of(site);
    if (s.n > 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
        return str_chr(s, ' ') < 0;
    return addr_valid_host(s);
}

static int postqueue_run(const struct config *cfg, char what, const char *arg) {
    switch (what) {
    case 'p':
        return listing_run("postqueue", cfg);
    case 'j':
        return listing_stream("postqueue", cfg, NULL);
    case 'f':
        return flush_request(cfg, json_pack("{s:s}", "cmd", "queue-flush"));
    case 'i':
        return idlist_valid(arg) && strcmp(arg, "ALL") != 0 /* which the daemon takes for all */
                   ? flush_request(cfg, json_pack("{s:s, s:s}", "cmd", "queue-retry", "id", arg))
                   : postqueue_fatal("Cannot flush queue ID - invalid name", arg);
    default:
        return is_site(arg)
                   ? flush_request(cfg, json_pack("{s:s, s:s}", "cmd", "queue-retry", "site", arg))
                   : postqueue_fatal("Cannot flush mail queue - invalid destination", arg);
    }
}

int cli_postqueue(const char *dir, int argc, char **argv) {
    const char *arg = NULL;
    char what = 0;
    int opt;
    optind = 1;
    while ((opt = getopt(argc, argv, "+c:fi:jps:v")) != -1) {
        if (opt == 'c') {
            dir = optarg;
        } else if (opt != 'v') {
            if (opt == '?' || what != 0)
                return postqueue_usage();
            what = (char)opt;
            arg = optarg;
        }
    }
    if (what == 0 || optind < argc)
        return postqueue_usage();
    struct config *cfg = cli_config_with_mistakes("postqueue", dir);
    return cfg == NULL ? EX_UNAVAILABLE_ : postqueue_run(cfg, what, arg);
}

int cli_mailq(const char *dir, int argc, char **argv) {
    int opt;
    optind = 1;
    while ((opt = getopt(argc, argv, CLI_SENDMAIL_LETTERS)) != -1) {
        if (opt == '?')
            return EX_USAGE_;
        if (opt == 'C' || opt == 'c')
            dir = cli_dir_or_file(optarg);
    }
    if (optind < argc) {
        fputs("mailq: fatal: display queue mode requires no recipient\n", stderr);
        return EX_USAGE_;
    }
    struct config *cfg = cli_config_with_mistakes("mailq", dir);
    return cfg == NULL ? EX_UNAVAILABLE_ : listing_run("mailq", cfg);
}
