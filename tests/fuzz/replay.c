/*
 * A fuzz target without its fuzzer: gives it every file of the folders that are named, once.  For
 * builds with any compiler; what has been found so far is tried in seconds.
 */
#include <dirent.h>
#include <stdio.h>

#include "fuzz.h"
#include "util/fs.h"

#define FILE_MAX (16U << 20)

static int replay_file(const char *path) {
    struct sbuf b = {0};
    int rc = fs_read(path, &b, FILE_MAX);
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", path, strerror(-rc));
    else
        LLVMFuzzerTestOneInput((const uint8_t *)b.p, b.n);
    sbuf_free(&b);
    return rc;
}

int main(int argc, char **argv) {
    size_t n = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *e;
        if (dir == NULL) {
            perror(argv[i]);
            return 1;
        }
        while ((e = readdir(dir)) != NULL) {
            struct sbuf path = {0};
            sbuf_printf(&path, "%s/%s", argv[i], e->d_name);
            if (e->d_name[0] != '.' && replay_file(path.p) < 0)
                return 1;
            n += e->d_name[0] != '.';
            sbuf_free(&path);
        }
        closedir(dir);
    }
    printf("%zu inputs\n", n);
    return n == 0;
}
