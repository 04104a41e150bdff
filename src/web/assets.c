/*
 * web/assets.c - the page's files; see assets.h
 */
#include "web/assets.h"

#include <string.h>

static bool takes_gzip(struct req *r) {
    const char *accept = req_header(r, "Accept-Encoding");
    return accept != NULL && strstr(accept, "gzip") != NULL;
}

static void reply_asset(struct req *r, const struct asset *a) {
    const char *have = req_header(r, "If-None-Match");
    bool same = have != NULL && strcmp(have, a->etag) == 0, gzip = takes_gzip(r);
    size_t n = same ? 0 : gzip ? a->gzip_n : a->plain_n;
    r->reply = MHD_create_response_from_buffer(n, (void *)(uintptr_t)(gzip ? a->gzip : a->plain),
                                               MHD_RESPMEM_PERSISTENT);
    r->status = same ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK;
    reply_header(r, "Content-Type", a->type);
    if (gzip && !same)
        reply_header(r, "Content-Encoding", "gzip");
    reply_header(r, "Vary", "Accept-Encoding");
    reply_header(r, "ETag", a->etag);
    reply_header(r, "Cache-Control",
                 a->forever ? "public, max-age=31536000, immutable" : "no-cache");
}

bool asset_reply(struct req *r, const char *path) {
    for (size_t i = 0; i < assets_n; i++)
        if (strcmp(assets[i].path, path) == 0) {
            reply_asset(r, &assets[i]);
            return true;
        }
    return false;
}
