/*
 * spool/bodyfile.h - large content in a file of its own
 */
#ifndef PH_SPOOL_BODYFILE_H
#define PH_SPOOL_BODYFILE_H

#include "spool/inside.h"

/* The caller frees it. */
char *bodyfile_path(const struct spool *s, uint64_t id);
/* One chunk; the first one (off 0) makes the file.  After a failure every later chunk fails, too.
 */
int bodyfile_write(struct spool *s, struct spool_op *op);
/* Makes the file durable, name and all, and gives its descriptor to body. */
int bodyfile_take(struct spool *s, uint64_t id, struct body *body);
/* Gives up what was written. */
void bodyfile_drop(struct spool *s, uint64_t id);
void bodyfile_unlink(struct spool *s, uint64_t id);
/* Moves it to damaged/, or marks it for the next start; 0 or negative errno. */
int bodyfile_set_aside(const struct spool *s, uint64_t id);
/* Moves it from damaged/ to where it was, its name durable; 0 or negative errno. */
int bodyfile_bring_back(const struct spool *s, uint64_t id);
void bodyfile_close_all(struct spool *s);

#endif
