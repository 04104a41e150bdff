/*
 * tests/wire/filters.c - tables that change what relay hosts and name servers say; see filters.h
 */
#include "filters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

#define REPLIES "replies"
#define RESULTS "results"
#define RECORDS "records"

/* The number in the last "w17" of a text; 0: there is none. */
static unsigned filters_token(const char *text) {
    unsigned token = 0, n;
    for (const char *p = text; (p = strstr(p, " w")) != NULL; p += 2)
        if (sscanf(p, " w%u", &n) == 1)
            token = n;
    return token;
}

/* What becomes of a first digit; 0: nothing. */
static char filters_digit(const struct scene *s, char digit) {
    if (digit == '5' && (s->filters & FILTER_SOFTENS) != 0)
        return '4';
    return digit == '4' && (s->filters & FILTER_HARDENS) != 0 ? '5' : '\0';
}

/* A line of a reply: 45x or 55x, with its enhanced code. */
static char *filters_reply(void *arg, const char *line) {
    const struct scene *s = arg;
    char digit = filters_digit(s, line[0]);
    unsigned token = filters_token(line);
    if (strlen(line) < 4 || line[1] != '5' || digit == '\0')
        return NULL;
    char *changed = bytes_copy(line, strlen(line));
    if (changed[4] == changed[0] && changed[5] == '.')
        changed[4] = digit;
    changed[0] = digit;
    ledger_restated(s->ledger, token, atoi(changed));
    return changed;
}

/* "5.1.1 host … said: … (in reply to RCPT TO command)" */
static char *filters_result(void *arg, const char *line) {
    const struct scene *s = arg;
    char digit = filters_digit(s, line[0]);
    unsigned token = filters_token(line);
    bool of_mail = strstr(line, "in reply to RCPT TO") != NULL ||
                   strstr(line, "in reply to MAIL FROM") != NULL;
    if (digit == '\0' || token == 0 || !of_mail)
        return NULL;
    char *changed = bytes_copy(line, strlen(line));
    changed[0] = digit;
    ledger_restated(s->ledger, token, (digit - '0') * 100 + 50);
    return changed;
}

static char *filters_record(void *arg, const char *record) {
    (void)arg;
    return strstr(record, " IN A 10.2.0.2") != NULL ? bytes_copy("IGNORE", 6) : NULL;
}

void filters_configure(struct scene *s, unsigned filters) {
    static const unsigned codes = FILTER_SOFTENS | FILTER_HARDENS;
    bool results = (filters & FILTER_RESULTS) != 0;
    s->filters = filters;
    if ((filters & codes) != 0)
        wire_main_cf(s->world, results ? "smtp_delivery_status_filter = hash:" RESULTS "\n"
                                       : "smtp_reply_filter = hash:" REPLIES "\n");
    if ((filters & FILTER_RECORDS) != 0)
        wire_main_cf(s->world, "smtp_dns_reply_filter = hash:" RECORDS "\n");
    wire_table_made(s->world, REPLIES, filters_reply, s);
    wire_table_made(s->world, RESULTS, filters_result, s);
    wire_table_made(s->world, RECORDS, filters_record, s);
}

const char *filters_table(const struct scene *s) {
    return (s->filters & FILTER_RECORDS) != 0   ? RECORDS
           : (s->filters & FILTER_RESULTS) != 0 ? RESULTS
                                                : REPLIES;
}
