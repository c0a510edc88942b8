/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One request on its way: what every call has. Made by the server, filled by dispatch, freed by the server. */
#ifndef SMAPI_HANDLERS_CALL_H
#define SMAPI_HANDLERS_CALL_H

#include "server/base/fault.h"
#include "server/base/identity.h"
#include "server/base/secret.h"
#include "server/base/turn.h"
#include "server/wire/value.h"
#include "store/host.h"
#include "store/journal.h"

struct method;
struct multicall;
struct sr;
struct work;

/* What most calls name, taken from their arguments. */
struct call_keys {
    struct uuid sr, vdi;    /* none when not given */
    const char *location;   /* of the disk; NULL when not given */
    struct pairs config;    /* device_config without the members xapi and /RPC2 put there (SRmaster, type); secret ones
                               show SECRET_SHOWN */
    struct secrets secrets; /* what the secret members of device_config hide */
    struct holder holder;   /* who takes leases by this call */
    bool slave;             /* device_config says SRmaster=false: the host that calls is not its pool's master */
    const char *type;       /* of the path, or device_config's member type; NULL when neither */
};

struct call {
    /* From the server. */
    struct arena *arena;   /* the call's; everything below lives in it */
    uint64_t id;           /* counts calls of this process, for log lines and the header X-SMAPI-Call-Id */
    unsigned part;         /* of a system.multicall, from 1; 0 for a call of its own */
    struct identity who;   /* dispatch_prepare puts there who it is by the permissions */
    struct identity shown; /* from dispatch_prepare: who the transport proved */
    const char *type;      /* of the path /sm/<type>; NULL for /RPC2 */
    struct op_key op;      /* X-SMAPI-Op-Id; digest filled when given */
    const char *trace;     /* traceparent header, or NULL */
    int64_t arrived;       /* clock_boot_ns when the body was whole */

    /* From dispatch_prepare. */
    const struct method *method; /* NULL until known */
    const void *args;            /* struct <name>_args of its row */
    struct call_keys keys;
    struct turn turn;
    struct multicall *multicall; /* of system.multicall, else NULL */

    /* While it runs. */
    struct sr *sr; /* of calls on a known SR */
    const struct lease_terms *terms;
    struct plan plan;  /* of MEDIUM calls */
    struct work *work; /* what the phases of the call hand to each other */
    int64_t started;
    struct value *result; /* set on success */
    uint64_t epoch;       /* header X-SMAPI-Epoch when not 0 */
    struct fault fault;   /* code not 0: what went wrong */

    /* The outcome: the bytes of the methodResponse, in the arena. Set once dispatch is done with the call. */
    const char *reply;
    size_t reply_length;
};

#endif
