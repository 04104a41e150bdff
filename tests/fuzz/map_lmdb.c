/* A lmdb table with any content. */
#define FUZZ_MAP_TYPE "lmdb"
#include "map_file.h"
