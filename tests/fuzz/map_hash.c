/* A hash table with any content. */
#define FUZZ_MAP_TYPE "hash"
#include "map_file.h"
