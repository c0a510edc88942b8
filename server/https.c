/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/https_internal.h"
#include "server/identity.h"
#include <errno.h>
#include <gnutls/abstract.h>
#include <malloc.h>
#include <string.h>
#include <time.h>

enum {
    CONNECTION_POOL = 6144,
    SEND_SECONDS = 5,
    MIND_MS = 250,
    MINDER_STACK = 256 * 1024,
    TRIM_CONNECTIONS = 256,
    TRIM_BEATS = 8
};

/* ---- connections ---- */

static void meet_process(struct peer *p, int fd)
{
    struct ucred credentials = {.uid = (uid_t) -1};
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        credentials.uid = (uid_t) -1;
    identity_of_peer(&credentials, &p->https->settings.host, &p->who);
}

static struct tls *newest(struct https *h, uint64_t *reading)
{
    pthread_mutex_lock(&h->mutex);
    struct tls *t = tls_take(h->tls);
    *reading = atomic_load(&h->reading);
    pthread_mutex_unlock(&h->mutex);
    return t;
}

/* The handshake is done. One connection too many is told so at its first request, and not waited for long. */
static void on_shaken(void *arg, bool resumed)
{
    struct peer *p = arg;
    atomic_fetch_add(resumed ? &p->https->resumed : &p->https->full, 1);
    tls_session_identity(&p->session, &p->who);
    p->excess = !connection_claim(p->connection, p->who.name);
    connection_wait(p->connection, p->excess ? STAGE_HEAD : STAGE_IDLE);
}

static void on_bytes(void *arg)
{
    const struct peer *p = arg;
    connection_wake(p->connection, STAGE_HEAD);
}

static void meet_client(struct peer *p, struct MHD_Connection *c, int fd)
{
    static const struct tls_events events = {on_shaken, on_bytes};
    void *session = MHD_get_connection_info(c, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;
    struct tls *t = newest(p->https, &p->reading);
    tls_session_open(&p->session, t, session, fd, &events, p);
    tls_release(t);
}

/* The library calls this when a connection was accepted, before its handshake, and when it is closed: its session is
   gone then, its socket still open. */
static void on_connection(void *arg, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode what)
{
    const struct door *door = arg;
    struct peer *p = *context;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        connection_close(p->connection);
        tls_session_close(&p->session);
        free(p);
        *context = NULL;
        return;
    }
    int fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    if (!(p = calloc(1, sizeof *p)))
        abort();
    *context = p;
    p->https = door->https;
    p->tls = door->tls;
    p->connection = connection_open(p->https->connections, fd, door->tls ? STAGE_HANDSHAKE : STAGE_IDLE);
    if (door->tls)
        meet_client(p, c, fd);
    else
        meet_process(p, fd);
}

/* A certificate that was believed is asked for its time at each request, for the rest when something was read anew. */
static const char *refused_certificate(struct peer *p)
{
    uint64_t reading;
    if (p->reading == atomic_load(&p->https->reading))
        return tls_session_refused(&p->session, NULL);
    struct tls *now = newest(p->https, &reading);
    const char *why = tls_session_refused(&p->session, now);
    tls_release(now);
    if (!why) {
        tls_session_identity(&p->session, &p->who);
        p->reading = reading;
    }
    return why;
}

unsigned peer_refused(struct peer *p, char why[PEER_WHY])
{
    if (!p->tls)
        return 0;
    const char *fault = refused_certificate(p);
    if (fault) {
        atomic_fetch_add(&p->https->refused, 1);
        log_line(LOG_INFO, "tls: %s refused: %s", p->who.name, fault);
        snprintf(why, PEER_WHY, "The certificate is not accepted: %s.\n", fault);
        return 403;
    }
    if (p->excess) {
        atomic_fetch_add(&p->https->crowded, 1);
        snprintf(why, PEER_WHY, "Too many connections of %s are open.\n", p->who.name);
        return 503;
    }
    return 0;
}

/* ---- doors ---- */

static void __attribute__((format(printf, 2, 0))) on_log(void *arg, const char *fmt, va_list args)
{
    (void) arg;
    char line[512];
    vsnprintf(line, sizeof line, fmt, args);
    size_t length = strlen(line);
    if (length > 0 && line[length - 1] == '\n')
        line[length - 1] = '\0';
    log_line(LOG_DEBUG, "http: %s", line);
}

/* For the library's arguments that have no const though it only reads them. */
static void *readable(const char *text)
{
    void *p;
    memcpy(&p, &text, sizeof p);
    return p;
}

/* Never asked: every session is given its certificate by tls_session_setup. One that was not fails here. */
static int on_certificate(gnutls_session_t session, const gnutls_datum_t *ca_names, int ca_count,
                          const gnutls_pk_algorithm_t *algorithms, int algorithm_count, gnutls_pcert_st **chain,
                          unsigned *chain_length, gnutls_privkey_t *key)
{
    (void) session;
    (void) ca_names;
    (void) ca_count;
    (void) algorithms;
    (void) algorithm_count;
    (void) chain;
    (void) chain_length;
    (void) key;
    return -1;
}

static int door_open(struct https *h, struct door *door, bool tls, int fd, struct fault *f)
{
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem tls_options[] = {
        {MHD_OPTION_HTTPS_PRIORITIES, 0, readable(tls_priorities())},
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *) on_certificate},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem no_options[] = {{MHD_OPTION_END, 0, NULL}};
    door->https = h;
    door->tls = tls;
    door->listener = -1;
    door->daemon = MHD_start_daemon(
        tls ? flags | MHD_USE_TLS : flags, 0, NULL, NULL, exchange_request, door, MHD_OPTION_EXTERNAL_LOGGER, on_log,
        NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) CONNECTION_POOL,
        MHD_OPTION_CONNECTION_LIMIT, h->settings.connections, MHD_OPTION_CONNECTION_TIMEOUT, 0U, /* ours are stricter */
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, door, MHD_OPTION_NOTIFY_COMPLETED, exchange_completed, door,
        MHD_OPTION_ARRAY, tls ? tls_options : no_options, MHD_OPTION_END);
    if (!door->daemon) /* whether fd was closed is not told; the process ends anyway */
        return fault_set(f, FAULT_EIO, "libmicrohttpd does not start %s", tls ? "the HTTPS listener" : "the socket");
    return 0;
}

static int open_https(struct https *h, struct fault *f)
{
    const struct https_settings *s = &h->settings;
    int fd = s->passed_https;
    h->tls_door.passed = fd >= 0;
    if (fd < 0 && !s->address[0])
        return 0;
    if (fd < 0 && listener_tcp(s->address, s->port, &fd, f) < 0)
        return -1;
    h->port = listener_port(fd);
    listener_no_delay(fd);
    return door_open(h, &h->tls_door, true, fd, f);
}

static int open_unix(struct https *h, struct fault *f)
{
    const struct https_settings *s = &h->settings;
    int fd = s->passed_socket;
    h->unix_door.passed = fd >= 0;
    if (fd < 0 && !s->socket[0])
        return 0;
    if (fd < 0 && listener_unix(s->socket, &fd, &h->name, f) < 0)
        return -1;
    return door_open(h, &h->unix_door, false, fd, f);
}

/* ---- deadlines ---- */

static void after(unsigned ms, struct timespec *out)
{
    clock_gettime(CLOCK_MONOTONIC, out);
    out->tv_nsec += (long) ms * 1000000;
    out->tv_sec += out->tv_nsec / 1000000000;
    out->tv_nsec %= 1000000000;
}

struct going {
    unsigned most;  /* open since memory was given back for the last time */
    unsigned beats; /* for which it still is */
};

/* Gives memory of connections that went back to the kernel: once many went, and for some beats then, as one that is not
   counted any more may not have been freed yet, and the last ones may be few. */
static void give_back(struct https *h, struct going *g)
{
    unsigned open = connections_counted(h->connections).open;
    if (open > g->most)
        g->most = open;
    if (g->most >= open + TRIM_CONNECTIONS)
        g->beats = TRIM_BEATS;
    if (g->beats == 0)
        return;
    g->beats--;
    g->most = open;
    malloc_trim(0);
}

static void *mind(void *arg)
{
    struct https *h = arg;
    struct timespec until;
    struct going going = {0};
    pthread_mutex_lock(&h->mutex);
    while (!h->leaving) {
        after(MIND_MS, &until);
        pthread_cond_timedwait(&h->leave, &h->mutex, &until);
        pthread_mutex_unlock(&h->mutex);
        connections_sweep(h->connections);
        workers_expire(h->settings.workers);
        give_back(h, &going);
        pthread_mutex_lock(&h->mutex);
    }
    pthread_mutex_unlock(&h->mutex);
    return NULL;
}

static int start_minder(struct https *h, struct fault *f)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MINDER_STACK);
    int error = pthread_create(&h->minder, &attributes, mind, h);
    pthread_attr_destroy(&attributes);
    h->minded = error == 0;
    errno = error;
    return error ? fault_errno(f, FAULT_EIO, "start a thread") : 0;
}

static void stop_minder(struct https *h)
{
    pthread_mutex_lock(&h->mutex);
    h->leaving = true;
    pthread_cond_signal(&h->leave);
    pthread_mutex_unlock(&h->mutex);
    if (h->minded)
        pthread_join(h->minder, NULL);
    h->minded = false;
}

/* ---- all of it ---- */

static struct https *https_new(const struct https_settings *settings)
{
    struct https *h = calloc(1, sizeof *h);
    pthread_condattr_t monotonic;
    if (!h)
        abort();
    h->settings = *settings;
    h->tls = tls_take(settings->tls);
    h->connections = connections_new(&settings->limits.connections);
    atomic_store(&h->body_bytes, settings->limits.body_bytes);
    atomic_store(&h->call_seconds, settings->limits.call_seconds);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&h->mutex, NULL);
    pthread_cond_init(&h->sent, &monotonic);
    pthread_cond_init(&h->leave, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return h;
}

int https_start(const struct https_settings *settings, struct https **out, struct fault *f)
{
    struct https *h = https_new(settings);
    if (open_https(h, f) < 0 || open_unix(h, f) < 0 || start_minder(h, f) < 0) {
        https_stop(h);
        return -1;
    }
    *out = h;
    return 0;
}

unsigned https_port(const struct https *h)
{
    return h->port;
}

void https_renew(struct https *h, struct tls *tls, const struct https_limits *limits)
{
    connections_limit(h->connections, &limits->connections);
    atomic_store(&h->body_bytes, limits->body_bytes);
    atomic_store(&h->call_seconds, limits->call_seconds);
    pthread_mutex_lock(&h->mutex);
    struct tls *old = tls ? h->tls : NULL;
    h->tls = tls ? tls_take(tls) : h->tls;
    atomic_fetch_add(&h->reading, 1);
    pthread_mutex_unlock(&h->mutex);
    tls_release(old);
}

/* Refuses what wants to come in, or leaves it to the next daemon. The descriptor stays open, as the library's thread
 * may be about to use its number. */
static void door_quiesce(struct door *door)
{
    if (!door->daemon)
        return;
    door->listener = MHD_quiesce_daemon(door->daemon);
    if (door->listener >= 0 && !door->passed)
        shutdown(door->listener, SHUT_RDWR);
}

static void door_close(struct door *door)
{
    if (!door->daemon)
        return;
    MHD_stop_daemon(door->daemon);
    if (door->listener >= 0)
        close(door->listener);
}

void https_quiesce(struct https *h)
{
    if (atomic_exchange(&h->closing, true))
        return;
    if (h->name.path)
        listener_unix_remove(&h->name);
    door_quiesce(&h->tls_door);
    door_quiesce(&h->unix_door);
}

static void wait_sent(struct https *h)
{
    struct timespec until;
    after(SEND_SECONDS * 1000, &until);
    pthread_mutex_lock(&h->mutex);
    while (h->under_way > 0 && pthread_cond_timedwait(&h->sent, &h->mutex, &until) == 0)
        continue;
    pthread_mutex_unlock(&h->mutex);
}

void https_stop(struct https *h)
{
    https_quiesce(h);
    wait_sent(h);
    stop_minder(h);
    door_close(&h->tls_door);
    door_close(&h->unix_door);
    connections_free(h->connections);
    tls_release(h->tls);
    pthread_cond_destroy(&h->leave);
    pthread_cond_destroy(&h->sent);
    pthread_mutex_destroy(&h->mutex);
    free(h);
}

/* ---- numbers ---- */

static void connection_metrics(struct https *h, struct text *out)
{
    struct connection_counts c = connections_counted(h->connections);
    metrics_one(out, "smapid_connections", "gauge", "Open connections of both listeners.", c.open);
    metrics_one(out, "smapid_handshakes_crowded_out_total", "counter", "Handshakes closed for newer ones.",
                c.crowded_out);
    metrics_head(out, "smapid_connections_late_total", "counter",
                 "Connections closed by a deadline, by what they owed.");
    for (unsigned i = 0; i < STAGE_COUNT; i++) {
        char label[32];
        snprintf(label, sizeof label, "owed=\"%s\"", stage_name(i));
        metrics_value(out, "smapid_connections_late_total", label, c.late[i]);
    }
}

static void tls_metrics(struct https *h, struct text *out)
{
    uint64_t reading;
    struct tls *t = newest(h, &reading);
    metrics_head(out, "smapid_handshakes_total", "counter", "TLS handshakes that were done.");
    metrics_value(out, "smapid_handshakes_total", "resumed=\"false\"", atomic_load(&h->full));
    metrics_value(out, "smapid_handshakes_total", "resumed=\"true\"", atomic_load(&h->resumed));
    metrics_head(out, "smapid_requests_refused_total", "counter", "Requests refused, by reason.");
    metrics_value(out, "smapid_requests_refused_total", "reason=\"certificate\"", atomic_load(&h->refused));
    metrics_value(out, "smapid_requests_refused_total", "reason=\"connections\"", atomic_load(&h->crowded));
    if (t)
        metrics_one(out, "smapid_certificate_end_seconds", "gauge", "When the listener's certificate ends, since 1970.",
                    (uint64_t) tls_expires(t));
    tls_release(t);
}

static void worker_metrics(struct https *h, struct text *out)
{
    struct workers_counts w = workers_counted(h->settings.workers);
    metrics_one(out, "smapid_workers", "gauge", "Threads that do calls.", w.threads);
    metrics_one(out, "smapid_calls_running", "gauge", "Calls that have their turn.", w.running);
    metrics_one(out, "smapid_calls_waiting", "gauge", "Calls that wait for their turn.", w.waiting);
    metrics_one(out, "smapid_calls_stalled", "gauge", "Calls kept by a server that does not answer.", w.stalled);
    metrics_one(out, "smapid_calls_busy_total", "counter", "Calls refused because too many waited.", w.busy);
    metrics_one(out, "smapid_calls_late_total", "counter", "Calls refused because they waited too long.", w.late);
}

void https_metrics(struct https *h, struct text *out)
{
    metrics_print(h->settings.metrics, out);
    worker_metrics(h, out);
    connection_metrics(h, out);
    tls_metrics(h, out);
    if (h->settings.more_metrics)
        h->settings.more_metrics(h->settings.arg, out);
}
