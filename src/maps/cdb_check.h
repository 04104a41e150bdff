/*
 * maps/cdb_check.h - is a file a whole cdb, in which every key is found?
 */
#ifndef PH_MAPS_CDB_CHECK_H
#define PH_MAPS_CDB_CHECK_H

/* A cdb has nothing that says what it is, and tinycdb answers "not found" from one that is cut off
 * or of another kind: mail would go on without its table.  Reads the file at path once: records lie
 * one behind the other, and each stands in the hash tables where a look-up comes by.  NULL, or what
 * is wrong (static text); a file that cannot be opened is left for tinycdb to complain about.  Any
 * thread. */
const char *cdb_check(const char *path);

#endif
