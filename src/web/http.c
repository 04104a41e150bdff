/*
 * web/http.c - requests and replies; see http.h
 */
#include "web/http.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/net.h"
#include "web/crowd.h"
#include "web/guests.h"

#define IDLE_S 75U /* a client that does not read */
#define HEAD_S 10U /* between two pieces of a request, and between two requests */
#define BODY_S 60U /* from a request's head to the end of its body */

struct http {
    struct web *w;
    void (*dispatch)(struct req *r);
};

const char *req_query(struct req *r, const char *name) {
    const char *v = MHD_lookup_connection_value(r->conn, MHD_GET_ARGUMENT_KIND, name);
    return v == NULL ? "" : v;
}

const char *req_text(struct req *r, const char *name) {
    return json_string_value(json_object_get(r->in, name));
}

const char *req_header(struct req *r, const char *name) {
    return MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, name);
}

static bool refuse_number(struct req *r, const char *name, int64_t min, int64_t max) {
    reply_fail(r, MHD_HTTP_BAD_REQUEST, "%s is a whole number between %lld and %lld.", name,
               (long long)min, (long long)max);
    return false;
}

/* Digits and nothing else. */
static bool digits_within(const char *text, int64_t min, int64_t max, int64_t *v) {
    uint64_t n = 0;
    if (!str_u64(str_of(text), &n) || n > (uint64_t)max || (int64_t)n < min)
        return false;
    *v = (int64_t)n;
    return true;
}

bool req_number(struct req *r, const char *name, unsigned max, unsigned *v) {
    const char *text = MHD_lookup_connection_value(r->conn, MHD_GET_ARGUMENT_KIND, name);
    int64_t n = 0;
    if (text == NULL)
        return true;
    if (!digits_within(text, 1, max, &n))
        return refuse_number(r, name, 1, max);
    *v = (unsigned)n;
    return true;
}

bool req_integer(struct req *r, const char *name, int64_t min, int64_t max, int64_t *v) {
    json_t *o = json_object_get(r->in, name);
    if (o == NULL)
        return true;
    if (r->form && json_is_string(o) && digits_within(json_string_value(o), min, max, v))
        return true;
    if (!json_is_integer(o) || json_integer_value(o) < min || json_integer_value(o) > max)
        return refuse_number(r, name, min, max);
    *v = json_integer_value(o);
    return true;
}

bool req_wants_stream(struct req *r) {
    const char *accept = req_header(r, "Accept");
    return accept != NULL && strstr(accept, "text/event-stream") != NULL;
}

/* -- replies -- */

json_t *json_text(const char *s) {
    json_t *o = json_string(s);
    if (o != NULL)
        return o;
    struct sbuf b = {0}; /* not UTF-8: what is not ASCII shows as "?" */
    for (; *s != '\0'; s++)
        sbuf_add_ch(&b, (unsigned char)*s < 0x80 ? *s : '?');
    o = json_string(b.p);
    sbuf_free(&b);
    return o;
}

const char *json_member(json_t *o, const char *name) {
    const char *s = json_string_value(json_object_get(o, name));
    return s == NULL ? "" : s;
}

void reply_header(struct req *r, const char *name, const char *value) {
    MHD_add_response_header(r->reply, name, value);
}

static void set_reply(struct req *r, unsigned status, struct MHD_Response *reply,
                      const char *type) {
    if (r->reply != NULL)
        MHD_destroy_response(r->reply);
    r->reply = reply;
    r->reply_bytes = 0;
    r->status = status;
    reply_header(r, "Content-Type", type);
}

void reply_text(struct req *r, unsigned status, const char *type, struct str text) {
    set_reply(
        r, status,
        MHD_create_response_from_buffer(text.n, (void *)(uintptr_t)text.p, MHD_RESPMEM_MUST_COPY),
        type);
    r->reply_bytes = text.n;
    reply_header(r, "Cache-Control", "no-store");
}

void reply_json(struct req *r, unsigned status, json_t *o) {
    char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (text == NULL) {
        log_error("web", "%s %s: the reply is no JSON", r->method, r->path);
        status = MHD_HTTP_INTERNAL_SERVER_ERROR;
        text = mem_strdup("{\"_success\":false,\"_msg\":\"Internal error.\"}");
    }
    reply_text(r, status, "application/json", str_of(text));
    mem_wipe(text, strlen(text));
    free(text);
}

void reply_data(struct req *r, json_t *data) {
    reply_json(r, MHD_HTTP_OK, json_pack("{s:b, s:o}", "_success", 1, "_data", data));
}

void reply_ok(struct req *r) {
    reply_json(r, MHD_HTTP_OK, json_pack("{s:b}", "_success", 1));
}

void reply_fail(struct req *r, unsigned status, const char *fmt, ...) {
    struct sbuf b = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    reply_json(r, status, json_pack("{s:b, s:o}", "_success", 0, "_msg", json_text(b.p)));
    sbuf_free(&b);
}

void reply_store_failed(struct req *r, char *why) {
    log_warn("web", "accounts store: %s", why);
    reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE,
               "The accounts store does not answer: see the mail log of this server.");
    free(why);
}

/* -- streams -- */

struct stream {
    stream_fn next;
    void (*done)(void *arg);
    void *arg;
    struct sbuf out;
    bool over;
};

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max) {
    struct stream *s = cls;
    (void)pos;
    while (s->out.n == 0 && !s->over)
        s->over = !s->next(s->arg, &s->out);
    if (s->out.n == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    size_t n = s->out.n < max ? s->out.n : max;
    memcpy(buf, s->out.p, n);
    sbuf_drop(&s->out, n);
    return (ssize_t)n;
}

static void stream_free(void *cls) {
    struct stream *s = cls;
    if (s->done != NULL)
        s->done(s->arg);
    sbuf_free(&s->out);
    free(s);
}

void reply_stream(struct req *r, stream_fn next, void (*done)(void *arg), void *arg) {
    struct stream *s = MEM_NEW(struct stream);
    *s = (struct stream){.next = next, .done = done, .arg = arg};
    set_reply(
        r, MHD_HTTP_OK,
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, stream_read, s, stream_free),
        "text/event-stream");
    reply_header(r, "Cache-Control", "no-store");
    reply_header(r, "X-Accel-Buffering", "no"); /* nginx passes each event on at once */
}

/* -- requests -- */

static char *form_decode(struct str s) {
    struct sbuf b = {0};
    for (size_t i = 0; i < s.n; i++) {
        bool coded = s.p[i] == '%' && i + 2 < s.n && hex_digit(s.p[i + 1]) >= 0 &&
                     hex_digit(s.p[i + 2]) >= 0;
        char c = s.p[i] == '+' ? ' ' : s.p[i];
        if (coded) {
            c = (char)(hex_digit(s.p[i + 1]) << 4 | hex_digit(s.p[i + 2]));
            i += 2;
        }
        sbuf_add_ch(&b, c == '\0' ? '?' : c);
    }
    return sbuf_take(&b);
}

/* application/x-www-form-urlencoded, as iRedAdmin-Pro's API takes it. */
static json_t *form_parse(struct str body) {
    json_t *o = json_object();
    struct str one;
    while (str_split(&body, "&", &one)) {
        ptrdiff_t eq = str_chr(one, '=');
        char *name = form_decode(str_make(one.p, eq < 0 ? one.n : (size_t)eq));
        char *v = form_decode(eq < 0 ? STR_LIT("") : str_from(one, (size_t)eq + 1));
        json_object_set_new(o, name, json_text(v));
        mem_wipe(v, strlen(v));
        free(name);
        free(v);
    }
    return o;
}

/* Of JSON what stands in no text, of a form all: at least as many as there are values. */
static size_t body_parts(struct str body, bool form) {
    size_t n = 1;
    bool text = false;
    for (size_t i = 0; i < body.n; i++) {
        char c = body.p[i];
        if (text && c == '\\')
            i++;
        else if (c == '"' && !form)
            text = !text;
        else
            n += !text && (form ? c == '&' : c == ',' || c == '[' || c == '{');
    }
    return n;
}

/* False after a reply that says what is wrong with the body. */
static bool parse_body(struct req *r) {
    const char *type = req_header(r, "Content-Type");
    json_error_t err;
    r->form = type != NULL && strncmp(type, "application/x-www-form-urlencoded", 33) == 0;
    if (!r->too_big && body_parts(sbuf_str(&r->body), r->form) > BODY_PARTS) {
        reply_fail(r, MHD_HTTP_CONTENT_TOO_LARGE, "The body has more than %u parts.", BODY_PARTS);
        return false;
    }
    if (r->too_big) {
        reply_fail(r, MHD_HTTP_CONTENT_TOO_LARGE, "The body is larger than %u bytes.", BODY_MAX);
        return false;
    }
    if (r->body.n == 0)
        r->in = json_object();
    else if (r->form)
        r->in = form_parse(sbuf_str(&r->body));
    else
        r->in = json_loadb(r->body.p, r->body.n, JSON_REJECT_DUPLICATES, &err);
    sbuf_wipe(&r->body);
    if (json_is_object(r->in))
        return true;
    reply_fail(r, MHD_HTTP_BAD_REQUEST, "The body is neither a JSON object nor a form.");
    return false;
}

static enum MHD_Result take_forwarded(void *arg, enum MHD_ValueKind kind, const char *name,
                                      const char *value) {
    (void)kind;
    if (strcasecmp(name, "X-Forwarded-For") == 0 && value != NULL)
        *(const char **)arg = value;
    return MHD_YES;
}

/* The last such field, or NULL: a proxy may add one of its own behind what the client sent. */
static const char *forwarded_for(struct req *r) {
    const char *last = NULL;
    MHD_get_connection_values(r->conn, MHD_HEADER_KIND, take_forwarded, &last);
    return last;
}

/* The client's address: what the proxy on this machine says, else the peer's. */
static void find_client(struct req *r) {
    const char *by = forwarded_for(r), *proto = req_header(r, "X-Forwarded-Proto");
    struct netaddr peer, from;
    bool local = true; /* a unix socket */
    if (guest_peer(r->conn, &peer)) {
        netaddr_text(&peer, r->client);
        local = netaddr_is_loopback(&peer);
    }
    r->direct = by == NULL && proto == NULL;
    if (local && by != NULL) { /* the last one is the proxy's own word */
        struct str s = str_of(by);
        ptrdiff_t comma = str_rchr(s, ',');
        s = str_trim(comma < 0 ? s : str_from(s, (size_t)comma + 1));
        if (netaddr_parse(&from, s, 0)) {
            netaddr_unmap(&from);
            netaddr_text(&from, r->client);
        }
    }
    r->https = local && proto != NULL && strcmp(proto, "https") == 0;
}

static void add_security(struct req *r) {
    reply_header(r, "X-Content-Type-Options", "nosniff");
    reply_header(r, "X-Frame-Options", "DENY");
    reply_header(r, "Referrer-Policy", "no-referrer");
    reply_header(r, "Cross-Origin-Opener-Policy", "same-origin");
    reply_header(r, "Cross-Origin-Resource-Policy", "same-origin");
    reply_header(r, "Content-Security-Policy",
                 "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                 "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
                 "frame-ancestors 'none'");
}

static enum MHD_Result take_body(struct req *r, const char *data, size_t *n) {
    if (clock_mono_ms() - r->since_ms > BODY_S * 1000)
        return MHD_NO; /* which ends the connection */
    if (r->body.n + *n > BODY_MAX)
        r->too_big = true;
    else
        sbuf_add(&r->body, data, *n);
    *n = 0;
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **ctx) {
    struct http *h = cls;
    struct req *r = *ctx;
    (void)version;
    if (r == NULL) {
        r = MEM_NEW(struct req);
        *r = (struct req){.w = h->w, .conn = conn, .since_ms = clock_mono_ms()};
        *ctx = r;
        return MHD_YES;
    }
    r->method = strcmp(method, "HEAD") == 0 ? "GET" : method;
    r->path = url;
    if (*n > 0)
        return take_body(r, data, n);
    find_client(r);
    guest_keep(conn, true);
    if (parse_body(r))
        h->dispatch(r);
    guest_keep(conn, r->who.global);
    if (r->reply == NULL)
        reply_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "Internal error.");
    add_security(r);
    MHD_set_connection_option(conn, MHD_CONNECTION_OPTION_TIMEOUT, IDLE_S);
    return MHD_queue_response(conn, r->status, r->reply);
}

void who_free(struct who *who) {
    free(who->admin);
    free(who->domain);
    if (who->csrf != NULL)
        mem_wipe(who->csrf, strlen(who->csrf));
    free(who->csrf);
}

static void on_done(void *cls, struct MHD_Connection *conn, void **ctx,
                    enum MHD_RequestTerminationCode how) {
    struct req *r = *ctx;
    (void)cls;
    (void)how;
    MHD_set_connection_option(conn, MHD_CONNECTION_OPTION_TIMEOUT, HEAD_S);
    guest_keep(conn, false);
    if (r == NULL)
        return;
    if (r->reply != NULL)
        MHD_destroy_response(r->reply);
    if (r->counted > 0)
        crowd_taken(r->who.admin, r->counted);
    json_decref(r->in);
    sbuf_wipe(&r->body);
    free(r->arg);
    who_free(&r->who);
    free(r);
    *ctx = NULL;
}

static void on_panic(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

static void on_panic(void *cls, const char *fmt, va_list ap) {
    struct sbuf b = {0};
    (void)cls;
    sbuf_vprintf(&b, fmt, ap);
    log_warn("web", "http: %.*s", (int)strcspn(b.p, "\n"), b.p);
    sbuf_free(&b);
}

/* What is coded in a path or a query.  A NUL would end the text, and make another name of it. */
static size_t http_unescape(void *cls, struct MHD_Connection *conn, char *text) {
    size_t n = MHD_http_unescape(text);
    (void)cls;
    (void)conn;
    for (size_t i = 0; i < n; i++)
        if (text[i] == '\0')
            text[i] = '?';
    return n;
}

bool http_start(struct web *w, int fd, void (*dispatch)(struct req *r)) {
    static struct http h;
    h = (struct http){w, dispatch};
    struct MHD_Daemon *d = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL |
            MHD_USE_ERROR_LOG,
        0, NULL, NULL, on_request, &h, MHD_OPTION_EXTERNAL_LOGGER, on_panic, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, WEB_CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, HEAD_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)65536,
        MHD_OPTION_NOTIFY_COMPLETED, on_done, NULL, MHD_OPTION_UNESCAPE_CALLBACK, http_unescape,
        NULL, MHD_OPTION_NOTIFY_CONNECTION, guests_notify, NULL, MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)(512 * 1024), MHD_OPTION_END);
    return d != NULL;
}
