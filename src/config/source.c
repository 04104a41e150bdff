/*
 * config/source.c - the files a configuration is made of; see source.h
 */
#include "config/source.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/fs.h"
#include "util/mem.h"
#include "util/net.h"

#define FILE_MAX      (8U << 20)
#define FILE_MAX_TEXT "8 MiB"

struct src_file {
    char *path;
    int err;
    struct sbuf text;
};

struct src_fact {
    char *name;
    char *value;
};

struct cfg_source {
    char *dir;
    bool may_read;
    struct src_file **files;
    size_t n_files;
    struct src_fact *facts;
    size_t n_facts;
};

static void fact_add(struct cfg_source *s, const char *name, char *value) {
    s->facts = mem_realloc(s->facts, (s->n_facts + 1) * sizeof *s->facts);
    s->facts[s->n_facts++] = (struct src_fact){mem_strdup(name), value};
}

/* As Postfix: the full name if the system knows one, else "name.localdomain"; the bare name is kept
 * for a configuration that says mydomain. */
static void fact_hostname(struct cfg_source *s) {
    char name[256] = "localhost";
    gethostname(name, sizeof name - 1);
    struct sbuf full = {0};
    sbuf_add_c(&full, name);
    if (strchr(name, '.') == NULL) {
        sbuf_add_c(&full, ".localdomain");
        fact_add(s, "system_label", mem_strdup(name));
    }
    const char *dot = strchr(full.p, '.');
    fact_add(s, "system_domain", mem_strdup(dot + 1));
    fact_add(s, "system_hostname", sbuf_take(&full));
}

static unsigned mask_bits(const struct sockaddr *mask) {
    unsigned bits = 0;
    size_t n = mask->sa_family == AF_INET ? 4 : 16;
    const uint8_t *p =
        mask->sa_family == AF_INET
            ? (const uint8_t *)&((const struct sockaddr_in *)(const void *)mask)->sin_addr
            : ((const struct sockaddr_in6 *)(const void *)mask)->sin6_addr.s6_addr;
    for (size_t i = 0; i < n; i++)
        bits += (unsigned)__builtin_popcount(p[i]);
    return bits;
}

static void apply_mask(struct netaddr *a, unsigned bits) {
    bool v4 = a->u.sa.sa_family == AF_INET;
    uint8_t *p = v4 ? (uint8_t *)&a->u.in4.sin_addr : a->u.in6.sin6_addr.s6_addr;
    for (unsigned i = bits; i < (v4 ? 32U : 128U); i++)
        p[i / 8] = (uint8_t)(p[i / 8] & ~(0x80U >> i % 8));
}

static void network_add(struct sbuf *out, struct netaddr a, unsigned bits) {
    char text[INET6_ADDRSTRLEN];
    apply_mask(&a, bits);
    netaddr_text(&a, text);
    sbuf_printf(out, a.u.sa.sa_family == AF_INET ? "%s%s/%u" : "%s[%s]/%u", out->n > 0 ? " " : "",
                text, bits);
}

/* Networks of IPv6 have no classes: there it is the interface's, as with Postfix. */
static unsigned class_bits(const struct netaddr *a, unsigned bits) {
    if (a->u.sa.sa_family != AF_INET)
        return bits;
    uint32_t top = ntohl(a->u.in4.sin_addr.s_addr) >> 24;
    return top < 128 ? 8 : top < 192 ? 16 : 24;
}

/* Our own addresses, alone and as networks: what mynetworks and loop detection start from. */
static void fact_networks(struct cfg_source *s) {
    struct sbuf host = {0}, subnet = {0}, class = {0}, addrs = {0};
    struct ifaddrs *list = NULL;
    if (getifaddrs(&list) < 0)
        list = NULL;
    for (struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        if (i->ifa_addr == NULL || i->ifa_netmask == NULL ||
            (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        struct netaddr a = {0};
        memcpy(&a.u.ss, i->ifa_addr,
               i->ifa_addr->sa_family == AF_INET ? sizeof a.u.in4 : sizeof a.u.in6);
        bool v4 = a.u.sa.sa_family == AF_INET;
        unsigned bits = mask_bits(i->ifa_netmask);
        char text[INET6_ADDRSTRLEN];
        network_add(&host, a, netaddr_is_loopback(&a) ? bits : v4 ? 32 : 128);
        network_add(&subnet, a, bits);
        network_add(&class, a, class_bits(&a, bits));
        sbuf_printf(&addrs, "%s%s", addrs.n > 0 ? " " : "", netaddr_text(&a, text));
    }
    if (list != NULL)
        freeifaddrs(list);
    fact_add(s, "system_networks_host", sbuf_take(&host));
    fact_add(s, "system_networks_subnet", sbuf_take(&subnet));
    fact_add(s, "system_networks_class", sbuf_take(&class));
    fact_add(s, "system_addresses", sbuf_take(&addrs));
}

struct cfg_source *cfg_source_new(const char *dir) {
    struct cfg_source *s = MEM_NEW(struct cfg_source);
    s->dir = mem_strdup(dir);
    s->may_read = true;
    fact_hostname(s);
    fact_networks(s);
    fact_add(s, "system_config_directory", mem_strdup(dir));
    /* Installed directories keep their spool in /var; any other directory is self-contained. */
    struct sbuf queue = {0};
    if (strncmp(dir, "/etc/", 5) == 0 || strncmp(dir, "/usr/local/etc/", 15) == 0)
        sbuf_add_c(&queue, "/var/spool/posthouse");
    else
        sbuf_printf(&queue, "%s/spool", dir);
    fact_add(s, "system_queue_directory", sbuf_take(&queue));
    struct sbuf data = {0};
    if (strncmp(dir, "/etc/", 5) == 0 || strncmp(dir, "/usr/local/etc/", 15) == 0)
        sbuf_add_c(&data, "/var/lib/posthouse");
    else
        sbuf_printf(&data, "%s/data", dir);
    fact_add(s, "system_data_directory", sbuf_take(&data));
    return s;
}

void cfg_source_free(struct cfg_source *s) {
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n_files; i++) {
        if (s->files[i]->text.p != NULL) /* may hold a private key */
            mem_wipe(s->files[i]->text.p, s->files[i]->text.n);
        sbuf_free(&s->files[i]->text);
        free(s->files[i]->path);
        free(s->files[i]);
    }
    for (size_t i = 0; i < s->n_facts; i++) {
        free(s->facts[i].name);
        free(s->facts[i].value);
    }
    free(s->files);
    free(s->facts);
    free(s->dir);
    free(s);
}

const char *cfg_source_dir(const struct cfg_source *s) {
    return s->dir;
}

static struct src_file *file_add(struct cfg_source *s, char *path) {
    struct src_file *f = MEM_NEW(struct src_file);
    f->path = path;
    s->files = mem_realloc(s->files, (s->n_files + 1) * sizeof(struct src_file *));
    s->files[s->n_files++] = f;
    return f;
}

static struct src_file *src_file_find(const struct cfg_source *s, const char *path) {
    for (size_t i = 0; i < s->n_files; i++)
        if (strcmp(s->files[i]->path, path) == 0)
            return s->files[i];
    return NULL;
}

static struct str src_file_text(const struct src_file *f, int *err) {
    *err = f == NULL ? -ENOENT : f->err;
    return f == NULL ? STR_LIT("") : sbuf_str(&f->text);
}

const char *cfg_source_why(int err) {
    return err == -EFBIG ? "it is larger than " FILE_MAX_TEXT
                           ", the most that a file of the configuration may have"
                         : strerror(-err);
}

struct str cfg_source_file(struct cfg_source *s, const char *path, int *err) {
    struct src_file *f = src_file_find(s, path);
    if (f == NULL && s->may_read) {
        f = file_add(s, mem_strdup(path));
        f->err = fs_read(path, &f->text, FILE_MAX);
        if (f->err < 0)
            sbuf_reset(&f->text);
    }
    return src_file_text(f, err);
}

/* Eight hexadecimal digits, a dot and a number. */
static int is_hashed(const struct dirent *e) {
    size_t n = strspn(e->d_name, "0123456789abcdef"), digits;
    if (n != 8 || e->d_name[8] != '.')
        return 0;
    digits = strspn(e->d_name + 9, "0123456789");
    return digits > 0 && e->d_name[9 + digits] == '\0';
}

static void folder_read(struct src_file *f, const char *path) {
    struct dirent **v = NULL;
    int n = scandir(path, &v, is_hashed, alphasort);
    f->err = n < 0 ? -errno : 0;
    for (int i = 0; i < n; i++) {
        struct sbuf one = {0}, text = {0};
        sbuf_printf(&one, "%s/%s", path, v[i]->d_name);
        if (f->text.n < FILE_MAX && fs_read(one.p, &text, FILE_MAX) == 0) {
            sbuf_add_str(&f->text, sbuf_str(&text));
            sbuf_add_ch(&f->text, '\n');
        }
        sbuf_free(&one);
        sbuf_free(&text);
        free(v[i]);
    }
    free(v);
}

struct str cfg_source_folder(struct cfg_source *s, const char *path, int *err) {
    struct sbuf name = {0};
    sbuf_printf(&name, "%s/*", path);
    struct src_file *f = src_file_find(s, name.p);
    if (f == NULL && s->may_read) {
        f = file_add(s, mem_strdup(name.p));
        folder_read(f, path);
    }
    sbuf_free(&name);
    return src_file_text(f, err);
}

void cfg_source_fact_add(struct cfg_source *s, const char *name, const char *value) {
    fact_add(s, name, mem_strdup(value));
}

const char *cfg_source_fact(const struct cfg_source *s, const char *name) {
    for (size_t i = 0; i < s->n_facts; i++)
        if (strcmp(s->facts[i].name, name) == 0)
            return s->facts[i].value;
    return NULL;
}

/* "yes", "no", or "unknown": what cannot be looked at. */
static const char *file_state(const char *path) {
    struct stat st;
    if (lstat(path, &st) == 0)
        return "yes";
    return errno == ENOENT || errno == ENOTDIR ? "no" : "unknown";
}

static const char *exists_fact(struct cfg_source *s, const char *path) {
    struct sbuf name = {0};
    sbuf_printf(&name, "exists %s", path);
    const char *known = cfg_source_fact(s, name.p);
    if (known == NULL && s->may_read) {
        fact_add(s, name.p, mem_strdup(file_state(path)));
        known = cfg_source_fact(s, name.p);
    }
    sbuf_free(&name);
    return known == NULL ? "no" : known;
}

bool cfg_source_exists(struct cfg_source *s, const char *path) {
    return strcmp(exists_fact(s, path), "yes") == 0;
}

bool cfg_source_may_exist(struct cfg_source *s, const char *path) {
    return strcmp(exists_fact(s, path), "no") != 0;
}

static bool src_file_same(const struct src_file *a, const struct src_file *b) {
    return strcmp(a->path, b->path) == 0 && a->err == b->err &&
           str_eq(sbuf_str(&a->text), sbuf_str(&b->text));
}

bool cfg_source_same(const struct cfg_source *a, const struct cfg_source *b) {
    if (a->n_files != b->n_files)
        return false;
    for (size_t i = 0; i < a->n_files; i++)
        if (!src_file_same(a->files[i], b->files[i]))
            return false;
    return true;
}

struct cfg_source *cfg_source_copy(const struct cfg_source *s) {
    struct cfg_source *copy = MEM_NEW(struct cfg_source);
    copy->dir = mem_strdup(s->dir);
    copy->may_read = s->may_read;
    for (size_t i = 0; i < s->n_facts; i++)
        fact_add(copy, s->facts[i].name, mem_strdup(s->facts[i].value));
    for (size_t i = 0; i < s->n_files; i++) {
        struct src_file *f = file_add(copy, mem_strdup(s->files[i]->path));
        f->err = s->files[i]->err;
        sbuf_add_str(&f->text, sbuf_str(&s->files[i]->text));
    }
    return copy;
}

/* May hold a private key. */
static void src_file_empty(struct src_file *f) {
    if (f->text.p != NULL)
        mem_wipe(f->text.p, f->text.n);
    sbuf_reset(&f->text);
}

/* The entry of a file, and that of a folder of the same path. */
static size_t src_entries(const struct cfg_source *s, const char *path, struct src_file **found) {
    struct sbuf folder = {0};
    size_t n = 0;
    sbuf_printf(&folder, "%s/*", path);
    for (size_t i = 0; i < s->n_files && n < 2; i++)
        if (strcmp(s->files[i]->path, path) == 0 || strcmp(s->files[i]->path, folder.p) == 0)
            found[n++] = s->files[i];
    sbuf_free(&folder);
    return n;
}

void cfg_source_again(struct cfg_source *s, const char *path) {
    struct src_file *found[2];
    for (size_t i = src_entries(s, path, found); i > 0; i--) {
        struct src_file *f = found[i - 1];
        src_file_empty(f);
        if (strcmp(f->path, path) != 0) {
            folder_read(f, path);
            continue;
        }
        f->err = fs_read(path, &f->text, FILE_MAX);
        if (f->err < 0)
            sbuf_reset(&f->text);
    }
}

void cfg_source_take(struct cfg_source *s, const struct cfg_source *from, const char *path) {
    struct src_file *found[2];
    for (size_t i = src_entries(s, path, found); i > 0; i--) {
        struct src_file *f = found[i - 1], *other = src_file_find(from, f->path);
        if (other == NULL)
            continue;
        src_file_empty(f);
        f->err = other->err;
        sbuf_add_str(&f->text, sbuf_str(&other->text));
    }
}

void cfg_source_keep(struct cfg_source *s, const char *name, struct sbuf *text) {
    struct src_file *f = src_file_find(s, name);
    if (f == NULL)
        f = file_add(s, mem_strdup(name));
    src_file_empty(f);
    sbuf_free(&f->text);
    f->text = *text;
    *text = (struct sbuf){0};
}

struct str cfg_source_kept(const struct cfg_source *s, const char *name) {
    const struct src_file *f = src_file_find(s, name);
    return f == NULL ? STR_LIT("") : sbuf_str(&f->text);
}

size_t cfg_source_size(const struct cfg_source *s) {
    size_t n = strlen(s->dir) + 3 * sizeof(uint32_t);
    for (size_t i = 0; i < s->n_facts; i++)
        n += strlen(s->facts[i].name) + strlen(s->facts[i].value) + 2 * sizeof(uint32_t);
    for (size_t i = 0; i < s->n_files; i++)
        n += strlen(s->files[i]->path) + s->files[i]->text.n + 3 * sizeof(uint32_t);
    return n;
}

const char *cfg_source_largest(const struct cfg_source *s, size_t *bytes) {
    const struct src_file *largest = NULL;
    for (size_t i = 0; i < s->n_files; i++)
        if (largest == NULL || s->files[i]->text.n > largest->text.n)
            largest = s->files[i];
    *bytes = largest == NULL ? 0 : largest->text.n;
    return largest == NULL ? NULL : largest->path;
}

void cfg_source_put(const struct cfg_source *s, struct sbuf *msg) {
    ipc_put_str(msg, str_of(s->dir));
    ipc_put_u32(msg, (uint32_t)s->n_facts);
    for (size_t i = 0; i < s->n_facts; i++) {
        ipc_put_str(msg, str_of(s->facts[i].name));
        ipc_put_str(msg, str_of(s->facts[i].value));
    }
    ipc_put_u32(msg, (uint32_t)s->n_files);
    for (size_t i = 0; i < s->n_files; i++) {
        ipc_put_str(msg, str_of(s->files[i]->path));
        ipc_put_u32(msg, (uint32_t)-s->files[i]->err);
        ipc_put_str(msg, sbuf_str(&s->files[i]->text));
    }
}

struct cfg_source *cfg_source_get(struct ipc_reader *r) {
    struct cfg_source *s = MEM_NEW(struct cfg_source);
    s->dir = str_dup(ipc_get_str(r));
    for (uint32_t n = ipc_get_u32(r); n > 0 && !r->bad; n--) {
        char *name = str_dup(ipc_get_str(r));
        fact_add(s, name, str_dup(ipc_get_str(r)));
        free(name);
    }
    for (uint32_t n = ipc_get_u32(r); n > 0 && !r->bad; n--) {
        struct src_file *f = file_add(s, str_dup(ipc_get_str(r)));
        f->err = -(int)(ipc_get_u32(r) & INT32_MAX);
        sbuf_add_str(&f->text, ipc_get_str(r));
    }
    return s;
}
