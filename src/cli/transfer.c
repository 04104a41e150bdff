/*
 * cli/transfer.c - posthouse import and posthouse export: Postfix's queue, and back
 *
 * One thread.  Both mail systems are stopped, and the locks of both are held meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cleaner.h"
#include "cli/cli.h"
#include "cli/front.h"
#include "transfer/transfer.h"
#include "util/mem.h"

#define HASHED_DEFAULT "deferred, defer"

/* What a run needs to know; all owned. */
struct places {
    struct config *cfg;
    struct config *front; /* Postfix's configuration; NULL: none can be read */
    char *queue;          /* Postfix's queue_directory */
    char *hashed;
    unsigned depth;
};

static int transfer_usage(const char *name) {
    if (strcmp(name, "import") == 0)
        fputs("usage: posthouse import [--keep] [DIR]\n"
              "Takes over the mail of a Postfix that is stopped; the daemon is stopped, too.\n"
              "DIR: Postfix's queue_directory, if its main.cf does not say it.\n"
              "--keep: its files are not removed, but kept in DIR/" PFQUEUE_KEPT ".\n",
              stderr);
    else
        fputs("usage: posthouse export [--without-records] [DIR]\n"
              "Gives Postfix, which is stopped, the mail that waits here; the daemon is stopped, "
              "too.\n"
              "DIR: Postfix's queue_directory, if its main.cf does not say it.\n"
              "--without-records: also where there are relay records, which Postfix does not "
              "know.\n",
              stderr);
    return EX_USAGE_;
}

/* A parameter of Postfix's; the caller frees. */
static char *places_value(const struct places *p, const char *name, const char *otherwise) {
    char *value = p->front == NULL ? NULL : config_value(p->front, name, NULL);
    if (value != NULL && value[0] != '\0')
        return value;
    free(value);
    return mem_strdup(otherwise);
}

/* front: Postfix's configuration directory; NULL: as main.cf says it.  queue: its queue_directory;
 * NULL: as its main.cf says it. */
static bool places_find(struct places *p, const char *dir, const char *front, const char *queue) {
    uint64_t depth = 1;
    p->cfg = cli_config("posthouse", dir);
    if (p->cfg == NULL)
        return false;
    const char *from = front == NULL ? p->cfg->p.front_config_directory : front;
    if (access(from, R_OK | X_OK) == 0)
        p->front = config_build(cfg_source_new(from));
    if (queue != NULL)
        p->queue = mem_strdup(queue);
    else if (front == NULL && p->cfg->foreign_queue != NULL)
        p->queue = mem_strdup(p->cfg->foreign_queue);
    else
        p->queue = front_queue(p->front);
    p->hashed = places_value(p, "hash_queue_names", HASHED_DEFAULT);
    char *text = places_value(p, "hash_queue_depth", "1");
    p->depth = str_u64(str_of(text), &depth) ? (unsigned)depth : 1;
    free(text);
    return true;
}

static void places_free(struct places *p) {
    config_unref(p->cfg);
    config_unref(p->front);
    free(p->queue);
    free(p->hashed);
}

/* Not open yet. */
static struct pfqueue places_theirs(const struct places *p) {
    return (struct pfqueue){.dir = p->queue, .hashed = p->hashed, .depth = p->depth};
}

static void transfer_left_one(void *arg, const char *name, const char *why) {
    (void)arg;
    fprintf(stderr, "posthouse: %s stays where it is: %s\n", name, why);
}

static int transfer_fatal(const char *what, int rc, const char *running) {
    if (rc == -EAGAIN)
        fprintf(stderr, "posthouse: fatal: %s\n", running);
    else
        fprintf(stderr, "posthouse: fatal: %s: %s\n", what, strerror(-rc));
    return EX_UNAVAILABLE_;
}

/* Both queues are open. */
static int transfer_run(struct transfer *t, bool in) {
    char *why = NULL;
    t->left_one = transfer_left_one;
    int rc = in ? transfer_import(t, &why) : transfer_export(t, &why);
    printf("posthouse: %zu message%s %s, %zu left", t->moved, t->moved == 1 ? "" : "s",
           in ? "taken over" : "given to Postfix", t->left);
    if (t->known > 0)
        printf("; %zu of an earlier run", t->known);
    putchar('\n');
    if (rc == -EBUSY && t->moved == 0)
        fprintf(stderr,
                "posthouse: fatal: %s/" SPOOL_MOVING " names another queue, whose move has not "
                "ended: name that queue\n",
                t->ours->dir);
    else if (rc < 0 && !t->begun)
        fprintf(stderr, "posthouse: fatal: %s: nothing was moved\n", why);
    else if (rc < 0)
        fprintf(stderr,
                "posthouse: fatal: %s: what was moved is safe; give the command again to go on, "
                "or posthouse %s to go back\n",
                why, in ? "export" : "import");
    free(why);
    return rc < 0 ? EX_TEMPFAIL_ : t->left > 0 ? 1 : EX_OK_;
}

/* What an earlier run has left is removed first, and what this one leaves only if sweep says so. */
static int transfer_between(const struct places *p, bool in, bool keep, bool sweep) {
    struct pfqueue theirs = places_theirs(p);
    struct ours ours;
    char *why = NULL;
    int rc = pfqueue_open(&theirs, &why), status;
    if (rc < 0) {
        status = transfer_fatal(why, rc, "Postfix is running: stop it first (postfix stop)");
        free(why);
        pfqueue_close(&theirs);
        return status;
    }
    transfer_sweep(&theirs);
    rc = ours_open(&ours, p->cfg, &why);
    if (rc < 0) {
        status = transfer_fatal(why, rc, "Posthouse is running: stop it first");
    } else {
        struct transfer t = {.cfg = p->cfg,
                             .theirs = &theirs,
                             .ours = &ours,
                             .keep = keep,
                             .clean = cleaner_ask,
                             .clean_arg = p->cfg};
        status = transfer_run(&t, in);
    }
    free(why);
    ours_close(&ours);
    if (sweep)
        transfer_sweep(&theirs);
    pfqueue_close(&theirs);
    return status;
}

static int transfer_places(const char *dir, const char *front, const char *queue, bool in,
                           bool keep, bool sweep) {
    struct places p = {0};
    int status = EX_UNAVAILABLE_;
    if (places_find(&p, dir, front, queue)) {
        if (in && !cleaner_start(p.cfg))
            perror("posthouse: warning: the lookup process");
        status = transfer_between(&p, in, keep, sweep);
        cleaner_stop();
    }
    places_free(&p);
    return status;
}

int cli_transfer_fits(const char *dir, const char *front, bool *has_mail) {
    struct places p = {0};
    struct ours ours;
    char *why = NULL;
    if (!places_find(&p, dir, front, NULL))
        return EX_UNAVAILABLE_;
    struct pfqueue theirs = places_theirs(&p);
    struct transfer t = {.cfg = p.cfg, .theirs = &theirs, .ours = &ours};
    int rc = ours_open(&ours, p.cfg, &why);
    if (rc < 0)
        transfer_fatal(why, rc, "Posthouse is running: stop it first");
    else if ((rc = transfer_import_room(&t, &why)) < 0)
        fprintf(stderr, "posthouse: fatal: %s\n", why == NULL ? strerror(-rc) : why);
    *has_mail = ours.n > 0;
    free(why);
    ours_close(&ours);
    places_free(&p);
    return rc < 0 ? EX_UNAVAILABLE_ : EX_OK_;
}

int cli_transfer(const char *dir, const char *front, bool in) {
    return transfer_places(dir, front, NULL, in, false, false);
}

void cli_transfer_sweep(const char *dir, const char *front) {
    struct places p = {0};
    char *why = NULL;
    if (places_find(&p, dir, front, NULL)) {
        struct pfqueue theirs = places_theirs(&p);
        if (pfqueue_open(&theirs, &why) == 0)
            transfer_sweep(&theirs);
        pfqueue_close(&theirs);
    }
    free(why);
    places_free(&p);
}

/* Postfix sends what it is given. */
static bool export_may(const char *dir) {
    struct config *cfg = cli_config("posthouse", dir);
    bool may = cfg != NULL && cli_records_may_stay(cfg, "posthouse export");
    config_unref(cfg);
    return may;
}

static int transfer_command(const char *dir, int argc, char **argv) {
    bool in = strcmp(argv[0], "import") == 0;
    bool keep = in && cli_take_flag(&argc, argv, "--keep");
    bool without_records = !in && cli_take_flag(&argc, argv, "--without-records");
    if (argc > 2 || (argc == 2 && argv[1][0] == '-'))
        return transfer_usage(argv[0]);
    if (!in && !without_records && !export_may(dir))
        return EX_UNAVAILABLE_;
    return transfer_places(dir, NULL, argc == 2 ? argv[1] : NULL, in, keep, true);
}

int cli_import(const char *dir, int argc, char **argv) {
    return transfer_command(dir, argc, argv);
}

int cli_export(const char *dir, int argc, char **argv) {
    return transfer_command(dir, argc, argv);
}
