/*
 * accounts/password.c - stored passwords; see password.h
 */
#include "accounts/password.h"

#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "util/codec.h"
#include "util/mem.h"

/* Digest schemes: base64 (or hex) of the digest, followed by the salt where there is one. */
static const struct {
    const char *scheme;
    const char *digest;
    size_t n;
    bool salted;
} digests[] = {{"SSHA512", "SHA512", 64, true}, {"SSHA256", "SHA256", 32, true},
               {"SSHA", "SHA1", 20, true},      {"SMD5", "MD5", 16, true},
               {"SHA512", "SHA512", 64, false}, {"SHA256", "SHA256", 32, false},
               {"SHA", "SHA1", 20, false},      {"SHA1", "SHA1", 20, false},
               {"LDAP-MD5", "MD5", 16, false},  {"PLAIN-MD5", "MD5", 16, false}};

static const char *const crypts[] = {"CRYPT",        "MD5-CRYPT", "SHA256-CRYPT",
                                     "SHA512-CRYPT", "BLF-CRYPT", "MD5"};

static bool digest(const char *name, const char *password, struct str salt, unsigned char *out) {
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    const EVP_MD *md = EVP_get_digestbyname(name);
    bool ok = c != NULL && md != NULL && EVP_DigestInit_ex(c, md, NULL) == 1 &&
              EVP_DigestUpdate(c, password, strlen(password)) == 1 &&
              EVP_DigestUpdate(c, salt.p, salt.n) == 1 && EVP_DigestFinal_ex(c, out, NULL) == 1;
    EVP_MD_CTX_free(c);
    return ok;
}

static enum password_rc check_digest(size_t i, struct str text, const char *password) {
    struct sbuf raw = {0};
    unsigned char want[EVP_MAX_MD_SIZE];
    bool hex = text.n == 2 * digests[i].n && !digests[i].salted;
    bool ok = hex ? hex_decode(&raw, text) : base64_decode(&raw, text);
    size_t n = digests[i].n;
    ok = ok && (digests[i].salted ? raw.n > n : raw.n == n);
    struct str salt = ok ? str_from(sbuf_str(&raw), n) : STR_NONE;
    ok =
        ok && digest(digests[i].digest, password, salt, want) && CRYPTO_memcmp(raw.p, want, n) == 0;
    sbuf_free(&raw);
    return ok ? PASSWORD_YES : PASSWORD_NO;
}

/* yescrypt takes 16 MB while it works, and a stranger may have as many passwords looked at as there
 * are threads: so many at a time, the others wait. */
#define CRYPTS_MAX 8U

static struct {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    unsigned n;
} crypting = {.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};

static const char *crypt_in_turn(const char *password, const char *setting, struct crypt_data *d) {
    pthread_mutex_lock(&crypting.lock);
    while (crypting.n == CRYPTS_MAX)
        pthread_cond_wait(&crypting.ended, &crypting.lock);
    crypting.n++;
    pthread_mutex_unlock(&crypting.lock);
    const char *made = crypt_r(password, setting, d);
    pthread_mutex_lock(&crypting.lock);
    crypting.n--;
    pthread_cond_signal(&crypting.ended);
    pthread_mutex_unlock(&crypting.lock);
    return made;
}

static enum password_rc check_crypt(const char *stored, const char *password) {
    struct crypt_data *d = MEM_NEW(struct crypt_data);
    const char *made = crypt_in_turn(password, stored, d);
    bool ok = made != NULL && made[0] != '*' && strlen(made) == strlen(stored) &&
              CRYPTO_memcmp(made, stored, strlen(stored)) == 0;
    mem_wipe((char *)d, sizeof *d);
    free(d);
    return ok ? PASSWORD_YES : PASSWORD_NO;
}

/* Without a scheme. */
static enum password_rc check_bare(const char *stored, const char *password) {
    struct str s = str_of(stored);
    struct sbuf raw = {0};
    bool md5 = s.n == 32 && hex_decode(&raw, s);
    sbuf_free(&raw);
    if (!md5)
        return check_crypt(stored, password);
    for (size_t i = 0; i < sizeof digests / sizeof digests[0]; i++)
        if (strcmp(digests[i].scheme, "PLAIN-MD5") == 0)
            return check_digest(i, s, password);
    return PASSWORD_UNKNOWN;
}

static enum password_rc check_stored(const char *stored, const char *password) {
    struct str s = str_of(stored);
    ptrdiff_t end = str_chr(s, '}');
    if (s.n == 0)
        return PASSWORD_NO;
    if (s.p[0] != '{' || end < 0)
        return check_bare(stored, password);
    struct str scheme = str_make(s.p + 1, (size_t)end - 1), rest = str_from(s, (size_t)end + 1);
    /* "{SSHA.B64}" and "{SHA512.HEX}" say their encoding, which shows by its length. */
    ptrdiff_t dot = str_chr(scheme, '.');
    if (dot > 0)
        scheme.n = (size_t)dot;
    for (size_t i = 0; i < sizeof digests / sizeof digests[0]; i++)
        if (str_ieq_c(scheme, digests[i].scheme))
            return check_digest(i, rest, password);
    for (size_t i = 0; i < sizeof crypts / sizeof crypts[0]; i++)
        if (str_ieq_c(scheme, crypts[i]))
            return check_crypt(rest.p, password);
    if (str_ieq_c(scheme, "PLAIN") || str_ieq_c(scheme, "CLEARTEXT"))
        return rest.n > 0 && strlen(password) == rest.n &&
                       CRYPTO_memcmp(rest.p, password, rest.n) == 0
                   ? PASSWORD_YES
                   : PASSWORD_NO;
    return PASSWORD_UNKNOWN;
}

void password_mark(const char *stored, char *mark, size_t n) {
    static const char digits[] = "0123456789abcdef";
    unsigned char md[EVP_MAX_MD_SIZE];
    if (!digest("SHA256", stored, STR_LIT("posthouse: a mark"), md))
        abort(); /* two passwords must not look alike */
    for (size_t i = 0; i + 1 < n; i++)
        mark[i] = digits[i % 2 == 0 ? md[i / 2] >> 4 : md[i / 2] & 15];
    mark[n - 1] = '\0';
    mem_wipe((char *)md, sizeof md);
}

bool password_hash(const char *password, struct sbuf *out) {
    char *setting = crypt_gensalt_ra(NULL, 0, NULL, 0);
    struct crypt_data *d = MEM_NEW(struct crypt_data);
    const char *made = setting == NULL ? NULL : crypt_in_turn(password, setting, d);
    bool ok = made != NULL && made[0] != '*';
    if (ok)
        sbuf_printf(out, "{CRYPT}%s", made);
    mem_wipe((char *)d, sizeof *d);
    free(d);
    free(setting);
    return ok;
}

/* -- users that do not exist -- */

static struct {
    pthread_mutex_t lock;
    char *last; /* what was checked last; NULL: nothing yet */
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note_seen(const char *stored) {
    pthread_mutex_lock(&seen.lock);
    if (seen.last == NULL || strcmp(seen.last, stored) != 0) {
        if (seen.last != NULL)
            mem_wipe(seen.last, strlen(seen.last));
        free(seen.last);
        seen.last = mem_strdup(stored);
    }
    pthread_mutex_unlock(&seen.lock);
}

void password_pretend(const char *password) {
    struct sbuf stored = {0};
    pthread_mutex_lock(&seen.lock);
    if (seen.last != NULL)
        sbuf_add_c(&stored, seen.last);
    pthread_mutex_unlock(&seen.lock);
    if (stored.n > 0 || password_hash("nobody's password", &stored))
        check_stored(stored.p, password);
    sbuf_wipe(&stored);
}

enum password_rc password_check(const char *stored, const char *password) {
    note_seen(stored);
    return check_stored(stored, password);
}
