/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The floor of an HTTPS answer: bare libmicrohttpd with the daemon's own flags, ciphers, pool and mutual TLS, that
   reads a body and answers the bytes of a file. Prints its port. bench_echo CERTIFICATE KEY CLIENT_CA REPLY */
#include "server/base/fault.h"
#include "server/base/own.h"
#include "server/listener.h"
#include "server/tls.h"
#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <signal.h>
#include <string.h>

enum { POOL = 8192, CONNECTIONS = 8192, IDLE_SECONDS = 3600, REPLY_MAX = 65536 };

static char reply[REPLY_MAX];
static size_t reply_length;

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *path, const char *method,
                                  const char *version, const char *piece, size_t *length, void **context)
{
    static char seen;
    (void) arg, (void) path, (void) method, (void) version, (void) piece;
    if (!*context || *length > 0) {
        *context = &seen;
        *length = 0;
        return MHD_YES;
    }
    struct MHD_Response *r = MHD_create_response_from_buffer(reply_length, reply, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(r, "Content-Type", "text/xml");
    enum MHD_Result queued = MHD_queue_response(c, 200, r);
    MHD_destroy_response(r);
    return queued;
}

static void on_shaken(void *arg, bool resumed)
{
    (void) arg, (void) resumed;
}

static void on_bytes(void *arg)
{
    (void) arg;
}

static void on_connection(void *arg, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode what)
{
    static const struct tls_events events = {on_shaken, on_bytes};
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        struct tls_session *s = calloc(1, sizeof *s);
        if (!s)
            abort();
        *context = s;
        tls_session_open(s, arg, MHD_get_connection_info(c, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session,
                         MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd, &events, NULL);
    } else {
        tls_session_close(*context);
        free(*context);
    }
}

/* Never asked: every session is given its certificate by tls_session_open. */
static int on_certificate(gnutls_session_t session, const gnutls_datum_t *ca_names, int ca_count,
                          const gnutls_pk_algorithm_t *algorithms, int algorithm_count, gnutls_pcert_st **chain,
                          unsigned *chain_length, gnutls_privkey_t *key)
{
    (void) session, (void) ca_names, (void) ca_count, (void) algorithms, (void) algorithm_count;
    (void) chain, (void) chain_length, (void) key;
    return -1;
}

static struct MHD_Daemon *start(int fd, struct tls *tls)
{
    return MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_TLS,
                            0, NULL, NULL, on_request, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) POOL, MHD_OPTION_CONNECTION_LIMIT,
                            (unsigned) CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) IDLE_SECONDS,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, tls, MHD_OPTION_HTTPS_PRIORITIES,
                            tls_priorities(), MHD_OPTION_HTTPS_CERT_CALLBACK, on_certificate, MHD_OPTION_END);
}

int main(int argc, char **argv)
{
    struct fault f = {0};
    struct tls *tls;
    int fd, signal_number;
    sigset_t ends;
    if (argc != 5)
        return 2;
    const struct tls_files files = {argv[1], argv[2], argv[3], ""};
    AUTO_FILE FILE *file = fopen(argv[4], "r");
    reply_length = file ? fread(reply, 1, sizeof reply, file) : 0;
    if (reply_length == 0 || tls_load(&files, &tls, &f) < 0 || listener_tcp("127.0.0.1", 0, &fd, &f) < 0) {
        fprintf(stderr, "%s\n", f.detail);
        return EXIT_FAILURE;
    }
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    struct MHD_Daemon *daemon = start(fd, tls);
    if (!daemon)
        return EXIT_FAILURE;
    printf("%u\n", listener_port(fd));
    fflush(stdout);
    do
        sigwait(&ends, &signal_number);
    while (signal_number != SIGTERM);
    MHD_stop_daemon(daemon);
    tls_release(tls);
    return EXIT_SUCCESS;
}
