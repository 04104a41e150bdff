/* A btree table with any content. */
#define FUZZ_MAP_TYPE "btree"
#include "map_file.h"
