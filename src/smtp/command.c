/*
 * smtp/command.c - SMTP commands; see command.h
 */
#include "smtp/command.h"

static const struct {
    const char *upper;
    const char *lower;
} verbs[VERB_COUNT] = {
    [VERB_UNKNOWN] = {"UNKNOWN", "unknown"},
    [VERB_HELO] = {"HELO", "helo"},
    [VERB_EHLO] = {"EHLO", "ehlo"},
    [VERB_MAIL] = {"MAIL", "mail"},
    [VERB_RCPT] = {"RCPT", "rcpt"},
    [VERB_DATA] = {"DATA", "data"},
    [VERB_BDAT] = {"BDAT", "bdat"},
    [VERB_RSET] = {"RSET", "rset"},
    [VERB_NOOP] = {"NOOP", "noop"},
    [VERB_VRFY] = {"VRFY", "vrfy"},
    [VERB_ETRN] = {"ETRN", "etrn"},
    [VERB_AUTH] = {"AUTH", "auth"},
    [VERB_STARTTLS] = {"STARTTLS", "starttls"},
    [VERB_QUIT] = {"QUIT", "quit"},
    [VERB_XFORWARD] = {"XFORWARD", "xforward"},
};

enum smtp_verb smtp_verb_parse(struct str line, struct str *args) {
    size_t n = 0;
    line = str_trim(line);
    while (n < line.n && line.p[n] != ' ' && line.p[n] != '\t')
        n++;
    *args = str_trim(str_from(line, n));
    for (int v = VERB_HELO; v < VERB_COUNT; v++)
        if (str_ieq_c(str_make(line.p, n), verbs[v].upper))
            return (enum smtp_verb)v;
    return VERB_UNKNOWN;
}

const char *smtp_verb_name(enum smtp_verb v, bool upper) {
    return upper ? verbs[v].upper : verbs[v].lower;
}

bool smtp_param_next(struct str *rest, struct str *key, struct str *value) {
    struct str piece;
    if (!str_split(rest, " \t", &piece))
        return false;
    ptrdiff_t eq = str_chr(piece, '=');
    *key = eq < 0 ? piece : str_make(piece.p, (size_t)eq);
    *value = eq < 0 ? str_make(piece.p, 0) : str_from(piece, (size_t)eq + 1);
    return true;
}
