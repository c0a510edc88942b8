/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What https.c (doors and connections) and https_exchange.c (requests and answers) share. */
#ifndef SMAPI_SERVER_HTTPS_INTERNAL_H
#define SMAPI_SERVER_HTTPS_INTERNAL_H

#include "server/https.h"
#include "server/listener.h"
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

/* A listening socket and the library's daemon that serves it, on a thread of its own. */
struct door {
    struct https *https;
    struct MHD_Daemon *daemon; /* NULL when this door was not asked for */
    bool tls, passed;          /* passed: the socket is the service manager's too */
    int listener;              /* ours again once the door is quiesced; -1 before */
};

struct https {
    struct https_settings settings;
    struct door tls_door, unix_door;
    unsigned port;
    struct listener_name name; /* of the UNIX socket */
    struct connections *connections;
    atomic_uint body_bytes, call_seconds; /* of the limits */
    atomic_uint_fast64_t last_id;
    atomic_uint_fast64_t reading;                         /* counts changes of tls and of who is who */
    atomic_uint_fast64_t full, resumed, refused, crowded; /* handshakes; requests refused for certificate or number */
    atomic_bool closing;
    pthread_t minder; /* keeps deadlines */
    bool minded;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t sent;   /* under_way became 0 */
    pthread_cond_t leave;  /* closing or leaving became true */
    bool leaving;          /* the minder is to end */
    unsigned under_way;    /* calls begun, whose answer was not sent yet */
    struct tls *tls;       /* the newest reading */
};

/* Who is at the other end of a connection; made with it, freed with it. All on its door's thread. */
struct peer {
    struct https *https;
    struct connection *connection;
    struct identity who;
    bool tls;
    bool excess;                /* its identity has too many connections already */
    uint64_t reading;           /* of struct https, when the certificate was judged last */
    struct tls_session session; /* of the TLS door */
};

/* Why a request of this peer is not served: an HTTP status and a sentence; 0 when it is. */
enum { PEER_WHY = 192 };
unsigned peer_refused(struct peer *p, char why[PEER_WHY]);

static inline struct peer *peer_of(struct MHD_Connection *c)
{
    return MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* The library's callbacks for requests; arg is the door. */
enum MHD_Result exchange_request(void *arg, struct MHD_Connection *c, const char *path, const char *method,
                                 const char *version, const char *piece, size_t *length, void **context);
void exchange_completed(void *arg, struct MHD_Connection *c, void **context, enum MHD_RequestTerminationCode why);

/* The page of /metrics. */
void https_metrics(struct https *h, struct text *out);

#endif
