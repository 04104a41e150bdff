/*
 * config/params.h - the parameters of one service, typed
 *
 * Made from params.def.  A struct params is filled once when a snapshot is built and is read-only
 * from then on: any thread may read it while it holds the snapshot.
 */
#ifndef PH_CONFIG_PARAMS_H
#define PH_CONFIG_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum param_type { PARAM_STR, PARAM_BOOL, PARAM_INT, PARAM_TIME_S, PARAM_TIME_H, PARAM_TIME_D };

#define PARAM_FIELD_STR    const char *
#define PARAM_FIELD_BOOL   bool
#define PARAM_FIELD_INT    int64_t
#define PARAM_FIELD_TIME_S int64_t /* all times are in seconds */
#define PARAM_FIELD_TIME_H int64_t
#define PARAM_FIELD_TIME_D int64_t

struct params {
#define PARAM(type, name, def, doc) PARAM_FIELD_##type name;
#include "config/params.def"
#undef PARAM
};

struct param_info {
    const char *name;
    size_t name_n; /* bytes of name: a snapshot looks up names by the thousand */
    enum param_type type;
    const char *def;
    const char *doc;
    size_t offset; /* in struct params */
    bool lmtp;     /* of transports by LMTP alone: see lmtp.def */
};

/* The parameters, each with a member of its own, and behind them those of transports by LMTP. */
extern const struct param_info param_table[];
extern const size_t param_count; /* without those */
extern const size_t param_total; /* with them */

/* The text parameter at that offset in struct params. */
static inline const char *params_text_at(const struct params *p, size_t offset) {
    return *(const char *const *)(const void *)((const char *)p + offset);
}

/* The smallest number, or time in seconds, that the parameter may be, and the largest number. */
int64_t param_least(const struct param_info *info);
int64_t param_most(const struct param_info *info);

/* What Postfix's queue manager reads of each transport, as "<transport><suffix>".  Where nothing
 * sets it, "$default<suffix>" counts. */
struct transport_param {
    const char *suffix;
    enum param_type type;
    bool read; /* false: it is refused */
};

/* The row of a name that ends so; NULL: there is none. */
const struct transport_param *transport_param_find(const char *name);

/* NULL if there is no such parameter. */
const struct param_info *param_find(const char *name, size_t n);

#endif
