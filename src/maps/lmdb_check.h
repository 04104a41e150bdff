/*
 * maps/lmdb_check.h - is a file safe to give to liblmdb?
 */
#ifndef PH_MAPS_LMDB_CHECK_H
#define PH_MAPS_LMDB_CHECK_H

/* liblmdb maps a file and believes every offset in it; a damaged one would end the process.  Reads
 * the file at path once and follows its tree.  NULL, or what is wrong (static text); a file that
 * cannot be opened is left for liblmdb to complain about.  Any thread. */
const char *lmdb_check(const char *path);

#endif
