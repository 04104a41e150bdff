/*
 * maps/hash_check.h - is a Berkeley DB hash file safe to give to libdb?
 */
#ifndef PH_MAPS_HASH_CHECK_H
#define PH_MAPS_HASH_CHECK_H

/* Reads the file at path once and follows every bucket.  NULL, or what is
 * wrong (static text); a file that cannot be opened is left for libdb to complain about.  Any
 * thread. */
const char *hash_check(const char *path);

#endif
