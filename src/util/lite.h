/*
 * util/lite.h - opening an SQLite file of our own that is going to be written
 *
 * Such a file may lie in a folder of a less privileged user (web_owner's data_directory), and root
 * opens it there from the command line.  Any thread; blocks on the disk.
 */
#ifndef PH_UTIL_LITE_H
#define PH_UTIL_LITE_H

#include <sqlite3.h>

/* As sqlite3_open_v2, but refuses with SQLITE_CANTOPEN what is no regular file, is a symbolic link,
 * or has a second name, the journals beside it too: the folder's owner cannot lead to another
 * user's file.  A journal that names a further file is not taken back.  The folder's own path may
 * have links.  *db is to be closed whatever is returned. */
int lite_open(const char *path, sqlite3 **db, int flags);

/* What is too large to be sorted or undone in SQLite's cache would go to a file of its own in a
 * folder for such: behind its walls a process of ours has none, and the statement would fail.
 * lite_open does it by itself. */
void lite_sort_in_memory(sqlite3 *db);

/* Takes back what a writer of the file at path that was killed has left half done: readers cannot,
 * and answer nothing until it is.  The caller has one thread; while it works, it is the user that
 * owns the file.  What does not succeed is left to the file's readers to name. */
void lite_take_back(const char *path);

#endif
