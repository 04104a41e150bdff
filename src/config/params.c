/*
 * config/params.c - the parameter table; see params.h
 */
#include "config/params.h"

#include <string.h>

const struct param_info param_table[] = {
#define PARAM(type, name, def, doc)                                                                \
    {#name, sizeof #name - 1, PARAM_##type, def, doc, offsetof(struct params, name)},
#include "config/params.def"
#undef PARAM
};

const size_t param_count = sizeof param_table / sizeof param_table[0];

const struct param_info *param_find(const char *name, size_t n) {
    for (size_t i = 0; i < param_count; i++)
        if (param_table[i].name_n == n && memcmp(param_table[i].name, name, n) == 0)
            return &param_table[i];
    return NULL;
}
