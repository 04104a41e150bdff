/*
 * maps/newfile.h - the file that a table is written into before it takes the old one's place
 *
 * Used by the programs that make tables, on their one thread.
 */
#ifndef PH_MAPS_NEWFILE_H
#define PH_MAPS_NEWFILE_H

#include "util/str.h"

/* Appends the name, beside path, of this process's new file, which is not there.  The like that
 * processes which were killed have left for path are removed. */
void newfile_name(const char *path, struct sbuf *out);

#endif
