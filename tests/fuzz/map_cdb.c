/* A cdb table with any content. */
#define FUZZ_MAP_TYPE "cdb"
#include "map_file.h"
