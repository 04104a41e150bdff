/*
 * tests/wire/virtuals.h - recipients that stand for others, by virtual(5)
 *
 * The message itself goes to those that its recipient stands for: they carry its number, and
 * numbers of their own from VIRTUAL_FIRST on.  Rows name members and further names; all of them are
 * made when the message is, and told to the ledger when the recipient is named.
 */
#ifndef PH_TESTS_WIRE_VIRTUALS_H
#define PH_TESTS_WIRE_VIRTUALS_H

#include "lists.h"

#define VIRTUAL_FIRST 8
#define VIRTUAL_MAX   6

struct virtual;

void virtuals_configure(struct scene *s);
/* The first recipient of the message stands for so many. */
void virtual_make(struct scene *s, struct client_mail *m, enum list_shape shape, unsigned members);
void virtual_draw(struct scene *s, struct client_mail *m);
/* The sender stands for somebody else.  The message is one of virtual_make. */
void virtual_chief(struct scene *s, struct client_mail *m);
/* Is the address at the product's own domain of such recipients, to which everybody may send? */
bool virtual_is_ours(const char *addr);
void virtual_tell(const struct virtual *x, struct ledger_mail *m);

#endif
