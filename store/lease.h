/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attachments (which host has an SR or a disk attached: a record, not exclusive) and leases (who may use a disk's data:
   read-only shared, read-write exclusive). Holders are identity.holder texts. Epochs are server-wide, durable and never
   given twice. */
#ifndef SMAPI_STORE_LEASE_H
#define SMAPI_STORE_LEASE_H

#include "server/base/model.h"
#include "store/store.h"

struct attachment {
    struct uuid vdi; /* none: the SR itself */
    const char *holder;
    bool writable;
    int64_t since; /* wall clock */
};

/* Records it; 0 also when it is there already. A disk attached read-only by this holder is not made writable, nor the
   other way: -1 with VDIInUse. */
int store_attach(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder, bool writable,
                 struct fault *f);
/* 0 also when there is none. */
int store_detach(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder, struct fault *f);
/* The one of this holder; *out NULL when there is none. vdi none asks for the SR's. */
int store_attachment_find(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                          struct arena *a, struct attachment **out, struct fault *f);
/* Of one disk (any holder), of the SR itself (vdi none), or with holder not NULL the disks that holder has in the SR.
 */
int store_attachment_list(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                          struct arena *a, struct attachment **out, size_t *count, struct fault *f);

struct lease {
    struct uuid vdi;
    const char *holder;
    bool writable;
    uint64_t epoch;
    int64_t since; /* wall clock, for sentences only */
};

/* Takes it, or finds it held by the same holder in the same mode (same epoch again). Another holder whose mode
   excludes this one, or the same holder in the other mode: -1 with VDIInUse and a sentence naming holder, mode, epoch
   and since when. */
int store_lease_take(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder, bool writable,
                     uint64_t *epoch, struct fault *f);
/* 0 also when this holder has none. Never touches another's. */
int store_lease_release(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                        struct fault *f);
/* Of one disk; vdi none: of all disks of the SR. In order of epoch. */
int store_lease_list(struct txn *t, const struct uuid *sr, const struct uuid *vdi, struct arena *a, struct lease **out,
                     size_t *count, struct fault *f);

#endif
