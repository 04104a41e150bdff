/*
 * util/os.h - what differs between operating systems
 *
 * One file a system: os_linux.c (with the list of system calls in os_linux_calls.c), os_freebsd.c,
 * os_openbsd.c.  Nothing else in the product asks which system it is on.  Errors are negative
 * errno; -ENOSYS: this system or this build does not have it.
 */
#ifndef PH_UTIL_OS_H
#define PH_UTIL_OS_H

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Flags of open(2) for a descriptor that only stands for a place. */
#ifdef O_PATH
#define OS_O_PLACE O_PATH
#else
#define OS_O_PLACE (O_RDONLY | O_NONBLOCK)
#endif

/* -- processes -- */

/* The user of the process at the other end of a unix socket.  0 or negative errno. */
int os_peer_uid(int fd, uid_t *uid);
/* This process is killed when its parent ends.  Changing the user undoes it. */
void os_end_with_parent(void);
/* No core dump of this process, and none of the same user may trace it.  Changing the user undoes
 * the second. */
void os_no_dumps(void);
/* Nothing that this process executes gains rights. */
void os_no_new_rights(void);
/* What lists of processes show; at most 15 bytes of it. */
void os_title(const char *name);
/* This process is from now on the user's alone.  keep_read: with the right to read what only root
 * may read, where the system has such a right.  errno is set when it returns less than 0. */
int os_become(uid_t uid, gid_t gid, bool keep_read);
/* Root gives up all but reading and writing any file and becoming another user. */
int os_root_keeps_files(void);
/* The program's own file, as a path; false: it cannot be told. */
bool os_program(char *path, size_t n);
/* A number that no other thread of the system has. */
unsigned os_thread(void);

/* -- descriptors -- */

/* A socket, closed at exec, that belongs to the user as far as sharing its port is concerned: no
 * other user's socket can be bound to that port, where the system asks for the same user
 * (SO_REUSEPORT on Linux).  A descriptor or negative errno. */
int os_socket_of(uid_t uid, int family, int type);
/* Signals of mask, which are blocked, as a descriptor to poll: to be opened once in a process.
 * Negative errno. */
int os_signals_open(const sigset_t *mask);
/* The signal that came; 0: none did. */
int os_signals_next(int fd);
/* A descriptor that can be read after os_wake_send was called with to (which may be the same
 * descriptor).  Both do not block. */
int os_wake_open(int *to);
/* It can be read no more, however often os_wake_send was called. */
void os_wake_clear(int fd);
void os_wake_send(int to);
/* A file in memory, without a name in any folder; name is for people. */
int os_memory_file(const char *name);
/* Binds or connects a unix socket to name in the folder at, without following a link in its place.
 */
int os_bind_at(int fd, int at, const char *name);
int os_connect_at(int fd, int at, const char *name);
/* The owner of what a descriptor of OS_O_PLACE stands for. */
int os_give(int fd, uid_t uid, gid_t gid);
/* Disk space for the first size bytes; the file is then at least that long. */
int os_allocate(int fd, uint64_t size);
/* n bytes, 256 at most, of the kernel's chance.  wait: also for its start.  False: there is none.
 */
bool os_random(void *p, size_t n, bool wait);

/* -- walls -- */

/* Of the file system. */
enum os_right {
    OS_WRITE_FILE = 1 << 1,
    OS_READ_FILE = 1 << 2,
    OS_READ_DIR = 1 << 3,
    OS_REMOVE_FILE = 1 << 5,
    OS_MAKE_DIR = 1 << 7,
    OS_MAKE_FILE = 1 << 8,
    OS_MOVE = 1 << 13, /* a name from one directory to another */
    OS_TRUNCATE = 1 << 14
};

/* A wall that is being built: what remains of the file system. */
struct os_wall {
    int set; /* negative: there will be none */
};

void os_wall_begin(struct os_wall *w);
/* What lies below path keeps these rights; what does not exist needs none. */
int os_wall_allow(struct os_wall *w, const char *path, uint64_t rights);
/* From here on the process has no more than what was allowed. */
int os_wall_stand(struct os_wall *w);

enum os_calls {
    OS_CALLS_FILES = 1,    /* to write, make and remove files: which ones is the wall's part */
    OS_CALLS_LOOPS = 2,    /* to serve: to poll, to accept, to wait for signals */
    OS_CALLS_NETWORK = 4,  /* sockets of the Internet families, not only those it was handed */
    OS_CALLS_CHILDREN = 8, /* to fork, and to change user and walls in the child */
};

/* From here on every system call that kinds (of enum os_calls) do not need is refused, in this
 * thread and those that it starts. */
int os_calls_limit(unsigned kinds);

/* What of all this the build lacks, for people: "seccomp, Landlock"; NULL: nothing. */
const char *os_left_out(void);

#endif
