/*
 * web/presets.c - the list of providers (accounts/presets.h) for the page; see relays.h
 */
#include "accounts/presets.h"
#include "web/relays.h"

void presets_list(struct req *r) {
    json_t *list = json_array();
    for (size_t i = 0; i < presets_n; i++)
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id", presets[i].id, "name",
                            presets[i].name, "hosts", presets[i].hosts, "tls", presets[i].tls,
                            "mechanisms", presets[i].mechanisms, "user", presets[i].user,
                            "password", presets[i].password, "note", presets[i].note));
    reply_data(r, list);
}
