/*
 * deliver/host.c - the host in use, and whether there are more
 *
 * Questions about a session's round that its stages share.  Nothing is changed.
 */
#include "deliver/session.h"

const struct target *session_target(const struct dsess *s) {
    return &s->targets[s->at];
}

bool session_uses_record(const struct dsess *s) {
    return s->rec.id != NULL && !session_target(s)->fallback;
}

bool session_is_lmtp(const struct dsess *s) {
    return s->svc->kind == SERVICE_LMTP;
}

const char *session_program(const struct dsess *s) {
    return session_is_lmtp(s) ? "lmtp" : "smtp";
}

bool session_wrapped(const struct dsess *s) {
    return s->p->smtp_tls_wrappermode || netaddr_port(&session_target(s)->addr) == 465;
}

bool session_reply_is_early(const struct dsess *s) {
    return s->reply_gone < s->out_total;
}

bool session_hop_is_over(const struct dsess *s) {
    int64_t limit = s->p->smtp_mx_session_limit;
    return limit > 0 && s->hop_sessions >= limit;
}

/* Mail for a content filter has none: it would go out without the filter. */
bool session_has_fallback(const struct dsess *s) {
    return !s->fallback_added && !s->filter && s->p->smtp_fallback_relay[0] != '\0';
}

bool session_more_hosts(const struct dsess *s) {
    struct str rest = s->hops_left, one;
    bool in_hop = s->at + 1 < s->n_targets || (s->mx != NULL && s->mx_at < s->n_mx);
    return (in_hop && !session_hop_is_over(s)) || nexthop_split(&rest, &one) ||
           session_has_fallback(s);
}

bool session_has_trait(const struct dsess *s, enum host_trait trait) {
    return host_trait_has(trait, &session_target(s)->addr, session_target(s)->dest);
}
