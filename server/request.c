/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/request.h"

#include "server/base/clock.h"
#include "server/base/text.h"
#include "server/wire/read.h"
#include <assert.h>
#include <openssl/evp.h>
#include <string.h>

/* Nothing a call may ask for comes near: pages, counts and request limits are checked before. */
/* A scan of 100,000 disks whose texts are as long as they may be takes about half of it. */
#define CALL_MEMORY_MAX (2048UL << 20)

enum { BODY_MAX = WIRE_BODY_MAX };

struct request {
    struct arena *arena;
    struct call call;
    struct text body;
    bool op_wanted; /* the header was there, well-formed or not */
};

void request_free(struct request *r)
{
    if (!r)
        return;
    text_free(&r->body);
    arena_free(r->arena);
    free(r);
}

static void take_op_id(struct request *r, const struct http_head *head)
{
    r->op_wanted = head->op_ids > 0;
    if (head->op_ids == 1 && uuid_parse_text(head->op_id, &r->call.op.id))
        r->call.op.given = true;
}

struct request *request_new(uint64_t id, const struct identity *who, const char *type, const struct http_head *head)
{
    struct request *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->arena = arena_new(CALL_MEMORY_MAX);
    r->body = TEXT_OF(BODY_MAX);
    r->call.arena = r->arena;
    r->call.id = id;
    r->call.who = *who;
    r->call.type = type[0] ? arena_text(r->arena, type) : NULL;
    r->call.op.identity = r->call.who.name;
    if (head->traces == 1 && http_trace_well_formed(head->trace))
        r->call.trace = arena_text(r->arena, head->trace);
    take_op_id(r, head);
    return r;
}

bool request_take(struct request *r, const char *bytes, size_t length)
{
    text_add_bytes(&r->body, bytes, length);
    return !r->body.full;
}

/* Binds the operation id, if there is one, to the bytes of this body. */
static int bind_op(struct request *r, struct fault *f)
{
    static_assert(DIGEST_SIZE == 32, "SHA-256");
    if (!r->op_wanted)
        return 0;
    if (!r->call.op.given)
        return fault_set(f, FAULT_BadRequest, "X-SMAPI-Op-Id must be given once and be a uuid");
    if (EVP_Digest(r->body.data, r->body.length, r->call.op.digest, NULL, EVP_sha256(), NULL) != 1)
        return fault_set(f, FAULT_EIO, "OpenSSL makes no SHA-256");
    return 0;
}

static bool prepare(struct request *r, struct dispatch *d)
{
    struct wire_call read;
    if (bind_op(r, &r->call.fault) < 0 ||
        wire_read_call(r->arena, r->body.data, r->body.length, &read, &r->call.fault) < 0) {
        dispatch_refuse(d, &r->call);
        return true;
    }
    return dispatch_prepare(d, &r->call, read.method, read.params, read.count);
}

bool request_prepare(struct request *r, struct dispatch *d)
{
    text_add(&r->body, ""); /* an empty body is a text too */
    r->call.arrived = clock_boot_ns();
    bool done = prepare(r, d);
    text_free(&r->body); /* the values were copied out of it */
    return done;
}

struct call *request_call(struct request *r)
{
    return &r->call;
}
