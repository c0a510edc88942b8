/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A load of HTTPS calls over connections that stay open, each with a client certificate and TCP_NODELAY.
   bench_load PORT CA CERTIFICATE_WITHOUT_SUFFIX CONNECTIONS PATH CALLS
   CALLS is a file of bodies with a NUL behind each, sent in turns. Says "ready" when every connection has had one
   answer. Then reads a number of calls per line and, when that many are answered, prints: seconds, median and 99th
   percentile of a call's time in microseconds. Anything but 200, and a fault, ends it. */
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
    int64_t sent; /* ns */
};

static struct {
    SSL_CTX *context;
    struct client *clients;
    size_t count;
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

static SSL *connect_tls(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) load.port)};
    const int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    need(fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0, "socket");
    need(connect(fd, (struct sockaddr *) &address, sizeof address) == 0, "connect");
    SSL *tls = SSL_new(load.context);
    need(tls && SSL_set_fd(tls, fd) == 1 && SSL_connect(tls) == 1, "handshake");
    return tls;
}

static void send_call(struct client *c)
{
    static char message[MESSAGE_MAX];
    const char *call = load.calls + load.at;
    size_t length = strlen(call);
    load.at = load.at + length + 1 < load.length ? load.at + length + 1 : 0;
    int n = snprintf(message, sizeof message,
                     "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: %zu\r\n\r\n%s",
                     load.path, length, call);
    need(n > 0 && (size_t) n < sizeof message, "call");
    c->sent = clock_boot_ns();
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

/* Never sleeps: waking a load that sleeps would be charged to the server, and only to one slow enough to let it. */
static int wait_ready(struct epoll_event events[EVENTS])
{
    int64_t until = clock_boot_ns() + PATIENCE_NS;
    int ready;
    do
        ready = epoll_wait(load.poll, events, EVENTS, 0);
    while (ready == 0 && clock_boot_ns() < until);
    need(ready > 0, "an answer in 10 s");
    return ready;
}

static void run(size_t calls)
{
    double *took = calloc(calls, sizeof *took);
    size_t begun = 0, done = 0;
    need(took, "memory");
    int64_t began = clock_boot_ns();
    for (; begun < load.count && begun < calls; begun++)
        send_call(&load.clients[begun]);
    while (done < calls) {
        struct epoll_event events[EVENTS];
        int ready = wait_ready(events);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            take_answer(c);
            took[done++] = (double) (clock_boot_ns() - c->sent) / 1e3;
            if (begun < calls) {
                begun++;
                send_call(c);
            }
        }
    }
    double seconds = (double) (clock_boot_ns() - began) / 1e9;
    printf("%.6f %.1f %.1f\n", seconds, quantile(took, calls, 0.5), quantile(took, calls, 0.99));
    fflush(stdout);
    free(took);
}

static void prepare(char **argv)
{
    char certificate[512], key[512];
    snprintf(certificate, sizeof certificate, "%s.crt", argv[3]);
    snprintf(key, sizeof key, "%s.key", argv[3]);
    load.context = SSL_CTX_new(TLS_client_method());
    need(load.context && SSL_CTX_load_verify_locations(load.context, argv[2], NULL) == 1, argv[2]);
    SSL_CTX_set_verify(load.context, SSL_VERIFY_PEER, NULL);
    need(SSL_CTX_use_certificate_chain_file(load.context, certificate) == 1, certificate);
    need(SSL_CTX_use_PrivateKey_file(load.context, key, SSL_FILETYPE_PEM) == 1, key);
    load.port = atoi(argv[1]);
    load.count = (size_t) atoi(argv[4]);
    load.path = argv[5];
    load.clients = calloc(load.count, sizeof *load.clients);
    load.calls = malloc(CALLS_MAX);
    AUTO_FILE FILE *f = fopen(argv[6], "r");
    need(f && load.clients && load.calls, argv[6]);
    load.length = fread(load.calls, 1, CALLS_MAX, f);
    need(load.length > 0 && load.calls[load.length - 1] == '\0', "calls end with a NUL");
    load.poll = epoll_create1(EPOLL_CLOEXEC);
    need(load.poll >= 0, "epoll");
}

int main(int argc, char **argv)
{
    char line[32];
    if (argc != 7)
        return 2;
    prepare(argv);
    for (size_t i = 0; i < load.count; i++) {
        struct client *c = &load.clients[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->tls = connect_tls();
        send_call(c);
        take_answer(c);
        need(epoll_ctl(load.poll, EPOLL_CTL_ADD, SSL_get_fd(c->tls), &event) == 0, "epoll");
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        run(strtoul(line, NULL, 10));
    return EXIT_SUCCESS;
}
