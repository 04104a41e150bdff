/* A table file with any content: opened, asked, listed. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"
#include "maps/map.h"

static int count(void *arg, struct str key, struct str value) {
    size_t *bytes = arg;
    for (size_t i = 0; i < key.n; i++) /* every byte can be read */
        *bytes += (unsigned char)key.p[i];
    for (size_t i = 0; i < value.n; i++)
        *bytes += (unsigned char)value.p[i];
    return *bytes > 1000000;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    static char name[100], path[120];
    static const char *const keys[] = {"a", "user@domain.com", "@domain.com", "", "key7"};
    fuzz_quiet();
    if (name[0] == '\0') {
        snprintf(name, sizeof name, FUZZ_MAP_TYPE ":/dev/shm/posthouse-fuzz-%d", getpid());
        bool db = strcmp(FUZZ_MAP_TYPE, "hash") == 0 || strcmp(FUZZ_MAP_TYPE, "btree") == 0;
        snprintf(path, sizeof path, "%s.%s", strchr(name, '/'), db ? "db" : FUZZ_MAP_TYPE);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    MUST(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
    struct map *m = map_open(name, "/");
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct sbuf value = {0};
        map_get(m, str_of(keys[i]), &value);
        sbuf_free(&value);
    }
    map_each(m, count, &bytes);
    map_close(m);
    unlink(path);
    static int lowest;
    int probe = dup(STDIN_FILENO); /* the lowest free descriptor: none was left open */
    MUST(lowest == 0 || probe <= lowest);
    lowest = probe;
    close(probe);
    return 0;
}
