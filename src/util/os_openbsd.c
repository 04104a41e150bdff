/*
 * util/os_openbsd.c - OpenBSD; see os.h
 *
 * unveil(2) is the wall round the file system, pledge(2) the list of system calls.  A process does
 * not end with its parent by itself.
 */
#include "util/os_bsd.h"

#include <pthread.h>
#include <sys/socket.h>

#include "util/mem.h"

#define PROMISES_MOST 160

void os_end_with_parent(void) {}

void os_no_dumps(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
}

/* pledge(2) without "exec" is more. */
void os_no_new_rights(void) {}

bool os_program(char *path, size_t n) {
    path[n - 1] = '\0';
    return false;
}

unsigned os_thread(void) {
    return (unsigned)getthrid();
}

int os_memory_file(const char *name) {
    char path[] = "/tmp/posthouse-XXXXXXXXXX";
    (void)name;
    int fd = shm_mkstemp(path), kept = errno;
    if (fd < 0)
        return -kept;
    shm_unlink(path);
    return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : fd;
}

/* There is no bindat(2): the current directory is another for a moment, of one thread at a time. */
static int unix_at(int (*call)(int, const struct sockaddr *, socklen_t), int fd, int at,
                   const char *name) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strlcpy(a.sun_path, name, sizeof a.sun_path);
    pthread_mutex_lock(&lock);
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc =
        here < 0 || fchdir(at) < 0 || call(fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno : 0;
    if (here >= 0 && fchdir(here) < 0 && rc == 0)
        rc = -errno;
    if (here >= 0)
        close(here);
    pthread_mutex_unlock(&lock);
    return rc;
}

int os_bind_at(int fd, int at, const char *name) {
    return unix_at(bind, fd, at, name);
}

int os_connect_at(int fd, int at, const char *name) {
    return unix_at(connect, fd, at, name);
}

int os_socket_of(uid_t uid, int family, int type) {
    (void)uid;
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

int os_give(int fd, uid_t uid, gid_t gid) {
    return fchown(fd, uid, gid) < 0 ? -errno : 0;
}

int os_allocate(int fd, uint64_t size) {
    return allocate_by_writing(fd, size);
}

/* unveil(2) counts from its first call on: what is allowed before is kept until the wall stands. */
struct wall_rule {
    char *path;
    uint64_t rights;
};

static struct wall_rule *wall_rules;
static size_t wall_rules_n;

void os_wall_begin(struct os_wall *w) {
    w->set = 0;
    wall_rules_n = 0;
}

int os_wall_allow(struct os_wall *w, const char *path, uint64_t rights) {
    char *kept = realpath(path, NULL);
    (void)w;
    if (kept == NULL)
        return 0;
    wall_rules = mem_realloc(wall_rules, (wall_rules_n + 1) * sizeof *wall_rules);
    wall_rules[wall_rules_n++] = (struct wall_rule){kept, rights};
    return 0;
}

static int rule_unveil(const struct wall_rule *r) {
    char to[4], *p = to;
    if ((r->rights & (OS_READ_FILE | OS_READ_DIR)) != 0)
        *p++ = 'r';
    if ((r->rights & (OS_WRITE_FILE | OS_TRUNCATE)) != 0)
        *p++ = 'w';
    if ((r->rights & (OS_MAKE_FILE | OS_MAKE_DIR | OS_REMOVE_FILE | OS_MOVE)) != 0)
        *p++ = 'c';
    *p = '\0';
    return unveil(r->path, to) < 0 ? -errno : 0;
}

int os_wall_stand(struct os_wall *w) {
    int rc = 0;
    (void)w;
    for (size_t i = 0; i < wall_rules_n; i++) {
        int one = rule_unveil(&wall_rules[i]);
        rc = rc != 0 ? rc : one;
        free(wall_rules[i].path);
    }
    free(wall_rules);
    wall_rules = NULL;
    wall_rules_n = 0;
    return unveil(NULL, NULL) < 0 ? -errno : rc;
}

int os_calls_limit(unsigned kinds) {
    char promises[PROMISES_MOST];
    snprintf(promises, sizeof promises, "stdio rpath flock unix sendfd recvfd getpw%s%s%s",
             (kinds & OS_CALLS_FILES) != 0 ? " wpath cpath fattr" : "",
             (kinds & (OS_CALLS_NETWORK | OS_CALLS_LOOPS)) != 0 ? " inet dns" : "",
             (kinds & OS_CALLS_CHILDREN) != 0 ? " proc id" : "");
    return pledge(promises, NULL) < 0 ? -errno : 0;
}

const char *os_left_out(void) {
    return NULL;
}
