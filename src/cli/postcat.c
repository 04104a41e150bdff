/*
 * cli/postcat.c - postcat(1): envelope and content of queued messages
 */
#include <stdio.h>
#include <unistd.h>

#include "cli/message.h"
#include "cli/orders.h"

static int postcat_fatal(const char *text) {
    fprintf(stderr, "postcat: fatal: %s\n", text);
    return 1;
}

int cli_postcat(const char *dir, int argc, char **argv) {
    unsigned what = 0, types = 0;
    bool queue = false;
    int opt, rc = 0;
    optind = 1;
    while ((opt = getopt(argc, argv, "+bc:dehoqrs:v")) != -1) {
        if (opt == '?')
            return postcat_fatal(
                "usage: postcat [-b (body text)] [-c config_dir] [-e (envelope "
                "records)] [-h (header text)] [-q (access queue)] [-v] [file(s)...]");
        if (opt == 'd' || opt == 'o' || opt == 'r' || opt == 's')
            return postcat_fatal("options -d, -o, -r and -s are about Postfix's queue files, which "
                                 "Posthouse has not");
        what |= opt == 'b' ? SHOW_BODY : opt == 'e' ? SHOW_ENVELOPE : opt == 'h' ? SHOW_HEADER : 0U;
        types |= opt == 'v' ? SHOW_TYPES : 0U;
        queue = queue || opt == 'q';
        dir = opt == 'c' ? optarg : dir;
    }
    struct config *cfg = cli_config("postcat", dir);
    if (cfg == NULL)
        return 1;
    if (!queue)
        return postcat_fatal("Posthouse has no queue files: messages are shown by their queue ID, "
                             "postcat -q ID");
    what = what == 0 ? SHOW_ENVELOPE | SHOW_HEADER | SHOW_BODY : what;
    for (int i = optind; i < argc && rc == 0; i++) {
        if (!idlist_valid(argv[i]))
            fprintf(stderr, "postcat: fatal: bad mail queue ID: %s\n", argv[i]);
        rc = idlist_valid(argv[i]) ? message_show("postcat", cfg, argv[i], what | types) : 1;
    }
    return rc;
}
