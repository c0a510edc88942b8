/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text to values: the strict gate over every byte first, then libxml2's SAX events. */
#ifndef SMAPI_WIRE_READ_H
#define SMAPI_WIRE_READ_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include "server/wire/value.h"

/* Limits of the gate, for requests (design: at most 128 KiB, which is what the kernel lets xapi pass in one argument).
 */
#define WIRE_BODY_MAX    (128U * 1024U)
#define WIRE_DEPTH_MAX   20U /* elements open at once: what a SMAPI call within a system.multicall needs */
#define WIRE_ELEMENT_MAX 4096U
#define WIRE_MEMBER_MAX  512U /* per struct */
#define WIRE_NAME_MAX    128U /* bytes of a member's name */
#define WIRE_STRING_MAX  (64U * 1024U)

/* One XML-RPC methodCall. method and params live in the arena the reader was given. */
struct wire_call {
    const char *method;
    struct value **params;
    size_t count;
};

/* Checks and reads a body of length bytes (not NUL-terminated). -1 with fault BadRequest, naming what is wrong and at
   which byte, never quoting the input. Never fetches anything, expands only the five predefined and
   numeric references. What it keeps comes only from arena, in proportion to length and below 1 MiB; libxml2's parser
   is kept from call to call, one for each thread that reads. Safe on any thread. */
int wire_read_call(struct arena *arena, const char *body, size_t length, struct wire_call *out, struct fault *f);

/* Reads a methodResponse of ours, under the limits for requests: *out is its value. A fault in it becomes f, with its
   code; anything else is EIO. */
int wire_read_reply(struct arena *arena, const char *body, size_t length, struct value **out, struct fault *f);

/* The gate alone (fuzz target and tests): one pass, no allocation; 0 when the bytes may be handed to a library. Holds
   every limit above and the grammar of XML-RPC, except that members of one name in one struct pass it: wire_read_call
   refuses those while it builds the struct. */
int wire_gate(const char *body, size_t length, struct fault *f);

#endif
