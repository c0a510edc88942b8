/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attachments (which host has an SR or a disk attached: a record, not exclusive) and leases (who may use a disk's data:
   read-only shared, read-write exclusive). Epochs are server-wide, durable and never given twice. A lease ends by its
   holder's release, or is broken with evidence; never by time alone. */
#ifndef SMAPI_STORE_LEASE_H
#define SMAPI_STORE_LEASE_H

#include "server/base/model.h"
#include "store/host.h"
#include "store/store.h"

struct attachment {
    struct uuid vdi; /* none: the SR itself */
    const char *holder;
    bool writable;
    int64_t since;    /* wall clock */
    struct uuid boot; /* of the host's kernel then; none when nobody said */
};

/* Records it; 0 also when it is there already. A disk attached read-only by this holder is not made writable, nor the
   other way: -1 with VDIInUse. One of another boot of the holder is replaced. */
int store_attach(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const struct holder *holder,
                 bool writable, struct fault *f);
/* Whether who may end the attachment: LockErr when it is of the host's live session, and who says to be another. */
int store_detach_check(struct txn *t, const struct attachment *held, const struct holder *who, int64_t now,
                       struct arena *a, struct fault *f);
/* 0 also when there is none. */
int store_detach(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder, struct fault *f);
/* The one of this holder; *out NULL when there is none. vdi none asks for the SR's. */
int store_attachment_find(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                          struct arena *a, struct attachment **out, struct fault *f);
/* Of one disk (any holder), of the SR itself (vdi none), or with holder not NULL the disks that holder has in the SR.
 */
int store_attachment_list(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                          struct arena *a, struct attachment **out, size_t *count, struct fault *f);
/* Any one of a disk of the SR; *out NULL when there is none. */
int store_attachment_any(struct txn *t, const struct uuid *sr, struct arena *a, struct attachment **out,
                         struct fault *f);

/* Where the data path can be fenced a lease is GRANTING from its first commit until the fence stands, and RELEASING or
   REVOKING from a first commit until the data path is known to be closed. Where it cannot, it is HELD or not there. */
enum lease_state {
    LEASE_GRANTING,
    LEASE_HELD,
    LEASE_RELEASING,
    LEASE_REVOKING,   /* why says by whom and with which evidence */
    LEASE_QUARANTINED /* why says what could not be verified: blocked until its holder's release or a break succeeds */
};

struct lease {
    struct uuid sr, vdi;
    const char *holder;
    bool writable;
    uint64_t epoch;
    int64_t since; /* wall clock, for sentences only */
    enum lease_state state;
    struct uuid boot, nonce; /* of the session it was taken in; none without one */
    const char *fence;       /* what its SR's type could do then */
    const char *why;
};

const char *lease_state_name(enum lease_state state);

struct lease_ask {
    struct uuid sr, vdi;
    struct holder who;
    bool writable;
    uint64_t epoch;         /* the lease the caller says to have; 0: it says nothing */
    enum lease_state first; /* GRANTING or HELD: what a new one begins as */
    const char *fence;
    int64_t now;
};

struct granted {
    uint64_t epoch;
    enum lease_state state; /* as its row has it */
    bool fresh;             /* by this very call */
};

/* Takes it, or finds it held by the same holder in the same mode (same epoch again). VDIInUse, naming holder, mode,
   epoch and since when: another holder whose mode excludes this one, the same holder in the other mode, or nobody knows
   yet who writes (unknown grace). VDIUnavailable: the holder's own is in quarantine. LockErr: the caller is not the
   host's live session, or has not the epoch it says. A lease of the holder's that is of an earlier boot gives way to
   the new one, unless that boot may still be alive. */
int store_lease_take(struct txn *t, const struct lease_ask *ask, struct granted *out, struct fault *f);
/* 0 also when this holder has none. Never touches another's. LockErr, without effect, when epoch (not 0) is not the
   lease's, or who says to be another session than the one that is alive. */
int store_lease_release(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const struct holder *who,
                        uint64_t epoch, int64_t now, struct fault *f);
/* Whether who may release l: 0 or LockErr as above. */
int store_lease_check(struct txn *t, const struct lease *l, const struct holder *who, uint64_t epoch, int64_t now,
                      struct fault *f);
/* By epoch, on this disk; *out NULL when there is none (any more). */
int store_lease_find(struct txn *t, const struct uuid *sr, const struct uuid *vdi, uint64_t epoch, struct arena *a,
                     struct lease **out, struct fault *f);
/* Whether the trail says that the holder's lease of this epoch on this disk was broken. Reads all of it. */
int store_lease_was_broken(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                           uint64_t epoch, bool *out, struct fault *f);
/* why "" for all but REVOKING and QUARANTINED; those leave an audit line by who. LockErr when it is gone. */
int store_lease_set(struct txn *t, uint64_t epoch, enum lease_state state, const char *who, const char *why,
                    struct fault *f);
/* Ends the lease for its holder: audited by who, with why, and the host's row remembers the epoch. LockErr when it is
   gone. */
int store_lease_break(struct txn *t, uint64_t epoch, const char *who, const char *why, struct fault *f);
/* Of one disk; vdi none: of all disks of the SR. In order of epoch. */
int store_lease_list(struct txn *t, const struct uuid *sr, const struct uuid *vdi, struct arena *a, struct lease **out,
                     size_t *count, struct fault *f);
/* At most limit whose epoch is above after, in order of epoch: of an SR, of a holder, or of all (sr none, NULL). */
int store_lease_page(struct txn *t, const struct uuid *sr, const char *holder, uint64_t after, size_t limit,
                     struct arena *a, struct lease **out, size_t *count, struct fault *f);
/* How many a holder has. */
int store_lease_count(struct txn *t, const char *holder, uint64_t *out, struct fault *f);

#endif
