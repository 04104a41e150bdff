/*
 * accounts/password.h - stored passwords in the schemes that iRedMail and Dovecot write
 *
 * {SSHA512}, {SSHA256}, {SSHA}, {SHA512}, {SHA256}, {SHA}, {SMD5}, {PLAIN-MD5}, {LDAP-MD5},
 * {PLAIN}, {CRYPT} and its names ({SHA512-CRYPT}, {BLF-CRYPT}, {MD5-CRYPT}, …); without a scheme
 * what crypt(3) knows, 32 hex digits as MD5.  Any thread; a check may take a tenth of a second and
 * more.
 */
#ifndef PH_ACCOUNTS_PASSWORD_H
#define PH_ACCOUNTS_PASSWORD_H

#include "util/str.h"

#define PASSWORD_MAX 511U /* bytes, for password_hash */

enum password_rc { PASSWORD_NO, PASSWORD_YES, PASSWORD_UNKNOWN /* scheme */ };

enum password_rc password_check(const char *stored, const char *password);
/* What can be kept to see whether a stored password is still the same: a digest of it, as text. */
void password_mark(const char *stored, char *mark, size_t n);
/* For a user that does not exist: takes the time that the check of the last stored password took,
 * so that the time does not say which users there are.  Has no result. */
void password_pretend(const char *password);
/* Appends {CRYPT} and what crypt(3) of this system holds for best (yescrypt on Debian); false: the
 * password is longer than it takes (PASSWORD_MAX), or there is no randomness. */
bool password_hash(const char *password, struct sbuf *out);

#endif
