/*
 * smtp/sasl.c - SASL mechanisms for the client; see sasl.h
 *
 * PLAIN and LOGIN are done here in a few lines, so that the password passes through no memory that
 * is not wiped; libgsasl's LOGIN checks nothing that the server sends either.
 */
#include "smtp/sasl.h"

#include <gsasl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "util/codec.h"
#include "util/mem.h"

struct sasl_login {
    const char *mech;
    Gsasl_session *session; /* NULL: PLAIN or LOGIN */
    unsigned step;
    bool done; /* libgsasl has what it needs, for SCRAM the server's proof */
    char *user;
    char *password;
};

/* Strongest first, with what each gives. */
static const struct {
    const char *name;
    unsigned gives; /* options it satisfies */
    bool first;     /* begins with an initial response */
    bool slow;
} mechs[] = {
    {"SCRAM-SHA-256", SASL_NOPLAINTEXT | SASL_NOACTIVE | SASL_NOANONYMOUS | SASL_MUTUAL_AUTH, true,
     true},
    {"CRAM-MD5", SASL_NOPLAINTEXT | SASL_NOANONYMOUS, false, false},
    {"PLAIN", SASL_NOANONYMOUS, true, false},
    {"LOGIN", SASL_NOANONYMOUS, false, false},
};
#define MECHS (sizeof mechs / sizeof mechs[0])

static const struct {
    const char *word;
    unsigned flag;
} options[] = {{"noplaintext", SASL_NOPLAINTEXT},   {"noactive", SASL_NOACTIVE},
               {"nodictionary", SASL_NODICTIONARY}, {"noanonymous", SASL_NOANONYMOUS},
               {"mutual_auth", SASL_MUTUAL_AUTH},   {"forward_secrecy", SASL_FORWARD_SECRECY}};

bool sasl_options_parse(struct str text, unsigned *flags, struct str *bad) {
    struct str word;
    *flags = 0;
    while (str_split(&text, ", \t", &word)) {
        unsigned f = 0;
        for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
            if (str_ieq_c(word, options[i].word))
                f = options[i].flag;
        if (f == 0) {
            *bad = word;
            return false;
        }
        *flags |= f;
    }
    return true;
}

/* One mechanism against the filter list: the first pattern that matches decides. */
static bool filter_allows(struct str mech, struct str filter) {
    struct str pattern;
    while (str_split(&filter, ", \t", &pattern)) {
        bool negated = pattern.p[0] == '!';
        if (negated)
            pattern = str_from(pattern, 1);
        if (str_ieq(pattern, mech) || str_istarts(pattern, "static:"))
            return !negated;
    }
    return false;
}

void sasl_filter(struct str offered, struct str filter, struct sbuf *out) {
    struct str mech;
    while (str_split(&offered, " \t=,", &mech)) {
        if (filter.n > 0 && !filter_allows(mech, filter))
            continue;
        if (out->n > 0)
            sbuf_add_ch(out, ' ');
        sbuf_add_str(out, mech);
    }
}

static bool listed(struct str list, const char *name) {
    struct str word;
    while (str_split(&list, " ", &word))
        if (str_ieq_c(word, name))
            return true;
    return false;
}

const char *sasl_choose(struct str list, unsigned flags) {
    for (size_t i = 0; i < MECHS; i++)
        if (listed(list, mechs[i].name) && (flags & ~mechs[i].gives) == 0)
            return mechs[i].name;
    return NULL;
}

static Gsasl *gsasl_shared;
static pthread_once_t gsasl_once = PTHREAD_ONCE_INIT;

static void gsasl_start(void) {
    if (gsasl_init(&gsasl_shared) != GSASL_OK)
        gsasl_shared = NULL;
}

struct sasl_login *sasl_login_new(const char *mech, struct str user, struct str password,
                                  const char *host) {
    struct sasl_login *c = MEM_NEW(struct sasl_login);
    for (size_t i = 0; i < MECHS; i++)
        if (strcasecmp(mechs[i].name, mech) == 0)
            c->mech = mechs[i].name;
    c->user = str_dup(user);
    c->password = str_dup(password);
    if (c->mech == NULL)
        goto fail;
    if (strcmp(c->mech, "LOGIN") == 0 || strcmp(c->mech, "PLAIN") == 0)
        return c;
    pthread_once(&gsasl_once, gsasl_start);
    if (gsasl_shared == NULL || gsasl_client_start(gsasl_shared, c->mech, &c->session) != GSASL_OK)
        goto fail;
    gsasl_property_set(c->session, GSASL_AUTHID, c->user);
    gsasl_property_set(c->session, GSASL_PASSWORD, c->password);
    gsasl_property_set(c->session, GSASL_SERVICE, "smtp");
    gsasl_property_set(c->session, GSASL_HOSTNAME, host);
    return c;
fail:
    sasl_login_free(c);
    return NULL;
}

void sasl_login_free(struct sasl_login *c) {
    if (c == NULL)
        return;
    if (c->session != NULL) {
        const char *copy = gsasl_property_fast(c->session, GSASL_PASSWORD);
        if (copy != NULL)
            mem_wipe((char *)(uintptr_t)copy, strlen(copy));
        gsasl_finish(c->session);
    }
    mem_wipe(c->password, strlen(c->password));
    free(c->password);
    free(c->user);
    free(c);
}

const char *sasl_login_mech(const struct sasl_login *c) {
    return c->mech;
}

static size_t mech_index(const struct sasl_login *c) {
    size_t i = 0;
    while (mechs[i].name != c->mech)
        i++;
    return i;
}

bool sasl_login_slow(const struct sasl_login *c) {
    return mechs[mech_index(c)].slow;
}

bool sasl_login_first(const struct sasl_login *c) {
    return mechs[mech_index(c)].first;
}

bool sasl_login_proven(const struct sasl_login *c) {
    return strncmp(c->mech, "SCRAM-", 6) != 0 || c->done;
}

static int login_step(struct sasl_login *c, struct sbuf *answer, const char **why) {
    const char *word = c->step == 0 ? c->user : c->password;
    if (c->step++ > 1) {
        *why = "unexpected third challenge";
        return -1;
    }
    base64_encode(answer, str_of(word));
    return 0;
}

/* RFC 4616: NUL, user, NUL, password. */
static int plain_step(struct sasl_login *c, struct sbuf *answer, const char **why) {
    struct sbuf b = {0};
    if (c->step++ > 0) {
        *why = "unexpected second challenge";
        return -1;
    }
    sbuf_room(&b, strlen(c->user) + strlen(c->password) + 3); /* no copy is left behind */
    sbuf_add(&b, "", 1);
    sbuf_add(&b, c->user, strlen(c->user) + 1);
    sbuf_add_c(&b, c->password);
    base64_encode(answer, sbuf_str(&b));
    mem_wipe(b.p, b.cap);
    sbuf_free(&b);
    return 0;
}

/* RFC 5802 section 7: the server's first message is "r=…,s=…,i=N".  N is the server's choice, and
 * each of N rounds costs our time. */
static bool scram_rounds_ok(struct str challenge) {
    struct sbuf raw = {0};
    struct str rest, field;
    uint64_t rounds;
    bool ok = base64_decode(&raw, challenge);
    rest = sbuf_str(&raw);
    while (ok && str_split(&rest, ",", &field))
        ok = !str_istarts(field, "i=") ||
             (str_u64(str_from(field, 2), &rounds) && rounds <= SASL_SCRAM_ROUNDS);
    sbuf_free(&raw);
    return ok;
}

int sasl_login_step(struct sasl_login *c, struct str challenge, struct sbuf *answer,
                    const char **why) {
    if (c->session == NULL)
        return strcmp(c->mech, "PLAIN") == 0 ? plain_step(c, answer, why)
                                             : login_step(c, answer, why);
    if (strncmp(c->mech, "SCRAM-", 6) == 0 && !scram_rounds_ok(challenge)) {
        *why = "the server's SCRAM challenge is malformed, or asks for too many iterations";
        return -1;
    }
    char *in = str_dup(challenge), *out = NULL;
    int rc = gsasl_step64(c->session, in, &out);
    free(in);
    c->done = rc == GSASL_OK;
    if (rc != GSASL_OK && rc != GSASL_NEEDS_MORE) {
        *why = gsasl_strerror(rc);
        return -1;
    }
    if (out != NULL) {
        sbuf_add_c(answer, out);
        mem_wipe(out, strlen(out));
        gsasl_free(out);
    }
    return 0;
}
