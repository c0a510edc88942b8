/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/https.h"

#include "server/base/log.h"
#include "server/identity.h"
#include "server/listener.h"
#include "server/request.h"
#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { CONNECTION_POOL = 8192, SEND_SECONDS = 5 };

/* A listening socket and the library's daemon that serves it, on a thread of its own. */
struct door {
    struct https *https;
    struct MHD_Daemon *daemon; /* NULL when this door was not asked for */
    bool tls;
    int listener; /* ours again once the door is quiesced; -1 before */
};

struct https {
    struct https_settings settings;
    struct door tls_door, unix_door;
    unsigned port;
    struct listener_name name; /* of the UNIX socket */
    atomic_uint_fast64_t last_id;
    atomic_bool closing;
    pthread_mutex_t mutex; /* guards under_way */
    pthread_cond_t sent;   /* under_way became 0 */
    unsigned under_way;    /* calls begun, whose answer was not sent yet */
};

/* Who is at the other end of a connection; made with it, freed with it. */
struct peer {
    struct identity who;
    bool known;
};

/* A request, from its head to the end of its answer. */
struct exchange {
    struct door *door;
    struct MHD_Connection *connection;
    enum http_route route;
    struct request *request; /* of a call, else NULL */
    bool begun;              /* the call counts as under way */
};

/* ---- connections ---- */

static struct peer *peer_of(struct MHD_Connection *c)
{
    return MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void meet_process(const struct door *door, struct MHD_Connection *c, struct peer *p)
{
    struct ucred credentials = {.uid = (uid_t) -1};
    socklen_t length = sizeof credentials;
    int fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        credentials.uid = (uid_t) -1;
    identity_of_peer(&credentials, &door->https->settings.host, &p->who);
    p->known = true;
}

static void *session_of(struct MHD_Connection *c)
{
    return MHD_get_connection_info(c, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;
}

/* The library calls this when a connection was accepted, before its handshake, and when it is closed. */
static void on_connection(void *arg, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode what)
{
    const struct door *door = arg;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        free(*context);
        *context = NULL;
        return;
    }
    struct peer *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    *context = p;
    if (door->tls)
        tls_session_setup(door->https->settings.tls, session_of(c));
    else
        meet_process(door, c, p);
}

/* A certificate can be read only after the handshake: at the first request, once. */
static const struct identity *identity_of(struct MHD_Connection *c)
{
    struct peer *p = peer_of(c);
    if (!p->known) {
        tls_session_identity(session_of(c), &p->who);
        p->known = true;
    }
    return &p->who;
}

/* ---- answers ---- */

static enum MHD_Result send_response(struct MHD_Connection *c, unsigned status, struct MHD_Response *r)
{
    if (!r)
        return MHD_NO;
    enum MHD_Result queued = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return queued;
}

/* For the library's arguments that have no const though it only reads them. */
static void *readable(const char *text)
{
    void *p;
    memcpy(&p, &text, sizeof p);
    return p;
}

/* body lives until the exchange ends. */
static struct MHD_Response *response_of(const char *body, size_t length, const char *type)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(length, readable(body), MHD_RESPMEM_PERSISTENT);
    if (r)
        MHD_add_response_header(r, "Content-Type", type);
    return r;
}

static struct MHD_Response *plain_response(const char *text)
{
    return response_of(text, strlen(text), "text/plain; charset=utf-8");
}

static enum MHD_Result send_refusal(struct MHD_Connection *c, const struct http_verdict *v)
{
    struct MHD_Response *r = plain_response(v->sentence);
    if (r) {
        MHD_add_response_header(r, "Connection", "close");
        if (v->allow)
            MHD_add_response_header(r, "Allow", v->allow);
    }
    return send_response(c, v->status, r);
}

static enum MHD_Result send_stopping(struct MHD_Connection *c)
{
    static const struct http_verdict stopping = {.status = 503, .sentence = "The daemon is stopping.\n"};
    return send_refusal(c, &stopping);
}

static void add_number(struct MHD_Response *r, const char *name, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long) number);
    MHD_add_response_header(r, name, text);
}

static enum MHD_Result send_reply(struct exchange *e)
{
    const struct call *call = request_call(e->request);
    struct MHD_Response *r = response_of(call->reply, call->reply_length, "text/xml");
    if (!r)
        return MHD_NO;
    add_number(r, "X-SMAPI-Call-Id", call->id);
    if (call->epoch)
        add_number(r, "X-SMAPI-Epoch", call->epoch);
    if (atomic_load(&e->door->https->closing))
        MHD_add_response_header(r, "Connection", "close");
    return send_response(e->connection, 200, r);
}

static enum MHD_Result send_page(struct https *h, struct MHD_Connection *c, enum http_route route)
{
    if (route == HTTP_VERSIONS)
        return send_response(c, 200,
                             response_of(h->settings.versions, strlen(h->settings.versions), "application/json"));
    if (route == HTTP_READYZ && !dispatch_ready(h->settings.dispatch))
        return send_response(c, 503, plain_response("recovering\n"));
    return send_response(c, 200, plain_response("ok\n"));
}

/* ---- calls ---- */

static void queue_call(struct exchange *e);

/* On a worker. After the last line the exchange is the library's thread's again, and may be gone. */
static void run_call(void *arg)
{
    struct exchange *e = arg;
    struct call *call = request_call(e->request);
    dispatch_run(e->door->https->settings.dispatch, call);
    if (call->reply)
        MHD_resume_connection(e->connection);
    else
        queue_call(e);
}

/* Queues the call for its turn. What cannot wait is refused, and what is left of the call then, if anything, tries
   next. After the last line the exchange is another thread's. */
static void queue_call(struct exchange *e)
{
    const struct https_settings *s = &e->door->https->settings;
    struct call *call = request_call(e->request);
    while (workers_submit(s->workers, &call->turn, run_call, e, &call->fault) < 0) {
        dispatch_refuse(s->dispatch, call);
        if (call->reply) {
            MHD_resume_connection(e->connection);
            return;
        }
    }
}

/* Sets the connection aside until the call is done. */
static enum MHD_Result wait_turn(struct exchange *e)
{
    MHD_suspend_connection(e->connection);
    queue_call(e);
    return MHD_YES;
}

static void count_begun(struct https *h)
{
    pthread_mutex_lock(&h->mutex);
    h->under_way++;
    pthread_mutex_unlock(&h->mutex);
}

static void count_ended(struct https *h)
{
    pthread_mutex_lock(&h->mutex);
    if (--h->under_way == 0)
        pthread_cond_signal(&h->sent);
    pthread_mutex_unlock(&h->mutex);
}

/* The body is whole. */
static enum MHD_Result begin_call(struct exchange *e)
{
    struct https *h = e->door->https;
    if (atomic_load(&h->closing))
        return send_stopping(e->connection);
    e->begun = true;
    count_begun(h);
    if (request_prepare(e->request, h->settings.dispatch))
        return send_reply(e);
    struct call *call = request_call(e->request);
    if (call->turn.lock != LOCK_NONE)
        return wait_turn(e);
    dispatch_run(h->settings.dispatch, call);
    return send_reply(e);
}

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_length,
                                 const char *value, size_t value_length)
{
    (void) kind;
    http_header(arg, name, name_length, value, value_length);
    return MHD_YES;
}

static struct exchange *exchange_new(struct door *door, struct MHD_Connection *c, enum http_route route)
{
    struct exchange *e = calloc(1, sizeof *e);
    if (!e)
        abort();
    e->door = door;
    e->connection = c;
    e->route = route;
    return e;
}

/* The head is whole, nothing of the body was read. What is answered here closes the connection. */
static enum MHD_Result begin_exchange(struct door *door, struct MHD_Connection *c, const char *method, const char *path,
                                      const char *version, void **context)
{
    struct https *h = door->https;
    struct http_head head = {0};
    struct http_verdict verdict;
    MHD_get_connection_values_n(c, MHD_HEADER_KIND, on_header, &head);
    http_judge(method, path, version, &head, &verdict);
    if (verdict.route == HTTP_REFUSED)
        return send_refusal(c, &verdict);
    struct exchange *e = exchange_new(door, c, verdict.route);
    if (verdict.route == HTTP_CALL)
        e->request = request_new(atomic_fetch_add(&h->last_id, 1) + 1, identity_of(c), verdict.type, &head);
    *context = e;
    return MHD_YES;
}

/* The library calls this with the head, with each piece of the body, when the body is whole, and after a suspended
   connection was resumed. MHD_NO closes the connection. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *path, const char *method,
                                  const char *version, const char *piece, size_t *length, void **context)
{
    struct exchange *e = *context;
    if (!e)
        return begin_exchange(arg, c, method, path, version, context);
    if (e->route != HTTP_CALL)
        return send_page(e->door->https, c, e->route);
    if (*length > 0) {
        bool taken = request_take(e->request, piece, *length);
        *length = 0;
        return taken ? MHD_YES : MHD_NO;
    }
    return e->begun ? send_reply(e) : begin_call(e);
}

/* The answer was sent, or the connection broke. Never while a worker has the call: its connection is suspended then. */
static void on_completed(void *arg, struct MHD_Connection *c, void **context, enum MHD_RequestTerminationCode why)
{
    (void) arg;
    (void) c;
    (void) why;
    struct exchange *e = *context;
    if (!e)
        return;
    *context = NULL;
    if (e->begun)
        count_ended(e->door->https);
    request_free(e->request);
    free(e);
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
        tls ? flags | MHD_USE_TLS : flags, 0, NULL, NULL, on_request, door, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) CONNECTION_POOL,
        MHD_OPTION_CONNECTION_LIMIT, h->settings.connections, MHD_OPTION_CONNECTION_TIMEOUT, h->settings.idle_seconds,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, door, MHD_OPTION_NOTIFY_COMPLETED, on_completed, door,
        MHD_OPTION_ARRAY, tls ? tls_options : no_options, MHD_OPTION_END);
    if (!door->daemon) /* whether fd was closed is not told; the process ends anyway */
        return fault_set(f, FAULT_EIO, "libmicrohttpd does not start %s", tls ? "the HTTPS listener" : "the socket");
    return 0;
}

static int open_doors(struct https *h, struct fault *f)
{
    const struct https_settings *s = &h->settings;
    int fd;
    if (s->address[0] &&
        (listener_tcp(s->address, s->port, &fd, &h->port, f) < 0 || door_open(h, &h->tls_door, true, fd, f) < 0))
        return -1;
    if (s->socket[0] &&
        (listener_unix(s->socket, &fd, &h->name, f) < 0 || door_open(h, &h->unix_door, false, fd, f) < 0))
        return -1;
    return 0;
}

int https_start(const struct https_settings *settings, struct https **out, struct fault *f)
{
    struct https *h = calloc(1, sizeof *h);
    if (!h)
        abort();
    h->settings = *settings;
    pthread_mutex_init(&h->mutex, NULL);
    pthread_cond_init(&h->sent, NULL);
    if (open_doors(h, f) < 0) {
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

/* Refuses what wants to come in. The descriptor stays open, as the library's thread may be about to use its number. */
static void door_quiesce(struct door *door)
{
    if (!door->daemon)
        return;
    door->listener = MHD_quiesce_daemon(door->daemon);
    if (door->listener >= 0)
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
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SEND_SECONDS;
    pthread_mutex_lock(&h->mutex);
    while (h->under_way > 0 && pthread_cond_timedwait(&h->sent, &h->mutex, &until) == 0)
        continue;
    pthread_mutex_unlock(&h->mutex);
}

void https_stop(struct https *h)
{
    https_quiesce(h);
    wait_sent(h);
    door_close(&h->tls_door);
    door_close(&h->unix_door);
    pthread_cond_destroy(&h->sent);
    pthread_mutex_destroy(&h->mutex);
    free(h);
}
