/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What handlers share behind struct dispatch, and the small questions they all ask. */
#ifndef SMAPI_HANDLERS_STATE_H
#define SMAPI_HANDLERS_STATE_H

#include "handlers/dispatch.h"
#include "handlers/method.h"
#include "handlers/phases.h"
#include "handlers/registry.h"
#include <stdatomic.h>

struct dispatch {
    struct dispatch_settings settings;
    struct registry *registry;
    atomic_size_t recoveries_left;
};

/* The bracket of a MEDIUM, SYNC or STORE call (bracket.c): replay, intent, effects, result, reply. Fills c->reply when
   the journal had to hold the same bytes, otherwise leaves that to the caller. */
int bracket_run(struct dispatch *d, struct call *c, struct fault *f);

/* For a call that is several: sets *kept when an earlier reply was found under its operation id, and c->reply to it. */
int bracket_replay(struct dispatch *d, struct call *c, bool *kept, struct fault *f);
/* Keeps c->reply under its operation id, if it has one: a success, or a refusal that would be given again. */
int bracket_keep(struct dispatch *d, struct call *c, struct fault *f);

/* Encodes c->result into c->reply. */
void reply_result(struct dispatch *d, struct call *c);
void reply_fault(struct dispatch *d, struct call *c, const struct fault *f);

/* Settles what is open on an SR and brings its connection in line with its attachments (recover.c).
   Before that it waits, so long, for programs that an earlier start left running. -1 when something could not be
   settled. */
int recover_sr(struct dispatch *d, struct sr *sr, unsigned hold_seconds, struct fault *f);
#define HOLD_BRIEFLY 2 /* seconds: in a call, which is to answer */
/* An operation of a call that failed or was cut off: brought to an end on the medium. SETTLED_STUCK, with 0 and the
   reason in f, when it is about a disk and what is there cannot be explained: the disk is to be quarantined. -1 when
   not even the SR can be judged. */
int recover_call(struct dispatch *d, struct call *c, enum settled *how, struct fault *f);
/* In a transaction: the operation ends with c->fault, and its disks are served no more until a person has looked at
   them. Nothing on the medium is touched. */
int recover_quarantine(struct txn *t, struct dispatch *d, struct call *c, struct fault *f);

/* SRUnavailable when the call's SR is not known here. */
int need_sr(const struct call *c, struct fault *f);
/* SRUnavailable when the SR is not live or the caller has not attached it. */
int need_attached(struct txn *t, const struct call *c, struct fault *f);
/* The disk a call names, by uuid and location, LIVE, DAMAGED or QUARANTINED; VDIUnavailable when there is none. */
int need_vdi(struct txn *t, const struct call *c, struct vdi **out, struct fault *f);
/* The same for calls that are not for a hidden one. */
int need_visible_vdi(struct txn *t, const struct call *c, struct vdi **out, struct fault *f);
/* VDIInUse when any host has a lease on the disk, naming it. */
int refuse_if_leased(struct txn *t, const struct call *c, const struct vdi *vdi, struct fault *f);
/* The same with the row of any state; *out NULL when there is none. */
int find_vdi(struct txn *t, const struct call *c, struct vdi **out, struct fault *f);

/* For calls that reach an SR: the caller's device_config for one that is not connected, an empty one leaving what is
   known; into the registry one without a row, of which the caller says where it is; its row. */
int sr_take_config(struct dispatch *d, struct call *c, struct fault *f);
int sr_introduce(struct dispatch *d, struct call *c, struct fault *f);
int sr_put_row(struct txn *t, const struct call *c, enum sr_state state, struct fault *f);

/* Rows after a scan: new disks in, changed ones changed, vanished ones out. Uses work->found, known, totals. */
int scan_record(struct txn *t, const struct uuid *sr, struct work *work, struct fault *f);
/* Looks at the medium for it. */
int scan_look(struct dispatch *d, struct sr *sr, struct work *work, struct fault *f);

/* The arguments of a call as its struct. */
#define ARGS(c, name) ((const struct name##_args *) (c)->args)

struct value *result_nil(struct call *c);
struct value *result_attach(struct call *c, const struct vdi *vdi); /* with work->path */
struct value *result_vdi_info(struct arena *a, const struct vdi *vdi);

#endif
