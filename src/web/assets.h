/*
 * web/assets.h - the page's files, built into the program
 *
 * The table is made by scripts/embed.py from what Vite made of web/ (web/dist/assets.c).
 */
#ifndef PH_WEB_ASSETS_H
#define PH_WEB_ASSETS_H

#include "web/http.h"

struct asset {
    const char *path; /* "/assets/index-….js" */
    const char *type;
    const char *etag;
    const unsigned char *plain, *gzip;
    size_t plain_n, gzip_n;
    bool forever; /* its name changes with its content */
};

extern const struct asset assets[];
extern const size_t assets_n;

/* False: there is no such file. */
bool asset_reply(struct req *r, const char *path);

#endif
