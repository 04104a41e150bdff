/*
 * maps/cdb_check.c - see cdb_check.h
 *
 * Layout by D. J. Bernstein's description: the places and lengths of 256 hash tables, records, hash
 * tables.  All numbers have four bytes, the lowest first.
 */
#include "maps/cdb_check.h"

#include <stdbool.h>
#include <stdint.h>

#include "util/fs.h"

#define TABLES 256U
#define HEAD   (TABLES * 8U)

struct cdb_file {
    const unsigned char *p;
    uint64_t size;
    uint64_t end;   /* of the records, where the first table begins */
    uint64_t slots; /* that tables use */
};

static uint32_t cdb_u32(const struct cdb_file *f, uint64_t at) {
    const unsigned char *b = f->p + at;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* Finds where records end; false if a table lies beyond the file's end, or in its head, or before
 * the first one, where tinycdb takes them to end. */
static bool cdb_tables_inside(struct cdb_file *f) {
    f->end = cdb_u32(f, 0);
    for (unsigned i = 0; i < TABLES; i++) {
        uint64_t at = cdb_u32(f, i * 8), slots = cdb_u32(f, i * 8 + 4);
        if (at < HEAD || at < f->end || at + slots * 8 > f->size)
            return false;
    }
    return true;
}

/* A record's length with its head; 0 if it is longer than what is left of the records. */
static uint64_t cdb_record(const struct cdb_file *f, uint64_t at) {
    if (at + 8 > f->end)
        return 0;
    uint64_t n = 8 + (uint64_t)cdb_u32(f, at) + cdb_u32(f, at + 4);
    return n <= f->end - at ? n : 0;
}

/* How many records there are; false if they do not fill their part of the file. */
static bool cdb_records(const struct cdb_file *f, uint64_t *count) {
    uint64_t at = HEAD, n;
    for (*count = 0; at < f->end; ++*count, at += n)
        if ((n = cdb_record(f, at)) == 0)
            return false;
    return true;
}

static uint32_t cdb_hash_at(const struct cdb_file *f, uint64_t record) {
    uint32_t hash = 5381, length = cdb_u32(f, record);
    for (uint32_t i = 0; i < length; i++)
        hash = ((hash << 5) + hash) ^ f->p[record + 8 + i];
    return hash;
}

/* Does the slot stand for a record, and has the record's key the slot's hash? */
static bool cdb_slot_ok(const struct cdb_file *f, uint32_t hash, uint64_t record, unsigned table) {
    return record >= HEAD && cdb_record(f, record) > 0 && hash % TABLES == table &&
           cdb_hash_at(f, record) == hash;
}

/* A look-up begins at a slot that the hash says and ends at one that is empty: none may lie between
 * the first and the key's own.  Two rounds, so that those before the first slot are known. */
static bool cdb_table_ok(struct cdb_file *f, unsigned table) {
    uint64_t at = cdb_u32(f, table * 8), slots = cdb_u32(f, table * 8 + 4), used = 0;
    for (uint64_t i = 0; i < 2 * slots; i++) {
        uint64_t slot = at + i % slots * 8, record = cdb_u32(f, slot + 4);
        uint32_t hash = cdb_u32(f, slot);
        if (record == 0) {
            used = 0;
            continue;
        }
        if (i >= slots) {
            uint64_t way = (i - (hash >> 8) % slots) % slots;
            if (way > used || !cdb_slot_ok(f, hash, record, table))
                return false;
            f->slots++;
        }
        used++;
    }
    return true;
}

static const char *cdb_file_check(const void *p, uint64_t n) {
    struct cdb_file file = {.p = p, .size = n}, *f = &file;
    uint64_t records;
    if (n < HEAD)
        return "it is no cdb file, or cut off";
    if (!cdb_tables_inside(f))
        return "it is no cdb file, or cut off: its head names places that it does not have";
    if (!cdb_records(f, &records))
        return "its records are damaged";
    for (unsigned i = 0; i < TABLES; i++)
        if (!cdb_table_ok(f, i))
            return "its hash tables are damaged";
    return f->slots == records ? NULL : "its hash tables are damaged";
}

const char *cdb_check(const char *path) {
    return fs_mapped(path, cdb_file_check);
}
