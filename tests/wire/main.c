/*
 * The wire simulator: the whole relay on a simulated wire, clock and disk, with a fault at any
 * call.
 *
 *   sim_wire [-x] [-n COUNT] [-t SECONDS] [-s SEED] [-j PROCESSES] [-k]
 *   sim_wire -x -s SCRIPT [-e N]
 *   sim_wire -s SEED [-f CALL:KIND] [-v]
 *
 * With -x: every fixed script (or one), once without a fault, to count the calls, then once for
 * each call and each fault that fits it (with -e at every Nth call only; of look-ups, which are
 * few, at every Nth's eighth).  Then COUNT random scenarios from SEED on, or as many as fit in
 * SECONDS; every third of them has a fault at a call by chance.  A scenario that fails, crashes or
 * hangs ends the run; what is printed repeats it.  -v prints all that happens in one scenario.
 */
#include <execinfo.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "world.h"

#define PROCESSES_MAX 64
#define CALLS_MAX     100000
#define SCRIPTS_MAX   512
/* A scenario that takes longer hangs. */
#define HANG_S 120
/* A process that has become larger than this (with sanitizers nothing is given back) is replaced.
 */
#define PROCESS_KB (1500 * 1024)
/* Seeds of random scenarios begin above the fixed scripts'. */
#define RANDOM_FIRST 1000

enum { EXIT_FAILED = 1, EXIT_REPLACE = 7 };

/* What one process works on, seen by its parent. */
struct place {
    struct run run;
    bool busy;
};

/* Shared by all processes of a run. */
struct board {
    _Atomic uint64_t script; /* the next one for the exhaustive part */
    _Atomic uint64_t done_scripts;
    _Atomic uint64_t next; /* random scenarios begun */
    _Atomic uint64_t exhaustive, random;
    _Atomic uint64_t steps, failed;
    _Atomic bool stop;
    _Atomic size_t peak_bytes;
    struct place places[PROCESSES_MAX];
};

struct options {
    uint64_t seed;
    uint64_t count; /* of random scenarios */
    int64_t until_ms;
    uint64_t scripts_end; /* of the exhaustive part: the first script after it */
    unsigned processes;
    unsigned every; /* of the calls, in the exhaustive part */
    bool exhaustive;
    bool keep_on;
};

static struct board *board WIRE_KEEP;
static uint8_t kinds[CALLS_MAX] WIRE_KEEP;

/* ---- OpenSSL's memory is the process's ---- */

static void *process_malloc(size_t n, const char *file, int line) {
    enum heap_side side = heap_switch(HEAP_PROCESS);
    void *p = malloc(n);
    (void)file;
    (void)line;
    heap_switch(side);
    return p;
}

static void *process_realloc(void *p, size_t n, const char *file, int line) {
    enum heap_side side = heap_switch(HEAP_PROCESS);
    void *q = realloc(p, n);
    (void)file;
    (void)line;
    heap_switch(side);
    return q;
}

static void process_free(void *p, const char *file, int line) {
    (void)file;
    (void)line;
    free(p);
}

/* ---- running ---- */

static int64_t real_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void run_print(const struct run *r, const char *what) {
    printf("FAILED: %s: sim_wire -s %llu", what, (unsigned long long)r->seed);
    if (r->fault != FAULT_NOTHING)
        printf(" -f %u:%s", r->fault_at, fault_name(r->fault));
    printf(" -v (%s, step %llu)\n", script_name(r->seed), (unsigned long long)r->steps);
    fflush(stdout);
}

/* Runs what stands in the place; ends the process if it fails. */
static void run_one(const struct options *o, struct place *p, _Atomic uint64_t *counter) {
    p->busy = true;
    alarm(HANG_S);
    scenario_run(&p->run);
    p->busy = false;
    atomic_fetch_add(counter, 1);
    atomic_fetch_add(&board->steps, p->run.steps);
    if (p->run.peak_bytes > atomic_load(&board->peak_bytes))
        atomic_store(&board->peak_bytes, p->run.peak_bytes);
    if (p->run.bad[0] == '\0')
        return;
    run_print(&p->run, p->run.bad);
    atomic_fetch_add(&board->failed, 1);
    if (o->keep_on)
        return;
    atomic_store(&board->stop, true);
    _exit(EXIT_FAILED);
}

/* Is that call, the nth of its kind, left out? */
static bool is_skipped(const struct options *o, uint64_t script, enum wire_call c, unsigned nth) {
    unsigned every = c == CALL_TABLE || c == CALL_NAME ? (o->every + 7) / 8 : o->every;
    return nth % every != script % every;
}

/* One script with every fault at every call. */
static void run_script(const struct options *o, struct place *p, uint64_t script) {
    p->run = (struct run){.seed = script, .kinds = kinds, .kinds_max = CALLS_MAX};
    run_one(o, p, &board->exhaustive);
    unsigned calls = p->run.calls < CALLS_MAX ? p->run.calls : CALLS_MAX;
    p->run.kinds = NULL;
    p->run.kinds_max = 0;
    unsigned nth[CALL_KINDS] = {0};
    for (unsigned i = 0; i < calls; i++) {
        if (is_skipped(o, script, (enum wire_call)kinds[i], nth[kinds[i]]++))
            continue;
        for (enum wire_fault f = FAULT_NOTHING + 1; f < FAULT_KINDS; f++) {
            if (!fault_fits(f, (enum wire_call)kinds[i]) || atomic_load(&board->stop))
                continue;
            p->run.fault_at = i;
            p->run.fault = f;
            run_one(o, p, &board->exhaustive);
        }
    }
    if (!atomic_load(&board->stop))
        atomic_fetch_add(&board->done_scripts, 1);
}

/* What calls a fixed script makes without a fault; kept for the next time. */
static const uint8_t *script_calls(uint64_t script, unsigned *n) {
    static struct {
        uint8_t *kinds;
        unsigned n;
    } known[SCRIPTS_MAX] WIRE_KEEP;
    if (script >= SCRIPTS_MAX)
        return NULL;
    if (known[script].kinds == NULL) {
        struct run r = {.seed = script, .kinds = kinds, .kinds_max = CALLS_MAX};
        scenario_run(&r);
        known[script].n = r.calls < CALLS_MAX ? r.calls : CALLS_MAX;
        known[script].kinds = malloc(known[script].n + 1);
        memcpy(known[script].kinds, kinds, known[script].n);
    }
    *n = known[script].n;
    return known[script].kinds;
}

/* One of the n calls: half the time of a kind that was drawn first, for look-ups and reads of the
 * disk are few among all that goes over the wire. */
static unsigned choose_call(const uint8_t *calls, unsigned n, struct wire_rng *chance) {
    unsigned at = (unsigned)wire_rnd(chance, n);
    uint64_t kind = wire_rnd(chance, 2 * CALL_KINDS);
    for (unsigned i = 0; i < n; i++)
        if (calls[(at + i) % n] == kind)
            return (at + i) % n;
    return at;
}

/* A fixed script with a fault that fits one of its calls. */
static void choose_fixed(struct run *r, struct wire_rng *chance) {
    unsigned n;
    r->seed = wire_rnd(chance, script_count());
    const uint8_t *calls = script_calls(r->seed, &n);
    if (calls == NULL || n == 0)
        return;
    r->fault_at = choose_call(calls, n, chance);
    do
        r->fault = (enum wire_fault)(1 + wire_rnd(chance, FAULT_KINDS - 1));
    while (!fault_fits(r->fault, (enum wire_call)calls[r->fault_at]));
}

/* Half of them are fixed scripts with a fault.  Of the others, drawn by chance, every third one has
 * a fault, at a call that it may or may not have.  A seed that is a fixed script's is that script,
 * without a fault. */
static void run_random(const struct options *o, struct place *p, uint64_t seed) {
    struct wire_rng chance;
    wire_rng_seed(&chance, seed + 77);
    p->run = (struct run){.seed = seed};
    if (seed >= RANDOM_FIRST && seed % 2 == 1) {
        choose_fixed(&p->run, &chance);
    } else if (seed >= RANDOM_FIRST && wire_rnd(&chance, 3) == 0) {
        p->run.fault = (enum wire_fault)(1 + wire_rnd(&chance, FAULT_KINDS - 1));
        p->run.fault_at = (unsigned)wire_rnd(&chance, 1 + wire_rnd(&chance, 400));
    }
    run_one(o, p, &board->random);
}

static bool is_large(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss > PROCESS_KB;
}

static _Noreturn void process_main(const struct options *o, struct place *p) {
    uint64_t i;
    while (o->exhaustive && !atomic_load(&board->stop) &&
           (i = atomic_fetch_add(&board->script, 1)) < o->scripts_end)
        run_script(o, p, i);
    while (!atomic_load(&board->stop) && (o->until_ms == 0 || real_ms() < o->until_ms) &&
           (i = atomic_fetch_add(&board->next, 1)) < o->count) {
        run_random(o, p, o->seed + i);
        if (i % 16 == 0 && is_large())
            _exit(EXIT_REPLACE);
    }
    _exit(0);
}

/* Where it crashed, for addr2line; then it crashes. */
static void on_crash(int signo) {
    void *at[40];
    signal(signo, SIG_DFL);
    backtrace_symbols_fd(at, backtrace(at, 40), STDOUT_FILENO);
    raise(signo);
}

static void catch_crashes(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
    void *at[1];
    backtrace(at, 1); /* loads what it needs */
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        signal(signals[i], on_crash);
}

static pid_t process_start(const struct options *o, unsigned i) {
    pid_t pid = fork();
    if (pid == 0) {
        if (HEAP_OWN) /* a sanitizer says more */
            catch_crashes();
        process_main(o, &board->places[i]);
    }
    return pid;
}

/* Waits for all; true if nothing failed. */
static bool processes_wait(const struct options *o, pid_t *pids) {
    bool ok = true;
    int status;
    pid_t pid;
    while ((pid = wait(&status)) > 0) {
        unsigned i = 0;
        while (i < o->processes && pids[i] != pid)
            i++;
        if (i == o->processes)
            continue;
        if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_REPLACE) {
            pids[i] = process_start(o, i);
            continue;
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        ok = false;
        if (!o->keep_on)
            atomic_store(&board->stop, true);
        if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILED && !board->places[i].busy)
            continue; /* has been said */
        char what[60];
        snprintf(what, sizeof what, WIFSIGNALED(status) ? "it ends with signal %d" : "exit %d",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        run_print(&board->places[i].run,
                  WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "it hangs" : what);
    }
    return ok;
}

static int run_all(const struct options *o) {
    pid_t pids[PROCESSES_MAX];
    int64_t begun = real_ms();
    fflush(stdout);
    for (unsigned i = 0; i < o->processes; i++)
        pids[i] = process_start(o, i);
    bool ok = processes_wait(o, pids) && board->failed == 0;
    uint64_t all = board->exhaustive + board->random;
    int64_t took = real_ms() - begun;
    printf("%llu scenarios: %llu of %llu scripts with every fault (%llu), %llu random; %llu steps, "
           "%llu scenarios a second, at most %zu bytes in the product; %s\n",
           (unsigned long long)all, (unsigned long long)board->done_scripts,
           (unsigned long long)(o->exhaustive ? o->scripts_end : 0),
           (unsigned long long)board->exhaustive, (unsigned long long)board->random,
           (unsigned long long)board->steps,
           (unsigned long long)(all * 1000 / (uint64_t)(took + 1)), (size_t)board->peak_bytes,
           ok ? "nothing found" : "FAILED");
    return ok ? 0 : EXIT_FAILED;
}

/* In this process, for a debugger. */
static int run_alone(struct run *r) {
    scenario_run(r);
    if (r->bad[0] != '\0')
        run_print(r, r->bad);
    else
        printf("all is well: %u calls, %llu steps, at most %zu bytes in the product (%s)\n",
               r->calls, (unsigned long long)r->steps, r->peak_bytes, script_name(r->seed));
    return r->bad[0] == '\0' ? 0 : EXIT_FAILED;
}

static bool parse_fault(struct run *r, const char *text) {
    const char *colon = strchr(text, ':');
    r->fault_at = (unsigned)strtoul(text, NULL, 10);
    r->fault = colon == NULL ? FAULT_KINDS : fault_parse(colon + 1);
    return r->fault != FAULT_KINDS;
}

static void set_up(void) {
    struct rlimit files = {1024, 1024};
    setrlimit(RLIMIT_NOFILE, &files); /* the product looks at it; the same everywhere */
    tls_process_init();
    product_warm_up();
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    heap_freeze();
}

int main(int argc, char **argv) {
    struct options o = {.seed = RANDOM_FIRST, .every = 1};
    struct run alone = {0};
    bool one = false, ok = true, counted = false;
    int opt;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    str_hash_key(1, 2); /* what a seed does is the same in every process */
    CRYPTO_set_mem_functions(process_malloc, process_realloc, process_free);
    o.processes = cores < 1 ? 1 : cores > PROCESSES_MAX ? PROCESSES_MAX : (unsigned)cores;
    while ((opt = getopt(argc, argv, "xn:t:s:j:f:vke:")) != -1) {
        if (opt == 's') {
            alone.seed = o.seed = strtoull(optarg, NULL, 10);
            one = true;
        } else if (opt == 'x') {
            o.exhaustive = true;
        } else if (opt == 'n') {
            o.count = strtoull(optarg, NULL, 10);
            counted = true;
        } else if (opt == 't') {
            o.until_ms = real_ms() + strtoll(optarg, NULL, 10) * 1000;
            o.count = UINT64_MAX;
            counted = true;
        } else if (opt == 'j') {
            o.processes = (unsigned)strtoul(optarg, NULL, 10);
        } else if (opt == 'f') {
            ok = parse_fault(&alone, optarg);
        } else if (opt == 'e') {
            o.every = (unsigned)strtoul(optarg, NULL, 10);
        } else if (opt == 'k') {
            o.keep_on = true;
        } else if (opt == 'v') {
            alone.verbose = true;
        } else {
            ok = false;
        }
    }
    if (!ok || o.every < 1 || o.processes < 1 || o.processes > PROCESSES_MAX ||
        (!one && !counted && !o.exhaustive))
        return fputs("usage: see the head of tests/wire/main.c\n", stderr), 2;
    set_up();
    o.scripts_end = one && !counted ? o.seed + 1 : script_count();
    board->script = one && !counted ? o.seed : 0;
    return one && !counted && !o.exhaustive ? run_alone(&alone) : run_all(&o);
}
