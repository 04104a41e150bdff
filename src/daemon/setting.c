/*
 * daemon/setting.c - how a line of the configuration is shown to people, and where it stands; see
 * setting.h
 *
 * Any thread; nothing is kept.
 */
#include "daemon/setting.h"

#include <string.h>

#include "config/secret.h"
#include "maps/maps.h"

void setting_show(const char *name, const char *value, struct sbuf *out) {
    enum secret_kind kind = secret_setting(name, value);
    if (kind == SECRET_INLINE)
        maps_show(value, out);
    else
        sbuf_add_c(out, kind == SECRET_VALUE && value[0] != '\0' ? "(hidden)" : value);
}

/* What it is called for a transport by LMTP. */
static const char *lmtp_name(const char *name) {
    const struct param_info *info = param_find(name, strlen(name));
    for (size_t i = param_count; info != NULL && i < param_total; i++)
        if (param_table[i].offset == info->offset)
            return param_table[i].name;
    return name;
}

struct setting_place setting_place(const struct config *cfg, const struct service *svc,
                                   const char *name) {
    struct setting_place at = {.name = name, .file = cfg->main.path};
    if (svc != NULL && svc->kind == SERVICE_LMTP)
        at.name = lmtp_name(name);
    const struct cfg_entry *e =
        svc == NULL ? NULL : cfg_file_find(&svc->overrides, str_of(at.name));
    if (e != NULL)
        at.file = svc->overrides.path;
    else
        e = cfg_file_find(&cfg->main, str_of(at.name));
    at.line = e == NULL ? 0 : e->line;
    return at;
}
