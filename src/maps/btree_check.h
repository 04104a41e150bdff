/*
 * maps/btree_check.h - is a Berkeley DB btree file safe to give to libdb, and are its keys found?
 */
#ifndef PH_MAPS_BTREE_CHECK_H
#define PH_MAPS_BTREE_CHECK_H

/* Reads the file at path once and follows its tree: every page and item lies inside the file, and
 * keys are in order, without which libdb would pass one by.  NULL, or what is wrong (static text);
 * a file that cannot be opened is left for libdb to complain about.  Any thread. */
const char *btree_check(const char *path);

#endif
