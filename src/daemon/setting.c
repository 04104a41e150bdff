/*
 * daemon/setting.c - how a line of the configuration is shown to people; see setting.h
 *
 * Any thread; nothing is kept.
 */
#include "daemon/setting.h"

#include "config/secret.h"
#include "maps/maps.h"

void setting_show(const char *name, const char *value, struct sbuf *out) {
    enum secret_kind kind = secret_setting(name, value);
    if (kind == SECRET_INLINE)
        maps_show(value, out);
    else
        sbuf_add_c(out, kind == SECRET_VALUE && value[0] != '\0' ? "(hidden)" : value);
}
