/*
 * tests/wire/heap.c - memory of a simulated life; see heap.h
 *
 * World and product each have a region of address space that is handed out from its beginning;
 * freed memory is not handed out again before the region is emptied, so what is used after it was
 * freed shows: its bytes are FREED.
 */
#include "heap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGN       16U
#define REGION_SIZE (1ULL << 32)
#define FREED       0xde
/* What new memory holds, up to FILL_MAX bytes: the same each time, and no good as anything. */
#define UNSET    0xa5
#define FILL_MAX 16384U
/* Freed memory up to this size is looked at again for writes. */
#define WATCHED_MAX 1024U
/* The world's larger pieces are the disk: no pointers.  Of the product's, what a loop reads into.
 */
#define WORLD_POINTERS_MAX 16384U
#define SCRATCH_SIZE       65536U

struct block {
    uint32_t size;  /* of what follows, a multiple of ALIGN */
    uint32_t asked; /* bytes asked for */
    uint32_t live;  /* 1: in use, 0: freed */
    uint32_t mark;  /* reached by heap_check */
};

struct region {
    char *base;
    size_t used;
    size_t live_bytes;
    size_t checked; /* heap_check has sorted the blocks up to here */
};

static struct region regions[3] WIRE_KEEP;
static enum heap_side running WIRE_KEEP;

enum heap_side heap_switch(enum heap_side side) {
    enum heap_side old = running;
    running = side;
    return old;
}

size_t heap_product_bytes(void) {
    return regions[HEAP_PRODUCT].live_bytes;
}

/* ---- static variables ---- */

extern char __data_start[], _end[];
extern char __start_wire_keep[], __stop_wire_keep[];
/* Counters of a coverage build are not part of a life. */
extern char __start___llvm_prf_cnts[] __attribute__((weak));
extern char __stop___llvm_prf_cnts[] __attribute__((weak));

static char *frozen WIRE_KEEP;

/* A byte copy that no sanitizer looks at: it goes over the gaps between variables too. */
__attribute__((no_sanitize("address", "undefined"))) static void
copy_raw(char *to, const char *from, size_t n) {
    uint64_t *t = (uint64_t *)(void *)to;
    const uint64_t *f = (const uint64_t *)(const void *)from;
    for (size_t i = 0; i < n / 8; i++)
        t[i] = f[i];
    for (size_t i = n / 8 * 8; i < n; i++)
        to[i] = from[i];
}

/* Copies the static variables between the program and its frozen image, but for [skip, skip_end).
 */
static void statics_copy(bool back, const char *from, const char *to) {
    size_t off = (size_t)(from - __data_start), n = (size_t)(to - from);
    if (to <= from)
        return;
    if (back)
        copy_raw(__data_start + off, frozen + off, n);
    else
        copy_raw(frozen + off, __data_start + off, n);
}

static void statics_move(bool back) {
    const char *holes[2][2] = {{__start_wire_keep, __stop_wire_keep},
                               {__start___llvm_prf_cnts, __stop___llvm_prf_cnts}};
    if (holes[0][0] > holes[1][0]) {
        const char *a = holes[0][0], *b = holes[0][1];
        holes[0][0] = holes[1][0];
        holes[0][1] = holes[1][1];
        holes[1][0] = a;
        holes[1][1] = b;
    }
    const char *at = __data_start;
    for (int i = 0; i < 2; i++) {
        if (holes[i][0] < __data_start || holes[i][0] >= _end)
            continue;
        statics_copy(back, at, holes[i][0]);
        at = holes[i][1];
    }
    statics_copy(back, at, _end);
}

#if HEAP_OWN

/* ---- allocation ---- */

void *__libc_malloc(size_t n);
void __libc_free(void *p);
void *__libc_realloc(void *p, size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_memalign(size_t align, size_t n);

static struct region *region_of(const void *p) {
    for (int i = HEAP_WORLD; i <= HEAP_PRODUCT; i++)
        if (regions[i].base != NULL && (const char *)p >= regions[i].base &&
            (const char *)p < regions[i].base + REGION_SIZE)
            return &regions[i];
    return NULL;
}

static struct block *block_of(void *p) {
    return (struct block *)p - 1;
}

static _Noreturn void heap_broken(const char *what, const void *p) {
    fprintf(stderr, "heap: %s (%p)\n", what, p);
    abort();
}

static void *region_take(struct region *r, size_t n, bool fill) {
    size_t size = (n + ALIGN - 1) / ALIGN * ALIGN;
    if (size > UINT32_MAX / 2 || r->used + sizeof(struct block) + size > REGION_SIZE) {
        errno = ENOMEM;
        return NULL;
    }
    struct block *b = (struct block *)(void *)(r->base + r->used);
    *b = (struct block){.size = (uint32_t)size, .asked = (uint32_t)n, .live = 1};
    r->used += sizeof *b + size;
    r->live_bytes += size;
    if (fill)
        memset(b + 1, UNSET, size < FILL_MAX ? size : FILL_MAX);
    return b + 1;
}

static void region_free(struct region *r, void *p) {
    struct block *b = block_of(p);
    if (b->live != 1)
        heap_broken(b->live == 0 ? "freed twice" : "freed what was not allocated", p);
    b->live = 0;
    r->live_bytes -= b->size;
    memset(p, FREED, b->size);
}

void *malloc(size_t n) {
    return running == HEAP_PROCESS ? __libc_malloc(n) : region_take(&regions[running], n, true);
}

void free(void *p) {
    struct region *r = region_of(p);
    if (r == NULL)
        __libc_free(p);
    else
        region_free(r, p);
}

void *calloc(size_t n, size_t size) {
    size_t total;
    if (running == HEAP_PROCESS)
        return __libc_calloc(n, size);
    if (__builtin_mul_overflow(n, size, &total))
        return NULL;
    void *p = region_take(&regions[running], total, false);
    return p == NULL ? NULL : memset(p, 0, total);
}

void *realloc(void *p, size_t n) {
    struct region *r = region_of(p);
    if (p == NULL)
        return malloc(n);
    if (r == NULL)
        return __libc_realloc(p, n);
    struct block *b = block_of(p);
    size_t size = (n + ALIGN - 1) / ALIGN * ALIGN;
    bool last = (char *)p + b->size == r->base + r->used;
    if (b->live != 1)
        heap_broken("resized what was freed", p);
    if (last && size > b->size && size < UINT32_MAX / 2) { /* the last one grows in place */
        r->used += size - b->size;
        r->live_bytes += size - b->size;
        b->size = (uint32_t)size;
    }
    if (size <= b->size) {
        b->asked = (uint32_t)n;
        return p;
    }
    void *q = region_take(r, n, true);
    if (q != NULL) {
        memcpy(q, p, b->size);
        region_free(r, p);
    }
    return q;
}

void *memalign(size_t align, size_t n);
void *memalign(size_t align, size_t n) {
    return running == HEAP_PROCESS || align > ALIGN ? __libc_memalign(align, n) : malloc(n);
}

void *aligned_alloc(size_t align, size_t n) {
    return memalign(align, n);
}

int posix_memalign(void **p, size_t align, size_t n) {
    *p = memalign(align, n);
    return *p == NULL ? ENOMEM : 0;
}

static void regions_make(void) {
    for (int i = HEAP_WORLD; i <= HEAP_PRODUCT; i++) {
        void *p = mmap(NULL, REGION_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            heap_broken("no address space", NULL);
        regions[i].base = p;
    }
}

static void region_empty(struct region *r) {
    if (r->used > (256U << 20)) /* what was very large goes back */
        madvise(r->base, r->used, MADV_DONTNEED);
    r->used = r->live_bytes = 0;
}

/* ---- what nothing points to ---- */

/* One bit for each ALIGN bytes of the product's heap: a block begins here. */
static uint64_t *starts WIRE_KEEP;
static size_t starts_cap WIRE_KEEP;
static struct block **todo WIRE_KEEP;
static size_t todo_n WIRE_KEEP, todo_cap WIRE_KEEP;

static const char *find_blocks(struct region *r) {
    size_t words = r->used / ALIGN / 64 + 1;
    if (words > starts_cap) {
        __libc_free(starts);
        starts = __libc_malloc(words * 2 * 8);
        starts_cap = words * 2;
    }
    memset(starts, 0, words * 8);
    for (size_t at = 0; at < r->used;) {
        struct block *b = (struct block *)(void *)(r->base + at);
        const unsigned char *p = (const unsigned char *)(b + 1);
        size_t bit = (at + sizeof *b) / ALIGN;
        b->mark = 0;
        if (b->live == 1)
            starts[bit / 64] |= 1ULL << bit % 64;
        for (size_t i = 0; b->live == 0 && b->size <= WATCHED_MAX && i < b->size; i++)
            if (p[i] != FREED)
                return "memory was written after it was freed";
        at += sizeof *b + b->size;
    }
    return NULL;
}

/* A value that points into a block, at its beginning or anywhere inside, keeps it. */
static void reach(struct region *r, uint64_t v) {
    uint64_t base = (uint64_t)(uintptr_t)r->base;
    if (v < base + sizeof(struct block) || v >= base + r->used)
        return;
    size_t bit = (size_t)(v - base) / ALIGN;
    uint64_t word = starts[bit / 64] & (~0ULL >> (63 - bit % 64));
    size_t at = bit / 64;
    while (word == 0 && at > 0)
        word = starts[--at];
    if (word == 0)
        return;
    bit = at * 64 + 63 - (size_t)__builtin_clzll(word);
    struct block *b = (struct block *)(void *)(r->base + bit * ALIGN) - 1;
    if (v > (uint64_t)(uintptr_t)(b + 1) + b->size || b->mark != 0)
        return;
    b->mark = 1;
    if (todo_n == todo_cap) {
        todo_cap = todo_cap == 0 ? 1024 : todo_cap * 2;
        todo = __libc_realloc(todo, todo_cap * sizeof(struct block *));
    }
    todo[todo_n++] = b;
}

static void reach_all(struct region *r, const char *p, size_t n) {
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t v;
        memcpy(&v, p + i, 8);
        reach(r, v);
    }
}

static void reach_statics(struct region *r) {
    for (const char *p = __data_start; p + 8 <= _end; p += 8) {
        if (p < __start_wire_keep || p >= __stop_wire_keep)
            reach_all(r, p, 8);
    }
}

static void reach_world(struct region *r) {
    const struct region *w = &regions[HEAP_WORLD];
    for (size_t at = 0; at < w->used;) {
        const struct block *b = (const struct block *)(const void *)(w->base + at);
        if (b->live == 1 && b->size <= WORLD_POINTERS_MAX)
            reach_all(r, (const char *)(b + 1), b->asked);
        at += sizeof *b + b->size;
    }
}

static const char *first_lost(const struct region *r) {
    static char text[160] WIRE_KEEP;
    size_t n = 0, bytes = 0, first = 0;
    for (size_t at = 0; at < r->used;) {
        const struct block *b = (const struct block *)(const void *)(r->base + at);
        if (b->live == 1 && b->mark == 0) {
            first = n++ == 0 ? at : first;
            bytes += b->asked;
        }
        at += sizeof *b + b->size;
    }
    if (n == 0)
        return NULL;
    const struct block *b = (const struct block *)(const void *)(r->base + first);
    int used =
        snprintf(text, sizeof text, "%zu pieces of memory (%zu bytes) are lost; one of %u: \"", n,
                 bytes, b->asked);
    const char *p = (const char *)(b + 1);
    for (uint32_t i = 0; i < b->asked && i < 40 && used < 150; i++)
        text[used++] = (char)(p[i] < ' ' || p[i] > '~' ? '.' : p[i]);
    snprintf(text + used, sizeof text - (size_t)used, "\"");
    return text;
}

const char *heap_check(void) {
    struct region *r = &regions[HEAP_PRODUCT];
    const char *bad = find_blocks(r);
    if (bad != NULL)
        return bad;
    todo_n = 0;
    reach_statics(r);
    reach_world(r);
    while (todo_n > 0) {
        const struct block *b = todo[--todo_n];
        if (b->size != SCRATCH_SIZE)
            reach_all(r, (const char *)(b + 1), b->size);
    }
    return first_lost(r);
}

#else

static void regions_make(void) {}

static void region_empty(struct region *r) {
    r->used = 0;
}

const char *heap_check(void) {
    return NULL;
}

#endif

void heap_freeze(void) {
    size_t n = (size_t)(_end - __data_start);
    enum heap_side old = heap_switch(HEAP_PROCESS);
    regions_make();
    frozen = malloc(n + 8);
    statics_move(false);
    heap_switch(old);
}

void heap_begin_life(void) {
    region_empty(&regions[HEAP_PRODUCT]);
    statics_move(true);
}

void heap_begin_scenario(void) {
    region_empty(&regions[HEAP_WORLD]);
    heap_begin_life();
}
