/*
 * A disk in memory that can fail or lose power at any call; see sim_disk.c
 */
#ifndef PH_TESTS_SIM_DISK_H
#define PH_TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "spool/io.h"

enum fault {
    FAULT_NONE,
    FAULT_CUT,   /* the power goes before the call does anything */
    FAULT_AFTER, /* … after the call */
    FAULT_EIO,   /* one call fails */
    FAULT_SHORT, /* one read or write does only part of its work */
    FAULT_FULL,  /* no room for the next FULL_CALLS calls */
    FAULT_SYNC,  /* the next sync from here on fails, and its data stays unsynced for ever */
    FAULT_RO,    /* nothing can be changed in the next RO_CALLS calls */
    FAULT_OUT,   /* the next OUT_CALLS calls fail, whatever they ask for */
    FAULT_DIE,   /* the process is killed before the call; the kernel lives */
    FAULT_COUNT,
    FAULT_GONE = FAULT_COUNT, /* one file of log/ is removed */
    FAULT_ALL
};

struct sim;

struct sim *sim_new(uint64_t seed);
void sim_free(struct sim *d);
const struct spool_io *sim_io(struct sim *d);
/* The fault happens at the n-th call from now (0: the next one). */
void sim_fault(struct sim *d, enum fault f, unsigned n);
/* When that fault has happened, this one follows: n calls later. */
void sim_fault_then(struct sim *d, enum fault f, unsigned n);
/* From now on no file gets longer, until it is taken back. */
void sim_tight(struct sim *d, bool tight);
/* Calls since sim_fault. */
unsigned sim_calls(const struct sim *d);
bool sim_is_dead(const struct sim *d);
/* What is on the disk when power is back: of what was not synced, each sector and each name is old,
 * new or (sectors) torn, as chance has it.  Where only the process was killed, all is new. */
void sim_power_on(struct sim *d);
/* Without a power cut: the process is gone, the kernel lives. */
void sim_restart(struct sim *d);
/* What a disk or its owner does to a file while the spool is closed. */
enum rot {
    ROT_BIT,    /* one bit is another one */
    ROT_SECTOR, /* a sector has other bytes */
    ROT_ZEROS,  /* a sector has zeros */
    ROT_SHORT,  /* the file is shorter */
    ROT_GONE,   /* the file is gone */
    ROT_OLDER,  /* the file is as it was in the copy */
    ROT_COUNT
};
/* Does it to one of the files; older: a copy of the disk that was made before.  True if the file is
 * the newest of log/. */
bool sim_rot(struct sim *d, const struct sim *older, enum rot kind);
struct sim *sim_copy(const struct sim *d, uint64_t seed);
uint64_t sim_rand(struct sim *d);

#endif
