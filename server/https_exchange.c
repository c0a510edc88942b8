/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/method.h"
#include "server/base/clock.h"
#include "server/https_internal.h"
#include "server/request.h"
#include <string.h>

/* A request, from its head to the end of its answer. */
struct exchange {
    struct door *door;
    struct MHD_Connection *connection;
    enum http_route route;
    struct request *request; /* of a call, else NULL */
    char *page;              /* what was made for a page, else NULL */
    bool begun;              /* the call counts as under way */
};

/* ---- answers ---- */

static enum MHD_Result send_response(struct MHD_Connection *c, unsigned status, struct MHD_Response *r)
{
    if (!r)
        return MHD_NO;
    connection_wait(peer_of(c)->connection, STAGE_ANSWER);
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
    size_t length = strlen(v->sentence);
    struct MHD_Response *r = MHD_create_response_from_buffer(length, readable(v->sentence), MHD_RESPMEM_MUST_COPY);
    if (r) {
        MHD_add_response_header(r, "Content-Type", "text/plain; charset=utf-8");
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

/* The answer's bytes live as long as the exchange. */
static enum MHD_Result send_metrics(struct exchange *e)
{
    AUTO_TEXT struct text t = TEXT_OF(METRICS_MAX);
    https_metrics(e->door->https, &t);
    size_t length = t.length;
    free(e->page);
    e->page = text_take(&t);
    return send_response(e->connection, 200, response_of(e->page, length, "text/plain; version=0.0.4"));
}

static enum MHD_Result send_page(struct exchange *e)
{
    struct https *h = e->door->https;
    struct MHD_Connection *c = e->connection;
    enum http_route route = e->route;
    if (route == HTTP_METRICS)
        return send_metrics(e);
    if (route == HTTP_VERSIONS)
        return send_response(c, 200,
                             response_of(h->settings.versions, strlen(h->settings.versions), "application/json"));
    if (route == HTTP_READYZ && !dispatch_ready(h->settings.dispatch))
        return send_response(c, 503, plain_response("recovering\n"));
    return send_response(c, 200, plain_response("ok\n"));
}

/* ---- calls ---- */

static void count_call(struct https *h, const struct call *call)
{
    metrics_count(h->settings.metrics, call->method ? call->method->name : NULL, call->fault.code,
                  clock_boot_ns() - call->arrived);
}

/* A multicall whose part ended so has no reply yet: what is left of it waits for call->turn. */
static void refuse_call(struct https *h, struct call *call)
{
    dispatch_refuse(h->settings.dispatch, call);
    if (call->reply)
        count_call(h, call);
}

static void run(struct https *h, struct call *call)
{
    dispatch_run(h->settings.dispatch, call);
    if (call->reply)
        count_call(h, call);
}

static void queue_call(struct exchange *e);

/* On a worker, or whoever tells calls that they are late. After the last line the exchange is another thread's, and may
   be gone. */
static void answer_or_queue(struct exchange *e)
{
    if (request_call(e->request)->reply)
        MHD_resume_connection(e->connection);
    else
        queue_call(e);
}

static void run_call(void *arg)
{
    struct exchange *e = arg;
    run(e->door->https, request_call(e->request));
    answer_or_queue(e);
}

static void tell_late(void *arg)
{
    struct exchange *e = arg;
    struct call *call = request_call(e->request);
    struct dispatch *d = e->door->https->settings.dispatch;
    if (call->turn.patient || dispatch_answers(d, &call->turn.sr, &call->fault) == 0)
        fault_set(&call->fault, FAULT_DeadlineExceeded, "the call waited %.1f seconds for its turn and was not begun",
                  (double) (clock_boot_ns() - call->arrived) / 1e9);
    refuse_call(e->door->https, call);
    answer_or_queue(e);
}

/* Queues the call for its turn. What cannot wait is refused, and what is left of the call then, if anything, tries
   next. */
static void queue_call(struct exchange *e)
{
    struct https *h = e->door->https;
    struct call *call = request_call(e->request);
    do {
        const struct job_order order = {.turn = call->turn,
                                        .expires = call->arrived + (int64_t) atomic_load(&h->call_seconds) * 1000000000,
                                        .run = run_call,
                                        .late = tell_late,
                                        .arg = e};
        if (workers_submit(h->settings.workers, &order, &call->fault) == 0)
            return;
        refuse_call(h, call);
    } while (!call->reply);
    MHD_resume_connection(e->connection);
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
    connection_wait(peer_of(e->connection)->connection, STAGE_CALL);
    struct call *call = request_call(e->request);
    if (request_prepare(e->request, h->settings.dispatch)) {
        count_call(h, call);
        return send_reply(e);
    }
    if (call->turn.lock != LOCK_NONE)
        return wait_turn(e);
    run(h, call);
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
static void judge(struct door *door, struct peer *p, const char *method, const char *path, const char *version,
                  const struct http_head *head, char why[PEER_WHY], struct http_verdict *out)
{
    http_judge(method, path, version, head, atomic_load(&door->https->body_bytes), out);
    if (out->route == HTTP_REFUSED)
        return;
    unsigned status = peer_refused(p, why);
    if (status)
        *out = (struct http_verdict){.route = HTTP_REFUSED, .status = status, .sentence = why};
}

static enum MHD_Result begin_exchange(struct door *door, struct MHD_Connection *c, const char *method, const char *path,
                                      const char *version, void **context)
{
    struct https *h = door->https;
    struct peer *p = peer_of(c);
    struct http_head head = {0};
    struct http_verdict verdict;
    char why[PEER_WHY];
    MHD_get_connection_values_n(c, MHD_HEADER_KIND, on_header, &head);
    judge(door, p, method, path, version, &head, why, &verdict);
    if (verdict.route == HTTP_REFUSED)
        return send_refusal(c, &verdict);
    connection_wait(p->connection, STAGE_BODY);
    struct exchange *e = exchange_new(door, c, verdict.route);
    if (verdict.route == HTTP_CALL)
        e->request = request_new(atomic_fetch_add(&h->last_id, 1) + 1, &p->who, verdict.type, &head);
    *context = e;
    return MHD_YES;
}

/* The library calls this with the head, with each piece of the body, when the body is whole, and after a suspended
   connection was resumed. MHD_NO closes the connection. */
enum MHD_Result exchange_request(void *arg, struct MHD_Connection *c, const char *path, const char *method,
                                 const char *version, const char *piece, size_t *length, void **context)
{
    struct exchange *e = *context;
    if (!e)
        return begin_exchange(arg, c, method, path, version, context);
    if (e->route != HTTP_CALL)
        return send_page(e);
    if (*length > 0) {
        bool taken = request_take(e->request, piece, *length);
        *length = 0;
        return taken ? MHD_YES : MHD_NO;
    }
    return e->begun ? send_reply(e) : begin_call(e);
}

/* The answer was sent, or the connection broke. Never while a worker has the call: its connection is suspended then. */
void exchange_completed(void *arg, struct MHD_Connection *c, void **context, enum MHD_RequestTerminationCode why)
{
    (void) arg;
    (void) why;
    struct exchange *e = *context;
    connection_wait(peer_of(c)->connection, STAGE_IDLE);
    if (!e)
        return;
    *context = NULL;
    if (e->begun)
        count_ended(e->door->https);
    request_free(e->request);
    free(e->page);
    free(e);
}
