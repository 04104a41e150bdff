/*
 * cli/postsuper.c - postsuper(1): delete, hold, release, expire and requeue messages
 *
 * Everything is asked of the daemon, which owns the queue.  What -s, -S and -p do the spool does by
 * itself when the daemon starts.
 */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/orders.h"

/* What an option asks for: at most two orders.  In the order in which they are carried out. */
static const struct {
    char opt;
    const char *cmd[2];
    size_t told[2]; /* index into told[] of each */
} acts[] = {
    {'r', {"queue-requeue", NULL}, {0, 0}}, {'d', {"queue-delete", NULL}, {1, 0}},
    {'h', {"queue-hold", NULL}, {3, 0}},    {'H', {"queue-release", NULL}, {4, 0}},
    {'e', {"queue-expire", NULL}, {2, 0}},  {'f', {"queue-expire", "queue-release"}, {2, 4}}};
#define N_ACTS (sizeof acts / sizeof acts[0])

/* What is said of one message and of their number, in the order in which numbers are said. */
static const struct {
    const char *one, *all;
} told[] = {{"requeued", "Requeued"},
            {"removed", "Deleted"},
            {"expired", "Force-expired"},
            {"placed on hold", "Placed on hold"},
            {"released from hold", "Released from hold"}};
#define N_TOLD (sizeof told / sizeof told[0])

struct postsuper {
    const struct config *cfg;
    struct idlist ids[N_ACTS];
    bool asked[N_ACTS], all[N_ACTS];
    json_t *filter; /* the queues; NULL: all */
    bool no_queues; /* those that were named have nothing that Posthouse keeps */
    struct order_result res[N_TOLD];
    bool counts[N_TOLD]; /* to be said */
};

static int postsuper_usage(void) {
    fputs("postsuper: fatal: usage: postsuper [-c config_dir] [-d queue_id (delete)] [-e queue_id "
          "(expire)] [-f queue_id (expire and/or un-hold)] [-h queue_id (hold)] [-H queue_id "
          "(un-hold)] [-p (purge temporary files)] [-r queue_id (requeue)] [-s (structure fix)] "
          "[-S (redundant structure fix)][-v (verbose)] [queue...]\n",
          stderr);
    return 1;
}

static void say_one(void *arg, const char *qid) {
    fprintf(stderr, "postsuper: %s: %s\n", qid, (const char *)arg);
}

/* The orders of one option. */
static int act_run(struct postsuper *p, size_t i) {
    int rc = EX_OK_;
    for (size_t k = 0; k < 2 && acts[i].cmd[k] != NULL && rc == EX_OK_; k++) {
        size_t t = acts[i].told[k];
        p->counts[t] = true;
        if (!p->no_queues)
            rc = order_give("postsuper", p->cfg, acts[i].cmd[k], p->all[i] ? NULL : &p->ids[i],
                            p->filter, say_one, (void *)(uintptr_t)told[t].one, &p->res[t]);
    }
    return rc;
}

/* Queues by Postfix's names.  False: one is none. */
static bool queues_take(struct postsuper *p, int n, char **names) {
    static const char *const ours[] = {"active", "deferred", "hold"};
    static const char *const empty[] = {"incoming", "maildrop", "corrupt", "saved",
                                        "bounce",   "defer",    "trace",   "flush"};
    json_t *queues = json_array();
    for (int i = 0; i < n; i++) {
        bool known = false;
        for (size_t k = 0; k < sizeof ours / sizeof ours[0]; k++)
            if (strcmp(names[i], ours[k]) == 0) {
                json_array_append_new(queues, json_string(ours[k]));
                known = true;
            }
        for (size_t k = 0; k < sizeof empty / sizeof empty[0]; k++)
            known = known || strcmp(names[i], empty[k]) == 0;
        if (!known) {
            fprintf(stderr, "postsuper: fatal: invalid directory name: %s\n", names[i]);
            json_decref(queues);
            return false;
        }
    }
    p->no_queues = n > 0 && json_array_size(queues) == 0;
    p->filter = json_array_size(queues) > 0 ? json_pack("{s:O}", "queues", queues) : NULL;
    json_decref(queues);
    return true;
}

/* Root, or who runs a daemon that is not root's. */
static bool is_master(const struct config *cfg) {
    struct stat st;
    return geteuid() == 0 || (stat(cfg->p.queue_directory, &st) == 0 && st.st_uid == geteuid());
}

static void option_id(struct postsuper *p, int opt, const char *id) {
    for (size_t i = 0; i < N_ACTS; i++) {
        if (acts[i].opt != opt)
            continue;
        p->asked[i] = true;
        if (strcmp(id, "ALL") == 0)
            p->all[i] = true;
        else
            idlist_add(&p->ids[i], "postsuper", id);
        if (p->all[i] && p->ids[i].n > 0)
            fprintf(stderr,
                    "postsuper: warning: option \"-%c ALL\" will ignore other command line queue "
                    "IDs\n",
                    opt);
    }
}

static int postsuper_run(struct postsuper *p) {
    int rc = EX_OK_;
    for (size_t i = 0; i < N_ACTS && rc == EX_OK_; i++)
        if (p->asked[i])
            rc = act_run(p, i);
    for (size_t t = 0; t < N_TOLD && rc == EX_OK_; t++)
        if (p->counts[t])
            fprintf(stderr, "postsuper: %s: %ld message%s\n", told[t].all, p->res[t].changed,
                    p->res[t].changed == 1 ? "" : "s");
    for (size_t i = 0; i < N_ACTS; i++)
        idlist_free(&p->ids[i]);
    json_decref(p->filter);
    return rc == EX_OK_ ? 0 : 1;
}

int cli_postsuper(const char *dir, int argc, char **argv) {
    static const char letters[] = "+c:d:e:f:h:H:pr:sSv";
    struct postsuper p = {0};
    int opt;
    optind = 1;
    while ((opt = getopt(argc, argv, letters)) != -1)
        if (opt == '?')
            return postsuper_usage();
        else if (opt == 'c')
            dir = optarg;
    struct config *cfg = cli_config("postsuper", dir);
    if (cfg == NULL)
        return 1;
    if (!is_master(cfg)) {
        fputs("postsuper: fatal: use of this command is reserved for the superuser\n", stderr);
        return 1;
    }
    p.cfg = cfg;
    if (!queues_take(&p, argc - optind, argv + optind))
        return 1;
    optind = 1;
    while ((opt = getopt(argc, argv, letters)) != -1)
        option_id(&p, opt, optarg);
    return postsuper_run(&p);
}
