/*
 * config/source.h - the files a configuration is made of
 *
 * The supervisor reads them (it may, the others may not) and sends the whole bundle to the relay
 * and the lookup process, which build the same snapshot from it.  One thread per bundle.
 */
#ifndef PH_CONFIG_SOURCE_H
#define PH_CONFIG_SOURCE_H

#include "util/ipc.h"
#include "util/str.h"

struct cfg_source;

/* May read: files are read on first use.  dir is the configuration directory. */
struct cfg_source *cfg_source_new(const char *dir);
void cfg_source_free(struct cfg_source *s);
const char *cfg_source_dir(const struct cfg_source *s);
/* A file's content; negative errno in *err and an empty text if it could not be read. */
struct str cfg_source_file(struct cfg_source *s, const char *path, int *err);
/* What is wrong with a file, in words, by that errno: -EFBIG is said with the limit. */
const char *cfg_source_why(int err);
/* The same of all files of a folder that have a certificate's hash for a name (12ab34cd.0), as one.
 */
struct str cfg_source_folder(struct cfg_source *s, const char *path, int *err);
/* A text that is no file's, under a name that no file has; may hold keys.  It is kept, or replaced
 * (*text is taken over, and empty then), and found again ("": there is none of that name). */
void cfg_source_keep(struct cfg_source *s, const char *name, struct sbuf *text);
struct str cfg_source_kept(const struct cfg_source *s, const char *name);
/* A fact about this machine: system_hostname, system_domain, system_label (its name, if that has no
 * dot), system_networks_host, … */
const char *cfg_source_fact(const struct cfg_source *s, const char *name);
/* One more, for this bundle and for the snapshots that are built from it. */
void cfg_source_fact_add(struct cfg_source *s, const char *name, const char *value);
/* Is there such a file, or a symbolic link (wherever it leads)?  Known to the other processes too.
 * cfg_source_may_exist is true as well where that cannot be seen. */
bool cfg_source_exists(struct cfg_source *s, const char *path);
bool cfg_source_may_exist(struct cfg_source *s, const char *path);
/* Are they made of the same files, with the same content? */
bool cfg_source_same(const struct cfg_source *a, const struct cfg_source *b);
/* A copy of its own; may read if s may. */
struct cfg_source *cfg_source_copy(const struct cfg_source *s);
/* The file (or a folder's files) of that path are read again from the disk, if s has them. */
void cfg_source_again(struct cfg_source *s, const char *path);
/* The file (or a folder's files) of that path are in s what they are in from. */
void cfg_source_take(struct cfg_source *s, const struct cfg_source *from, const char *path);
/* Bytes that cfg_source_put would add. */
size_t cfg_source_size(const struct cfg_source *s);
/* The file that has most of them, and how many; NULL: there is none. */
const char *cfg_source_largest(const struct cfg_source *s, size_t *bytes);
/* For another process. */
void cfg_source_put(const struct cfg_source *s, struct sbuf *msg);
struct cfg_source *cfg_source_get(struct ipc_reader *r);

#endif
