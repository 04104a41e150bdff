/*
 * util/clock.c - time as text; see clock.h
 */
#include "util/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void clock_add_rfc5322(struct sbuf *b, int64_t wall_us) {
    static _Thread_local time_t last;
    static _Thread_local char text[64];
    time_t sec = (time_t)(wall_us / 1000000);
    if (sec != last || text[0] == '\0') {
        struct tm tm;
        localtime_r(&sec, &tm);
        strftime(text, sizeof text, "%a, %e %b %Y %H:%M:%S %z (%Z)", &tm);
        if (text[5] == ' ') /* Postfix writes the day without a leading blank */
            memmove(text + 5, text + 6, strlen(text + 6) + 1);
        last = sec;
    }
    sbuf_add_c(b, text);
}

void clock_add_stamp(struct sbuf *b, int64_t wall_us) {
    time_t sec = (time_t)(wall_us / 1000000);
    struct tm tm;
    char text[40];
    gmtime_r(&sec, &tm);
    strftime(text, sizeof text, "%Y%m%d%H%M%S", &tm);
    sbuf_add_c(b, text);
}

void clock_add_asctime(struct sbuf *b, int64_t wall_us) {
    time_t sec = (time_t)(wall_us / 1000000);
    struct tm tm;
    char text[40];
    localtime_r(&sec, &tm);
    strftime(text, sizeof text, "%a %b %e %H:%M:%S %Y", &tm);
    sbuf_add_c(b, text);
}

/* Postfix's format_tv(3) with two significant digits and two decimals. */
void clock_add_delay(struct sbuf *b, int64_t us) {
    if (us < 0)
        us = 0;
    int64_t unit = us >= 10000000 ? 1000000 : us >= 1000000 ? 100000 : 10000;
    uint64_t centi = (uint64_t)((us + unit / 2) / unit * unit / 10000);
    sbuf_add_u64(b, centi / 100);
    if (centi % 100 == 0)
        return;
    sbuf_add_ch(b, '.');
    sbuf_add_u64(b, centi / 10 % 10);
    if (centi % 10 != 0)
        sbuf_add_u64(b, centi % 10);
}
