/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One call on its way through the server: from its head and the bytes of its body to a struct call that dispatch has
   prepared. Knows no HTTP library. */
#ifndef SMAPI_SERVER_REQUEST_H
#define SMAPI_SERVER_REQUEST_H

#include "handlers/call.h"
#include "handlers/dispatch.h"
#include "server/http.h"

struct request;

void request_free(struct request *r); /* NULL is fine; not while dispatch runs it */

/* type: of /sm/<type>, "" for /RPC2. What it needs of head is copied. */
struct request *request_new(uint64_t id, const struct identity *who, const char *type, const struct http_head *head)
    DEALLOC(request_free);

/* More of the body; false, and nothing kept, when it is more than WIRE_BODY_MAX. */
bool request_take(struct request *r, const char *bytes, size_t length);

/* The body is whole: reads it and has dispatch prepare the call. True when the call is done already, with its reply. */
bool request_prepare(struct request *r, struct dispatch *d);

/* Lives as long as the request. */
struct call *request_call(struct request *r);

#endif
