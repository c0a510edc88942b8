/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One HTTP POST to the local smapid over its UNIX socket, under one absolute deadline. */
#ifndef SMAPI_BIN_BRIDGE_POST_H
#define SMAPI_BIN_BRIDGE_POST_H

#include "server/bin/bridge_conf.h"

#define BRIDGE_REPLY_MAX 16777216UL /* bytes */

struct bridge_request {
    const struct bridge_conf *conf;
    const char *type; /* of the path /sm/<type>; letters and digits only; NULL for /RPC2 */
    char *body;       /* not changed; sendmsg(2) takes no const */
    size_t length;
    int64_t deadline; /* on clock_boot_ns() */
};

/* On one thread. Sends the call, with an operation id of its own and what the environment says of the caller
   (TRACEPARENT, ORIGINATOR), and waits for the answer: *out, malloc'd, the body of a 200. -1 with
     SRUnavailable     nothing listens there, at once;
     DeadlineExceeded  connecting, sending or answering took too long;
     BadRequest, EIO   another status (4xx; the rest), with its first line; an answer that is cut off, has no length, is
                       larger than BRIDGE_REPLY_MAX, or is no HTTP or no XML. */
int bridge_post(const struct bridge_request *r, char **out, size_t *out_length, struct fault *f);

#endif
