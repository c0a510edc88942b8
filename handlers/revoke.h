/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ending a lease for its holder: evidence, then the data path, then the rows. */
#ifndef SMAPI_HANDLERS_REVOKE_H
#define SMAPI_HANDLERS_REVOKE_H

#include "handlers/state.h"

enum evidence_kind {
#define EVIDENCE(name, class, dead, overrides, sentence) EVIDENCE_##name,
#include "handlers/evidence.def"
#undef EVIDENCE
    EVIDENCE_COUNT
};

/* EVIDENCE_COUNT for a name that is in no row. */
enum evidence_kind evidence_find(const char *name);
/* Of a lease's why, which begins with the name: whether it says that the host is dead. */
bool evidence_of_death(const char *why);

struct revocation {
    struct dispatch *d;
    struct sr *sr;
    struct uuid vdi;
    const char *host; /* whose lease, and which */
    uint64_t epoch;
    enum evidence_kind evidence;
    const char *who, *reason; /* who says so, and why */
    struct arena *arena;

    /* Filled on the way. */
    struct lease *lease;
    const char *why; /* evidence and reason, as the rows keep them */
    bool gone;       /* it was broken before: nothing is left to be done */
    bool last_lease, last_attachment;
};

/* Everything but the last commit. The turn of the disk is held. LockErr without effect when the lease is not there or
   the evidence does not hold; VDIUnavailable, with the lease in quarantine, when its data path cannot be shown to be
   closed. */
int revoke_close(struct revocation *r, struct fault *f);
/* The last commit: the lease goes, and what a dead host had attached. */
int revoke_record(struct txn *t, const struct revocation *r, struct fault *f);

/* Sets the work going on what is left of earlier boots of the host of this call: what has its evidence is released, the
   rest waits for a later renewal. */
void revoke_stale(struct dispatch *d, const struct call *c);

/* Leases of an SR that was connected after a restart. */
int restore_leases(struct dispatch *d, struct sr *sr, const struct lease *leases, size_t count, struct fault *f);
/* Epochs go past what the data paths of an SR know, before anything is granted there; note_epoch_seen in a transaction
   that is open already. When they had to, the database is older than the data path, and grace begins. */
int restore_epochs(struct dispatch *d, struct sr *sr, struct fault *f);
int note_epoch_seen(struct txn *t, uint64_t seen, const struct lease_terms *terms, struct fault *f);

/* What a driver is told of a disk whose row may say anything. */
struct vdi disk_named(const struct uuid *uuid);

#endif
