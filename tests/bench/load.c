/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A load of HTTPS calls over connections that stay open, each with a client certificate and TCP_NODELAY.
   bench_load PORT CA CERTIFICATES CONNECTIONS PATH CALLS [GAP]
   CERTIFICATES is a file of paths without their suffixes, one a line, CALLS one of bodies with a NUL behind each; both
   are gone through in turns. Says "ready" when every connection has had one answer. Then reads a number of calls per
   line and, when that many are answered, prints: seconds, and median, 99th percentile and longest of a call's time in
   microseconds. Anything but 200, and a fault, ends it.
   Without GAP a connection begins its next call when it has its answer. With it a call is due every GAP microseconds,
   on the next connection in turn, and its time counts from then, whatever kept it from being sent. */
#include "server/base/clock.h"
#include "server/base/own.h"
#include "tests/bench/median.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>

enum { CALLS_MAX = 1 << 20, MESSAGE_MAX = 1 << 17, EVENTS = 64 };
#define PATIENCE_NS INT64_C(10000000000)

struct client {
    SSL *tls;
    int64_t due; /* ns: of the call whose answer it waits for; 0: it waits for none */
};

static struct {
    SSL_CTX *context;
    FILE *certificates; /* paths of them */
    struct client *clients;
    size_t count;
    int64_t gap; /* ns; 0: none */
    int poll, port;
    const char *path;
    char *calls;
    size_t length, at;
} load;

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(EXIT_FAILURE);
}

/* The next line of a file, which begins again after its last. */
static void next_line(FILE *f, char *out, size_t size)
{
    if (!fgets(out, (int) size, f)) {
        rewind(f);
        need(fgets(out, (int) size, f) != NULL, "certificates");
    }
    out[strcspn(out, "\n")] = '\0';
}

static void identify(SSL *tls)
{
    char base[512], path[520];
    next_line(load.certificates, base, sizeof base);
    snprintf(path, sizeof path, "%s.crt", base);
    need(SSL_use_certificate_chain_file(tls, path) == 1, path);
    snprintf(path, sizeof path, "%s.key", base);
    need(SSL_use_PrivateKey_file(tls, path, SSL_FILETYPE_PEM) == 1, path);
}

static SSL *connect_tls(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) load.port)};
    const int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    need(fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0, "socket");
    need(connect(fd, (struct sockaddr *) &address, sizeof address) == 0, "connect");
    SSL *tls = SSL_new(load.context);
    need(tls != NULL, "TLS");
    identify(tls);
    need(SSL_set_fd(tls, fd) == 1 && SSL_connect(tls) == 1, "handshake");
    return tls;
}

static void send_call(struct client *c, int64_t due)
{
    static char message[MESSAGE_MAX];
    const char *call = load.calls + load.at;
    size_t length = strlen(call);
    load.at = load.at + length + 1 < load.length ? load.at + length + 1 : 0;
    int n = snprintf(message, sizeof message,
                     "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: %zu\r\n\r\n%s",
                     load.path, length, call);
    need(n > 0 && (size_t) n < sizeof message, "call");
    c->due = due;
    need(SSL_write(c->tls, message, n) == n, "send");
}

/* Whether the answer in the buffer is whole. */
static bool is_whole(const char *answer, size_t have)
{
    const char *end = strstr(answer, "\r\n\r\n"), *length = strcasestr(answer, "\r\nContent-Length:");
    return end && length && length < end && have >= (size_t) (end - answer) + 4 + strtoul(length + 17, NULL, 10);
}

static void take_answer(struct client *c)
{
    static char answer[MESSAGE_MAX];
    size_t have = 0;
    do {
        int n = SSL_read(c->tls, answer + have, (int) (sizeof answer - 1 - have));
        need(n > 0, "receive");
        have += (size_t) n;
        answer[have] = '\0';
    } while (!is_whole(answer, have));
    if (strncmp(answer, "HTTP/1.1 200", 12) == 0 && !strstr(answer, "<fault>"))
        return;
    fprintf(stderr, "%s\n", answer);
    exit(EXIT_FAILURE);
}

/* Without a gap it never sleeps: waking a load that sleeps would be charged to the server, and only to one slow enough
   to let it. */
static size_t wait_ready(struct epoll_event events[EVENTS], int64_t until)
{
    int ready;
    do
        ready = epoll_wait(load.poll, events, EVENTS, load.gap ? 1 : 0);
    while (ready == 0 && clock_boot_ns() < until);
    need(ready >= 0, "wait");
    return (size_t) ready;
}

struct round {
    double *took;
    size_t calls, begun, done;
    int64_t began;
};

static int64_t due_of(const struct round *r, size_t call)
{
    return r->began + (int64_t) call * load.gap;
}

/* What is due, as far as its connection has had the answer before. */
static void begin_due(struct round *r)
{
    while (r->begun < r->calls && due_of(r, r->begun) <= clock_boot_ns()) {
        struct client *c = &load.clients[r->begun % load.count];
        if (c->due)
            return;
        send_call(c, due_of(r, r->begun++));
    }
}

static void begin_next(struct round *r, struct client *c)
{
    if (r->begun == r->calls)
        return;
    r->begun++;
    send_call(c, clock_boot_ns());
}

/* Until then only answers can bring it on. */
static int64_t time_to_look(const struct round *r)
{
    bool due = load.gap && r->begun < r->calls && !load.clients[r->begun % load.count].due;
    return due ? due_of(r, r->begun) : clock_boot_ns() + PATIENCE_NS;
}

static void take_answers(struct round *r)
{
    struct epoll_event events[EVENTS];
    int64_t until = time_to_look(r);
    size_t ready = wait_ready(events, until);
    need(ready > 0 || (load.gap && until == due_of(r, r->begun)), "an answer in 10 s");
    for (size_t i = 0; i < ready; i++) {
        struct client *c = events[i].data.ptr;
        take_answer(c);
        r->took[r->done++] = (double) (clock_boot_ns() - c->due) / 1e3;
        c->due = 0;
        if (!load.gap)
            begin_next(r, c);
    }
}

static void run(size_t calls)
{
    struct round r = {.took = calloc(calls, sizeof(double)), .calls = calls, .began = clock_boot_ns()};
    need(r.took, "memory");
    load.at = 0; /* with a gap call n is that of connection n, in every round */
    for (size_t i = 0; i < load.count && !load.gap; i++)
        begin_next(&r, &load.clients[i]);
    while (r.done < calls) {
        if (load.gap)
            begin_due(&r);
        take_answers(&r);
    }
    double seconds = (double) (clock_boot_ns() - r.began) / 1e9;
    printf("%.6f %.1f %.1f %.1f\n", seconds, quantile(r.took, calls, 0.5), quantile(r.took, calls, 0.99),
           quantile(r.took, calls, 1));
    fflush(stdout);
    free(r.took);
}

static void read_calls(const char *path)
{
    AUTO_FILE FILE *f = fopen(path, "r");
    load.calls = malloc(CALLS_MAX);
    need(f && load.calls, path);
    load.length = fread(load.calls, 1, CALLS_MAX, f);
    need(load.length > 0 && load.calls[load.length - 1] == '\0', "calls end with a NUL");
}

static void prepare(char **argv)
{
    load.context = SSL_CTX_new(TLS_client_method());
    need(load.context && SSL_CTX_load_verify_locations(load.context, argv[2], NULL) == 1, argv[2]);
    SSL_CTX_set_verify(load.context, SSL_VERIFY_PEER, NULL);
    load.port = atoi(argv[1]);
    load.certificates = fopen(argv[3], "r");
    need(load.certificates != NULL, argv[3]);
    load.count = (size_t) atoi(argv[4]);
    load.clients = calloc(load.count, sizeof *load.clients);
    load.path = argv[5];
    read_calls(argv[6]);
    load.gap = argv[7] ? atoi(argv[7]) * INT64_C(1000) : 0;
    load.poll = epoll_create1(EPOLL_CLOEXEC);
    need(load.clients && load.poll >= 0, "epoll");
}

static void connect_all(void)
{
    for (size_t i = 0; i < load.count; i++) {
        struct client *c = &load.clients[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->tls = connect_tls();
        send_call(c, clock_boot_ns());
        take_answer(c);
        c->due = 0;
        need(epoll_ctl(load.poll, EPOLL_CTL_ADD, SSL_get_fd(c->tls), &event) == 0, "epoll");
    }
}

int main(int argc, char **argv)
{
    char line[32];
    if (argc != 7 && argc != 8)
        return 2;
    prepare(argv);
    connect_all();
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        run(strtoul(line, NULL, 10));
    return EXIT_SUCCESS;
}
