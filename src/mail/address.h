/*
 * mail/address.h - mail addresses: RFC 5321 paths, quoted and unquoted forms, keys
 *
 * Internal form: the local part without its quoting, "@", the domain.  External form: quoted where
 * RFC 5321 section 4.1.2 asks for it.  Any thread; nothing is kept.
 */
#ifndef PH_MAIL_ADDRESS_H
#define PH_MAIL_ADDRESS_H

#include "util/str.h"

#define ADDR_MAX 1024U

enum addr_rc {
    ADDR_OK,
    ADDR_SYNTAX,   /* malformed */
    ADDR_TOO_LONG, /* above ADDR_MAX */
    ADDR_8BIT      /* non-ASCII without SMTPUTF8 */
};

struct addr_opts {
    bool strict;      /* <> required; as with Postfix, blanks may stand before it */
    bool utf8;        /* non-ASCII allowed */
    bool allow_empty; /* "<>" */
};

/* Parses what follows "FROM:" or "TO:"; *path_len is the length of the path in text (parameters
 * follow).  Source routes (<@a,@b:user@c>) are dropped.  The internal form is appended to out. */
enum addr_rc addr_parse(struct str text, const struct addr_opts *o, struct sbuf *out,
                        size_t *path_len);
/* The part after the last '@', or an empty view. */
struct str addr_domain(struct str internal);
struct str addr_local(struct str internal);
/* Appends the external form. */
void addr_external(struct sbuf *out, struct str internal);
/* Completes the address, in internal form, that begins at begun of b and ends with it: with @origin
 * if it has no domain, and with .domain if that has no dot.  NULL: not so.  An empty address, and a
 * literal for a domain, stay. */
void addr_complete(struct sbuf *b, size_t begun, const char *origin, const char *domain);
/* Appends a person's name as it stands before an address (RFC 5322 section 3.2.5). */
void addr_phrase(struct sbuf *out, struct str name);
/* Is it a host name: letters, digits, '-', '_' and dots, no empty label, 255 at most?  Or an
 * internationalised domain name (util/idn.h)? */
bool addr_valid_host(struct str s);
/* Is it a host name of DNS: addr_valid_host, in ASCII, no label that begins or ends with '-', and
 * not an address in digits? */
bool addr_is_dns_name(struct str s);
/* Is it an address literal, "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 section 4.1.3)?  Others
 * name no host. */
bool addr_is_literal(struct str s);
/* The local part up to the first of the delimiters (empty result: none present). */
struct str addr_strip_ext(struct str local, const char *delimiters);
/* Is it an atom of ASCII (RFC 5322 section 3.2.3), as the type of an ORCPT must be? */
bool addr_is_atom(struct str s);
/* Appends "xtext" decoded (RFC 3461 section 4); false if it is malformed or has a control
 * character, hidden or not.  As in Postfix a digit may be small, and any other character stands for
 * itself: there may be more than ASCII in what is decoded.  out may have grown after a failure. */
bool xtext_decode(struct sbuf *out, struct str in);
/* Appends the address of an ORCPT of type utf-8 in its ASCII form (RFC 6533 section 3): what is not
 * ASCII, '+' and '=' become "\x{…}".  False if such an escape is malformed, or the rest no UTF-8.
 * out may have grown then. */
bool uxtext_ascii(struct sbuf *out, struct str in);
void xtext_encode(struct sbuf *out, struct str in);

#endif
