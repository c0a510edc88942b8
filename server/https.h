/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The two doors: HTTPS with mutual TLS, and HTTP on a UNIX socket with peer credentials; one handler behind both.
   A call is read here, prepared on the thread that read it, and done there too when it takes no turn; otherwise its
   connection is set aside until a worker has the answer. */
#ifndef SMAPI_SERVER_HTTPS_H
#define SMAPI_SERVER_HTTPS_H

#include "handlers/dispatch.h"
#include "server/tls.h"
#include "server/workers.h"

struct https;

struct https_settings {
    const char *address; /* of the HTTPS listener; "" for none */
    unsigned port;
    const struct tls *tls; /* not NULL with an address */
    const char *socket;    /* path; "" for none */
    unsigned connections, idle_seconds;
    struct uuid host; /* whom callers on the UNIX socket are */
    struct dispatch *dispatch;
    struct workers *workers;
    const char *versions; /* JSON, answered by /versions */
};

/* Opens both. The settings and what they point to live until https_stop. -1 with a sentence in the fault. */
int https_start(const struct https_settings *settings, struct https **out, struct fault *f);

/* Where the HTTPS listener is; 0 without one. */
unsigned https_port(const struct https *h);

/* The end has two halves, between which workers_drain lets the calls under way come to their answers.
   quiesce: no more connections; calls that come on open ones are answered 503.
   stop: sends what is still to be sent, five seconds at most, then closes everything. */
void https_quiesce(struct https *h);
void https_stop(struct https *h);

#endif
