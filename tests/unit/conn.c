/* util/conn.h: each promise of its head, on real sockets. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/conn.h"
#include "util/mem.h"
#include "util/tls.h"

static struct loop *loop;

/* An owner that notes what it is told, and does what the test wants then. */
struct owner {
    struct conn *conn;
    struct sbuf got;    /* bytes used, and a letter for each event: C T D E(nd) O(ut of time) */
    bool busy;          /* a conn_* function is running: nothing may call */
    unsigned calls;     /* of input and event */
    size_t use;         /* bytes to use a call; 0: all */
    bool pauses;        /* pauses in each input */
    bool resumes;       /* ... and resumes */
    size_t answer;      /* bytes to write a call of input */
    bool quits;         /* closes itself and frees what arg points to, in each call */
    struct owner *kill; /* closes that one in each event */
};

static void owner_called(struct owner *o) {
    assert_false(o->busy);
    o->calls++;
}

static bool owner_quits(struct owner *o) {
    if (!o->quits)
        return false;
    conn_close(o->conn);
    sbuf_free(&o->got);
    memset(o, 0xa5, sizeof *o);
    free(o);
    return true;
}

static size_t owner_input(void *arg, const char *p, size_t n) {
    struct owner *o = arg;
    char fill[2000];
    size_t used = o->use == 0 || o->use > n ? n : o->use;
    owner_called(o);
    sbuf_add(&o->got, p, used);
    if (o->pauses)
        conn_pause(o->conn);
    if (o->resumes)
        conn_resume(o->conn);
    memset(fill, 'a', sizeof fill);
    if (o->answer > 0)
        conn_write(o->conn, fill, o->answer);
    owner_quits(o);
    return used;
}

static void owner_event(void *arg, enum conn_event ev) {
    struct owner *o = arg;
    owner_called(o);
    sbuf_add_ch(&o->got, "?CTDEO"[ev]);
    if (o->kill != NULL && o->kill->conn != NULL) {
        conn_close(o->kill->conn);
        o->kill->conn = NULL;
    }
    owner_quits(o);
}

static const struct conn_ops asks = {.input = owner_input, .event = owner_event};
static const struct conn_ops answers = {
    .input = owner_input, .event = owner_event, .answers = true};

/* conn_* as the owner calls it: no callback may come meanwhile. */
#define CALL(o, what)                                                                              \
    do {                                                                                           \
        (o)->busy = true;                                                                          \
        what;                                                                                      \
        (o)->busy = false;                                                                         \
    } while (0)

static void turns(unsigned n) {
    for (unsigned i = 0; i < n; i++)
        uv_run(&loop->uv, UV_RUN_NOWAIT);
}

static void until_called(const struct owner *o, unsigned calls) {
    while (o->calls < calls)
        uv_run(&loop->uv, UV_RUN_ONCE);
}

static void until_got(struct owner *o, const char *want) {
    while (o->got.n < strlen(want))
        uv_run(&loop->uv, UV_RUN_ONCE);
    assert_str(sbuf_str(&o->got), want);
}

/* An owner on one end of a pair; the other end is returned and does not block. */
static int owner_pair(struct owner *o, const struct conn_ops *ops) {
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    o->conn = conn_new(loop, fd[0], ops, o);
    assert_non_null(o->conn);
    return fd[1];
}

static int listen_tcp(struct netaddr *a) {
    socklen_t len = sizeof a->u;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(netaddr_parse(a, str_of("127.0.0.1"), 0));
    assert_int_equal(bind(fd, &a->u.sa, netaddr_len(a)), 0);
    assert_int_equal(listen(fd, 8), 0);
    getsockname(fd, &a->u.sa, &len);
    return fd;
}

/* The same over TCP, where a peer can reset. */
static int owner_tcp(struct owner *o, const struct conn_ops *ops) {
    struct netaddr a;
    int err = 0, listener = listen_tcp(&a);
    CALL(o, o->conn = conn_connect(loop, &a, NULL, ops, o, &err));
    assert_non_null(o->conn);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    close(listener);
    until_got(o, "C");
    return fd;
}

static void peer_reset(int fd) {
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static void owner_end(struct owner *o) {
    if (o->conn != NULL)
        CALL(o, conn_close(o->conn));
    turns(2);
    sbuf_free(&o->got);
}

/* Reads until the end; how much there was. */
static size_t peer_drain(int fd) {
    char buf[65536];
    size_t n = 0;
    for (;;) {
        ssize_t got = read(fd, buf, sizeof buf);
        if (got == 0)
            return n;
        if (got > 0)
            n += (size_t)got;
        else
            uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
}

static void say(int fd, const char *text) {
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void test_failed_write(void **state) {
    struct owner o = {0};
    (void)state;
    close(owner_pair(&o, &asks)); /* SIGPIPE would end this program */
    CALL(&o, conn_write_c(o.conn, "x"));
    CALL(&o, conn_printf(o.conn, "%d", 1));
    assert_int_equal(o.calls, 0);
    until_got(&o, "E");
    CALL(&o, conn_write_c(o.conn, "dropped"));
    assert_int_equal(conn_pending(o.conn), 0);
    turns(5);
    assert_int_equal(o.calls, 1);
    assert_int_equal(conn_error(o.conn), -EPIPE);
    owner_end(&o);
}

static void test_kept_input(void **state) {
    struct owner o = {.pauses = true, .use = 2};
    (void)state;
    int fd = owner_pair(&o, &asks);
    say(fd, "abcdef");
    until_got(&o, "ab");
    turns(3);
    assert_int_equal(o.calls, 1);
    say(fd, "gh");
    CALL(&o, conn_resume(o.conn));
    assert_int_equal(o.calls, 1);
    until_got(&o, "abcd");
    o.resumes = true; /* inside input: it goes on there, without nesting */
    CALL(&o, conn_resume(o.conn));
    until_got(&o, "abcdefgh");
    assert_int_equal(o.calls, 4);
    close(fd);
    until_got(&o, "abcdefghE");
    owner_end(&o);
}

/* A half line is offered again with what follows it, and the end comes behind everything. */
static void test_order_at_the_end(void **state) {
    struct owner o = {.pauses = true, .use = 3};
    (void)state;
    int fd = owner_pair(&o, &asks);
    say(fd, "onetwo");
    until_got(&o, "one");
    say(fd, "end");
    close(fd);
    turns(3);
    o.pauses = false;
    CALL(&o, conn_resume(o.conn));
    until_got(&o, "onetwoendE");
    assert_int_equal(conn_error(o.conn), 0);
    owner_end(&o);
}

static void test_reset(void **state) {
    struct owner o = {0}, paused = {.pauses = true, .use = 1};
    (void)state;
    int fd = owner_tcp(&o, &asks);
    say(fd, "last words");
    peer_reset(fd);
    until_got(&o, "Clast wordsE");
    assert_int_equal(conn_error(o.conn), -ECONNRESET);
    owner_end(&o);
    fd = owner_tcp(&paused, &asks);
    say(fd, "xy");
    until_got(&paused, "Cx");
    peer_reset(fd);
    until_got(&paused, "CxE"); /* an error is told to a paused owner, too */
    turns(5);
    assert_int_equal(paused.calls, 3);
    owner_end(&paused);
}

/* The owner is told what was answered before writing failed; what is pending is not called
 * sent. */
static void test_answer_before_failed_write(void **state) {
    struct owner o = {0}, slow = {.use = 3}, answerer = {0};
    static char big[3000000];
    (void)state;
    int fd = owner_tcp(&o, &asks);
    CALL(&o, conn_write_c(o.conn, "question"));
    until_got(&o, "CD");
    say(fd, "answer");
    peer_reset(fd); /* before the loop looks at the descriptor */
    CALL(&o, conn_write(o.conn, big, sizeof big));
    until_got(&o, "CDanswerE");
    assert_int_not_equal(conn_error(o.conn), 0);
    assert_int_equal(conn_pending(o.conn), 0);
    turns(3);
    assert_int_equal(o.calls, 4);
    owner_end(&o);
    fd = owner_tcp(&slow, &asks);
    say(fd, "abcdefgh");
    close(fd);
    CALL(&slow, conn_write(slow.conn, big, sizeof big));
    until_got(&slow, "CabcdefghE");
    owner_end(&slow);
    fd = owner_tcp(&answerer, &answers); /* it could not say what it did */
    say(fd, "do it");
    peer_reset(fd);
    CALL(&answerer, conn_write(answerer.conn, big, sizeof big));
    until_got(&answerer, "CE");
    owner_end(&answerer);
}

static void test_connect(void **state) {
    struct owner o = {0};
    struct netaddr a;
    int err = 0, listener = listen_tcp(&a);
    (void)state;
    close(listener);
    CALL(&o, o.conn = conn_connect(loop, &a, NULL, &asks, &o, &err));
    assert_int_equal(o.calls, 0);
    until_got(&o, "E");
    assert_int_equal(conn_error(o.conn), -ECONNREFUSED);
    owner_end(&o);
    listener = listen_tcp(&a); /* what is written too early waits */
    o = (struct owner){0};
    CALL(&o, o.conn = conn_connect(loop, &a, NULL, &asks, &o, &err));
    CALL(&o, conn_write_c(o.conn, "early"));
    until_got(&o, "CD");
    owner_end(&o);
    close(listener);
}

/* The owner is gone with the call; what it wrote still arrives. */
static void test_detach(void **state) {
    struct owner *o = MEM_NEW(struct owner);
    static char big[3000000];
    (void)state;
    int fd = owner_pair(o, &answers);
    say(fd, "unread");
    CALL(o, conn_deadline(o->conn, 1));
    CALL(o, conn_write(o->conn, big, sizeof big));
    CALL(o, conn_close_after_write(o->conn));
    assert_int_equal(o->calls, 0);
    memset(o, 0xa5, sizeof *o);
    free(o);
    turns(10);
    say(fd, "more");
    assert_int_equal(peer_drain(fd), sizeof big);
    close(fd);
}

/* The last reply, and then the end: no reset, which could take the reply away. */
static void assert_bye(int fd) {
    char said[64] = "";
    size_t n = 0;
    ssize_t got = -1;
    while (got != 0) {
        got = read(fd, said + n, sizeof said - 1 - n);
        assert_true(got >= 0 || errno == EAGAIN);
        n += got > 0 ? (size_t)got : 0;
        if (got < 0)
            uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
    assert_string_equal(said, "bye");
}

/* A peer that goes on talking hears the last reply: input is unread in the kernel, or was read and
 * kept, or comes later. */
static void test_detach_from_a_talker(void **state) {
    (void)state;
    static char much[500000];
    for (int kind = 0; kind < 4; kind++) {
        struct owner o = {.pauses = kind == 1, .use = kind == 1 ? 3 : 0};
        int fd = owner_pair(&o, &answers);
        if (kind == 1 || kind == 2)
            CALL(&o, conn_pause(o.conn));
        say(fd, "hello and more");
        if (kind == 1) {
            CALL(&o, conn_resume(o.conn));
            until_called(&o, 1);
        }
        CALL(&o, conn_write_c(o.conn, "bye"));
        CALL(&o, conn_close_after_write(o.conn));
        turns(3);
        if (kind == 3)
            assert_true(send(fd, much, sizeof much, MSG_NOSIGNAL) > 0);
        else
            say(fd, "and on");
        assert_bye(fd);
        assert_int_equal(loop->n_last, 1);
        close(fd);
        while (loop->n_last > 0)
            uv_run(&loop->uv, UV_RUN_ONCE);
        sbuf_free(&o.got);
    }
    struct owner quiet = {0}; /* one that does not is not waited for */
    int fd = owner_pair(&quiet, &answers);
    CALL(&quiet, conn_write_c(quiet.conn, "bye"));
    CALL(&quiet, conn_close_after_write(quiet.conn));
    turns(3);
    assert_int_equal(loop->n_last, 0);
    assert_bye(fd);
    close(fd);
}

static void test_detach_at_once(void **state) {
    struct owner o = {0}, ended = {0};
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    (void)state;
    int fd = owner_pair(&o, &asks); /* in a handshake nothing can be written */
    CALL(&o, conn_tls(o.conn, SSL_new(ctx), true));
    turns(2);
    CALL(&o, conn_write_c(o.conn, "421 too late"));
    CALL(&o, conn_close_after_write(o.conn));
    assert_int_equal(peer_drain(fd), 0);
    assert_int_equal(o.calls, 0);
    close(fd);
    fd = owner_pair(&ended, &asks); /* the peer has ended its side, but it still reads */
    shutdown(fd, SHUT_WR);
    until_got(&ended, "E");
    CALL(&ended, conn_write_c(ended.conn, "bye"));
    CALL(&ended, conn_close_after_write(ended.conn));
    assert_int_equal(peer_drain(fd), 3);
    close(fd);
    sbuf_free(&ended.got);
    SSL_CTX_free(ctx);
}

/* A handler may close any connection, in whichever order the deadlines pass. */
static void test_deadlines(void **state) {
    struct owner o[6] = {0};
    unsigned calls = 0;
    int fd[6];
    (void)state;
    for (int i = 0; i < 6; i++) {
        fd[i] = owner_pair(&o[i], &asks);
        conn_deadline(o[i].conn, 1);
        o[i].kill = &o[(i + 1) % 6]; /* its neighbour */
    }
    while (calls < 3) {
        uv_run(&loop->uv, UV_RUN_ONCE);
        calls = 0;
        for (int i = 0; i < 6; i++)
            calls += o[i].calls;
    }
    turns(5);
    assert_int_equal(calls, 3);
    for (int i = 0; i < 6; i++) {
        assert_true(o[i].calls == 0 || (o[i].calls == 1 && o[i].got.p[0] == 'O'));
        owner_end(&o[i]);
        close(fd[i]);
    }
}

static void test_owner_frees_itself(void **state) {
    (void)state;
    for (int way = 0; way < 4; way++) {
        struct owner *o = MEM_NEW(struct owner);
        o->quits = true;
        o->use = 1;
        int fd = owner_pair(o, &asks);
        if (way == 0)
            say(fd, "input");
        else if (way == 1)
            shutdown(fd, SHUT_WR);
        else if (way == 2)
            conn_write_c(o->conn, "drained");
        else
            conn_deadline(o->conn, 1);
        peer_drain(fd); /* until the owner has closed */
        close(fd);
    }
}

/* A peer that asks and does not read. */
static void test_output_is_bounded(void **state) {
    struct owner o = {.answer = 1000, .use = 1}, free_one = {.answer = 1000, .use = 1};
    char ask[2000];
    size_t most = 0, got = 0;
    char buf[4096];
    (void)state;
    int fd = owner_pair(&o, &answers), other = owner_pair(&free_one, &asks);
    memset(ask, 'x', sizeof ask);
    assert_int_equal(write(fd, ask, sizeof ask), sizeof ask);
    assert_int_equal(write(other, ask, sizeof ask), sizeof ask);
    until_called(&free_one, sizeof ask); /* one that bounds itself is offered everything */
    turns(20);
    assert_true(conn_pending(o.conn) > CONN_OUT_MAX);
    assert_true(conn_pending(o.conn) <= CONN_OUT_MAX + 1000);
    unsigned calls = o.calls;
    turns(20);
    assert_true(o.calls == calls && calls < sizeof ask);
    while (got < sizeof ask * 1000) { /* it reads after all, slowly */
        ssize_t n = read(fd, buf, sizeof buf);
        if (n > 0)
            got += (size_t)n;
        turns(1);
        most = conn_out(o.conn)->cap > most ? conn_out(o.conn)->cap : most;
    }
    assert_true(most <= CONN_OUT_MAX * 8);
    size_t drained = 0;
    for (size_t i = 0; i < o.got.n; i++)
        drained += o.got.p[i] == 'D';
    assert_int_equal(o.got.n - drained, sizeof ask);
    owner_end(&o);
    owner_end(&free_one);
    close(fd);
    close(other);
}

/* -- TLS -- */

static SSL_CTX *server_ctx(void) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_sign(cert, key, EVP_sha256());
    assert_int_equal(SSL_CTX_use_certificate(ctx, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(ctx, key), 1);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    X509_free(cert);
    EVP_PKEY_free(key);
    return ctx;
}

/* Two owners on one socket pair. */
static void owner_couple(struct owner *a, struct owner *b) {
    int fd = owner_pair(a, &asks);
    b->conn = conn_new(loop, fd, &answers, b);
    assert_non_null(b->conn);
}

static void test_tls(void **state) {
    struct owner client = {0}, server = {0};
    SSL_CTX *sctx = server_ctx(), *cctx = SSL_CTX_new(TLS_client_method());
    (void)state;
    owner_couple(&client, &server);
    CALL(&server, conn_write_c(server.conn, "220 go")); /* in clear, and all of it before TLS */
    CALL(&server, conn_tls(server.conn, SSL_new(sctx), true));
    CALL(&server, conn_write_c(server.conn, "inside"));
    assert_int_equal(server.calls, 0);
    until_got(&client, "220 go");
    CALL(&client, conn_tls(client.conn, SSL_new(cctx), false));
    assert_int_equal(client.calls, 1);
    CALL(&client, conn_write_c(client.conn, "hello"));
    while (client.got.n < 14 || server.got.n < 7)
        uv_run(&loop->uv, UV_RUN_ONCE);
    assert_memory_equal(client.got.p, "220 goT", 7);
    assert_non_null(strstr(client.got.p, "inside"));
    assert_true(server.got.p[0] == 'T');
    assert_non_null(strstr(server.got.p, "hello"));
    owner_end(&client);
    while (server.got.p[server.got.n - 1] != 'E')
        uv_run(&loop->uv, UV_RUN_ONCE);
    assert_int_equal(conn_error(server.conn), 0);
    owner_end(&server);
    SSL_CTX_free(sctx);
    SSL_CTX_free(cctx);
}

/* Commands sent along with STARTTLS are not kept (CVE-2011-0411), and no handshake comes of them.
 */
static void test_tls_injection(void **state) {
    struct owner server = {.pauses = true, .use = 8};
    SSL_CTX *sctx = server_ctx();
    (void)state;
    int fd = owner_pair(&server, &answers);
    say(fd, "STARTTLSMAIL FROM");
    until_got(&server, "STARTTLS");
    CALL(&server, conn_tls(server.conn, SSL_new(sctx), true));
    CALL(&server, conn_resume(server.conn));
    turns(5);
    assert_int_equal(server.calls, 1);
    say(fd, "no handshake at all");
    until_got(&server, "STARTTLSE");
    assert_string_not_equal(conn_tls_error(server.conn), "");
    owner_end(&server);
    close(fd);
    SSL_CTX_free(sctx);
}

static void test_tls_peer_goes(void **state) {
    struct owner server = {0}, client = {0};
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    (void)state;
    int fd = owner_pair(&server, &answers);
    CALL(&server, conn_tls(server.conn, SSL_new(ctx), true));
    turns(2);
    close(fd);
    until_got(&server, "E");
    assert_string_not_equal(conn_tls_error(server.conn), "");
    owner_end(&server);
    fd = owner_pair(&client, &asks);
    close(fd);
    CALL(&client, conn_tls(client.conn, SSL_new(ctx), false)); /* the first flight cannot be sent */
    assert_int_equal(client.calls, 0);
    until_got(&client, "E");
    owner_end(&client);
    fd = owner_pair(&client, &asks);
    CALL(&client, conn_tls(client.conn, NULL, false));
    client.got = (struct sbuf){0};
    until_got(&client, "E");
    owner_end(&client);
    close(fd);
    SSL_CTX_free(ctx);
}

/* Each record that came before writing failed is read, also those that the TLS layer has not met.
 */
static void test_tls_answer_before_failed_write(void **state) {
    struct owner client = {0}, server = {0};
    SSL_CTX *sctx = server_ctx(), *cctx = SSL_CTX_new(TLS_client_method());
    (void)state;
    owner_couple(&client, &server);
    CALL(&server, conn_tls(server.conn, SSL_new(sctx), true));
    CALL(&client, conn_tls(client.conn, SSL_new(cctx), false));
    until_called(&server, 1);
    turns(5);
    until_got(&client, "T");
    for (int i = 0; i < 3; i++)
        assert_int_equal(SSL_write(conn_ssl(server.conn), "answer", 6), 6);
    shutdown(conn_fd(server.conn), SHUT_RDWR);
    CALL(&client, conn_write_c(client.conn, "question"));
    until_got(&client, "TansweransweranswerE");
    assert_int_not_equal(conn_error(client.conn), 0);
    CALL(&client, conn_write_c(client.conn, "dropped"));
    owner_end(&client);
    owner_end(&server);
    SSL_CTX_free(sctx);
    SSL_CTX_free(cctx);
}

/* Large content through TLS: records that stay in the TLS layer are offered as well. */
/* Hosts of strangers may show less where there are many of them, and as much as before afterwards.
 */
static void test_tls_many_strangers(void **state) {
    enum { N = 600 };
    struct tls_conf conf = {.ciphers = "DEFAULT", .protocols = ""};
    char *why = NULL;
    SSL_CTX *ctx = tls_context(&conf, &why);
    SSL *ssl[N];
    (void)state;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            ssl[i] = SSL_new(ctx);
            tls_bound_stranger(ssl[i]);
        }
        assert_int_equal(SSL_get_max_cert_list(ssl[0]), 65536);
        assert_int_equal(SSL_get_max_cert_list(ssl[499]), 65536);
        assert_int_equal(SSL_get_max_cert_list(ssl[500]), 16384);
        assert_int_equal(SSL_get_max_cert_list(ssl[N - 1]), 16384);
        for (int i = 0; i < N; i++)
            SSL_free(ssl[i]);
    }
    SSL_CTX_free(ctx);
}

static void test_tls_bulk(void **state) {
    struct owner client = {0}, server = {.use = 700};
    SSL_CTX *sctx = server_ctx(), *cctx = SSL_CTX_new(TLS_client_method());
    static char big[1000000];
    (void)state;
    SSL_CTX_set_mode(cctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    loop->read_max = 5000;
    owner_couple(&client, &server);
    CALL(&server, conn_tls(server.conn, SSL_new(sctx), true));
    CALL(&client, conn_tls(client.conn, SSL_new(cctx), false));
    memset(big, 'b', sizeof big);
    CALL(&client, conn_write(client.conn, big, sizeof big));
    while (server.got.n < sizeof big + 1)
        uv_run(&loop->uv, UV_RUN_ONCE);
    assert_int_equal(server.got.n, sizeof big + 1);
    loop->read_max = LOOP_SCRATCH;
    owner_end(&client);
    owner_end(&server);
    SSL_CTX_free(sctx);
    SSL_CTX_free(cctx);
}

/* -- the loop itself -- */

struct again {
    struct later later;
    unsigned runs;
};

static void again_run(struct later *later) {
    struct again *a = DL_OWNER(later, struct again, later);
    if (++a->runs < 100)
        loop_later(loop, later);
}

static void test_later(void **state) {
    struct again a = {.later.run = again_run}, never = {.later.run = again_run};
    (void)state;
    loop_later(loop, &a.later);
    loop_later(loop, &a.later);
    loop_later(loop, &never.later);
    loop_never(&never.later);
    assert_int_equal(a.runs, 0);
    uv_run(&loop->uv, UV_RUN_NOWAIT);
    assert_true(a.runs > 0 && a.runs < 100); /* sockets have their turn in between */
    while (a.runs < 100)
        uv_run(&loop->uv, UV_RUN_ONCE); /* it does not sleep over them */
    turns(3);
    assert_int_equal(a.runs, 100);
    assert_int_equal(never.runs, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_write),
        cmocka_unit_test(test_kept_input),
        cmocka_unit_test(test_order_at_the_end),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_answer_before_failed_write),
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_detach),
        cmocka_unit_test(test_detach_from_a_talker),
        cmocka_unit_test(test_detach_at_once),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_owner_frees_itself),
        cmocka_unit_test(test_output_is_bounded),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_tls_injection),
        cmocka_unit_test(test_tls_many_strangers),
        cmocka_unit_test(test_tls_peer_goes),
        cmocka_unit_test(test_tls_answer_before_failed_write),
        cmocka_unit_test(test_tls_bulk),
        cmocka_unit_test(test_later),
    };
    loop = loop_new(0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
