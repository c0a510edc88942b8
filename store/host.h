/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hosts, and the session each has registered: a boot of its kernel, and a run (nonce) of the agent that renews. One
   host lease covers all leases of the host. Moments are nanoseconds of the server's CLOCK_BOOTTIME, given by the
   caller. */
#ifndef SMAPI_STORE_HOST_H
#define SMAPI_STORE_HOST_H

#include "server/base/arena.h"
#include "server/base/uuid.h"
#include "store/store.h"

/* How long things last, in ns; server/config.def has them as section lease. */
struct lease_terms {
    int64_t renew, warn, stop; /* of the host: it renews so often, complains after warn, writes nothing after stop */
    int64_t ttl;               /* a host lease, from its commit */
    int64_t watchdog;          /* a host that could not renew is reset within this */
    int64_t dead;              /* from the last commit on; not below ttl + watchdog + a second for drift */
};

/* Who holds: the identity, and what the caller says of itself; none when it says nothing. */
struct holder {
    const char *name; /* identity.holder */
    struct uuid boot, nonce;
};

enum host_state { HOST_UNREGISTERED, HOST_LIVE, HOST_COLLIDED, HOST_STATE_COUNT };
extern const char *const host_state_names[HOST_STATE_COUNT]; /* "unregistered", "live", "collided" */

struct host {
    const char *name;
    enum host_state state;
    struct uuid boot, nonce;
    bool watchdog;
    bool heard;                      /* has renewed since this server started */
    int64_t term;                    /* promised to it */
    int64_t expires;                 /* of its lease */
    struct uuid old_boot, old_nonce; /* the session before */
    int64_t old_expires;             /* until then that one may still be alive */
    bool stale;                      /* leases or attachments of an earlier boot are left */
    uint64_t broken;                 /* the newest of its epochs that was broken; 0: none */
    int64_t last;                    /* wall clock */
};

/* Its lease counts: it renewed in time and collides with nobody. */
bool host_is_live(const struct host *h, int64_t now);

/* *out NULL when nobody of this name was seen. */
int store_host_find(struct txn *t, const char *name, struct arena *a, struct host **out, struct fault *f);
int store_host_list(struct txn *t, struct arena *a, struct host **out, size_t *count, struct fault *f);

enum meeting {
    MEETING_SAME,     /* the session goes on */
    MEETING_AGENT,    /* another agent in the same boot, the one before is over */
    MEETING_BOOT,     /* another boot, or the first session at all */
    MEETING_COLLISION /* two that are alive say to be this host: the row says so, and both are to be refused */
};

/* Registers a session, or goes on with it. LockErr while the host is collided. MEETING_COLLISION is a success of the
   work, whose rows must be kept; the caller refuses. Leases and attachments without a boot become the session's.
   *out is the host as it stands then. */
int store_host_register(struct txn *t, const struct holder *who, bool watchdog, const struct lease_terms *terms,
                        int64_t now, struct arena *a, struct host **out, enum meeting *how, struct fault *f);
/* MEETING_SAME or MEETING_COLLISION. LockErr for a session that is not the host's, without effect. */
int store_host_renew(struct txn *t, const struct holder *who, const struct lease_terms *terms, int64_t now,
                     struct arena *a, struct host **out, enum meeting *how, struct fault *f);
/* Ends the session, which is who's: the host is as if it had never registered, but for what was broken. LockErr,
   without effect, when it is not, or while the host is collided. What it holds is for the caller to look at. */
int store_host_unregister(struct txn *t, const struct holder *who, int64_t now, struct arena *a, struct fault *f);
/* Refuses both, for ttl from now on. */
int host_refuse_collision(const struct host *h, int64_t now, struct fault *f);

/* Disks, at most limit, on which the host has leases or attachments of an earlier boot. None left clears the mark. */
struct stale_disk {
    struct uuid sr, vdi;
};
int store_host_stale(struct txn *t, const struct host *h, size_t limit, struct arena *a, struct stale_disk **out,
                     size_t *count, struct fault *f);

/* Once at each start, before anything is served: every host lease runs for its whole term again; after a restart of the
   machine grace begins, so long that every holder can renew. */
int store_lease_begin(struct txn *t, const struct lease_terms *terms, int64_t now, struct fault *f);
/* Grace from now on. unknown: the rows of leases cannot be believed to be all there are (a database that was rebuilt or
   put back): until every host that could hold one must be dead, no lease for writing is granted. */
int store_grace_begin(struct txn *t, bool unknown, const struct lease_terms *terms, int64_t now, struct fault *f);
/* How long each lasts yet; 0 when it is over. */
/* The same for one SR, which was another server's: no lease of it is granted before who held one there must be dead. */
int store_grace_sr(struct txn *t, const struct uuid *sr, const struct lease_terms *terms, int64_t now, struct fault *f);
struct grace {
    int64_t left, unknown_left;
};
int store_grace_read(struct txn *t, int64_t now, struct grace *out, struct fault *f);
/* The epochs to be granted are above seen, which a data path knows. *restored: they were not, so this database is older
   than the data path. */
int store_epoch_past(struct txn *t, uint64_t seen, bool *restored, struct fault *f);

#endif
