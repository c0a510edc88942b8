/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a method does, cut where the journal has to commit. dispatch.c runs the phases a row's effect asks for:

     READS   act
     STORE   record                          one commit
     SYNC    look, act, record               one commit
     MEDIUM  look, check | act | record      two commits: the intent with check, the result with record

   then after, once the result is durable. A phase that is NULL is left out. */
#ifndef SMAPI_HANDLERS_PHASES_H
#define SMAPI_HANDLERS_PHASES_H

#include "handlers/call.h"
#include "handlers/registry.h"
#include "store/lease.h"
#include "store/sr.h"
#include "store/store.h"
#include "store/vdi.h"

struct dispatch;
struct revocation;

/* What the phases of one call, and recovery, hand to each other. Lives in the call's arena. */
struct work {
    struct arena *arena;
    struct vdi *vdi;         /* the disk the call is about, as its row says; check or look finds it */
    struct vdi wanted;       /* the disk to be made */
    struct vdi done;         /* the disk as it stands after act */
    struct vdi base;         /* the base a fork leaves behind; uuid none when it left none */
    struct vdi parent;       /* vdi_compose: the disk that becomes the parent */
    struct deletion deleted; /* what vdi_delete left of the disk and its ancestors */
    struct vdi_list found;   /* of a scan */
    struct vdi_list known;   /* rows before the scan */
    struct sr_totals totals; /* of a scan */
    bool scanned;
    const char *path;              /* where vdi_attach says the disk is */
    bool writable;                 /* of vdi_attach and vdi_activate, once decided */
    bool last;                     /* no other host holds it: the driver is to let go too */
    struct granted granted;        /* of vdi_activate */
    struct lease *lease;           /* of vdi_deactivate: the caller's */
    struct revocation *revocation; /* of lease_break */
    uint64_t epoch_seen;           /* of sr_attach: in the data paths */
    struct owner owner;            /* of sr_take_over: whose the SR was */
    bool ours, takes;              /* of it: it was this server's already; it is to be made so */
    struct host *host;             /* of host_register and host_renew */
    enum meeting meeting;
    struct stale_disk *stale; /* of that host */
    size_t stale_count;
    struct lease *leases; /* of host_break and host_unregister: those the parts are about */
    size_t lease_count;
    bool more;  /* there are others */
    bool fresh; /* the call put the SR into the registry, and takes it out again when it fails */
};

/* What a call does to the connection of its SR, besides rows: kernel state, which recovery brings in line by itself. */
enum link { LINK_NONE, LINK_ATTACHES, LINK_DETACHES, LINK_CLAIMS /* whatever its standing; leaves it as it is */ };

/* A call that is several: each is done under a turn of its own, as if the caller had sent it. */
struct part {
    const char *method;
    struct value *params;
    bool closes; /* the last one: begun only when all others did what they should; its answer is the call's, and kept
                    under the call's operation id in its own commit */
};

/* How a part ended; its code is 0 when it did what it should. */
struct parted {
    const char *reply;
    size_t reply_length;
    struct fault fault;
};

struct phases {
    enum link link;
    bool retries; /* may come while the SR is stuck: what it brings, or does, may bring it out of that */
    /* On the worker, before all other phases, which it takes the place of unless *parts stays NULL. gather answers the
       call once all parts are done, unless one closed it: it sets c->result or the fault. */
    int (*split)(struct dispatch *d, struct call *c, const struct part **parts, size_t *count, struct fault *f);
    int (*gather)(struct dispatch *d, struct call *c, const struct parted *parts, size_t count, struct fault *f);
    /* On the worker, before any transaction: what only the medium knows. */
    int (*look)(struct dispatch *d, struct call *c, struct fault *f);
    /* In the intent's transaction: all checks on rows, rows that say "under way", and the plan. Setting c->result ends
       the call here with success (it was done before). */
    int (*check)(struct txn *t, struct call *c, struct fault *f);
    /* On the worker, no transaction open: the medium. For READS it sets c->result. */
    int (*act)(struct dispatch *d, struct call *c, struct fault *f);
    /* In the result's transaction: rows, and c->result. For MEDIUM recovery runs it too, with a call that has only sr,
       plan, work and arena. */
    int (*record)(struct txn *t, struct call *c, struct fault *f);
    /* In a transaction, when the operation was undone: takes back what check wrote. */
    int (*undo)(struct txn *t, struct call *c, struct fault *f);
    /* After the last commit. When it fails it has taken back what record wrote, the kept reply too. */
    int (*after)(struct dispatch *d, struct call *c, struct fault *f);
};

#define METHOD(m, wire, lock, cap, effect, verb, result, text) extern const struct phases m##_phases;
#include "handlers/methods.def"
#undef METHOD

#endif
