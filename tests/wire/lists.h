/*
 * tests/wire/lists.h - names of the product's own that stand for others, by aliases(5)
 *
 * A list is a recipient's name with its rows in the table of aliases: members, names that stand for
 * others in their turn, an owner or none.  Members carry the number of the message that is to be
 * made of the list.  The rows are made when the list is; what they mean is told to the ledger when
 * the recipient is named.
 */
#ifndef PH_TESTS_WIRE_LISTS_H
#define PH_TESTS_WIRE_LISTS_H

#include "ledger.h"

struct client_mail;
struct scene;
struct list;

/* Names of the scene stand for others from now on. */
void lists_configure(struct scene *s);

enum list_shape {
    LIST_FLAT,   /* members only */
    LIST_NESTED, /* names in names, each member in one of them */
    LIST_MUTUAL, /* names that name each other, members more than once */
    LIST_BROKEN, /* a part of it cannot be carried out */
    LIST_SHAPES
};
/* That recipient of the message becomes a list of so many members. */
void list_make(struct scene *s, struct client_mail *m, unsigned rcpt, enum list_shape shape,
               unsigned members, bool owner);
/* The same by chance. */
void list_draw(struct scene *s, struct client_mail *m, unsigned rcpt);
void list_tell(const struct list *x, struct ledger_mail *m, unsigned rcpt);

#endif
