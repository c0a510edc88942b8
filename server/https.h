/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The two doors: HTTPS with mutual TLS, and HTTP on a UNIX socket with peer credentials; one handler behind both.
   A call is read here, prepared on the thread that read it, and done there too when it takes no turn; otherwise its
   connection is set aside until a worker has the answer. */
#ifndef SMAPI_SERVER_HTTPS_H
#define SMAPI_SERVER_HTTPS_H

#include "handlers/dispatch.h"
#include "server/connections.h"
#include "server/metrics.h"
#include "server/tls.h"
#include "server/workers.h"

struct https;

/* What may change while the doors are open. */
struct https_limits {
    struct connection_limits connections; /* per_identity: on the HTTPS door alone */
    unsigned body_bytes;                  /* WIRE_BODY_MAX at most */
    unsigned call_seconds;                /* how long a call may wait for its turn */
};

struct https_settings {
    const char *address; /* of the HTTPS listener; "" for none */
    unsigned port;
    struct tls *tls;                 /* not NULL with an address; https takes a reference of its own */
    const char *socket;              /* path; "" for none */
    int passed_https, passed_socket; /* listening sockets to use instead of these two; -1: none */
    unsigned connections;            /* open ones of each door */
    struct https_limits limits;
    struct uuid host; /* whom callers on the UNIX socket are */
    struct dispatch *dispatch;
    struct workers *workers;
    struct metrics *metrics;
    void (*more_metrics)(void *arg, struct text *out); /* whatever else /metrics is to tell; quick */
    void *arg;
    const char *versions; /* JSON, answered by /versions */
};

/* Opens both. The settings and what they point to live until https_stop. -1 with a sentence in the fault. */
int https_start(const struct https_settings *settings, struct https **out, struct fault *f);

/* Where the HTTPS listener is; 0 without one. */
unsigned https_port(const struct https *h);

/* From now on, for new connections and for the next request of open ones. tls NULL: as before; but who is behind each
   certificate is asked again all the same. */
void https_renew(struct https *h, struct tls *tls, const struct https_limits *limits);

/* The end has two halves, between which workers_drain lets the calls under way come to their answers.
   quiesce: no more connections; calls that come on open ones are answered 503. On a socket that was passed, connections
   wait for the next daemon.
   stop: sends what is still to be sent, five seconds at most, then closes everything. */
void https_quiesce(struct https *h);
void https_stop(struct https *h);

#endif
