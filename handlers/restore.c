/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leases after a restart: what was held is held again, and what was under way comes to its end, forward. */
#include "handlers/revoke.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include <string.h>

struct restoring {
    struct dispatch *d;
    struct sr *sr;
    const struct lease *lease;
    const char *why;
    uint64_t seen;
};

static int record_held(struct txn *t, void *arg, struct fault *f)
{
    const struct restoring *r = arg;
    return store_lease_set(t, r->lease->epoch, LEASE_HELD, "smapid", "", f);
}

static int record_released(struct txn *t, void *arg, struct fault *f)
{
    const struct restoring *r = arg;
    const struct holder who = {.name = r->lease->holder};
    return store_lease_release(t, &r->sr->uuid, &r->lease->vdi, &who, r->lease->epoch, clock_boot_ns(), f);
}

/* The evidence was judged before the break began; the first word of why is its name. */
static int record_broken(struct txn *t, void *arg, struct fault *f)
{
    const struct restoring *r = arg;
    if (store_lease_break(t, r->lease->epoch, "smapid", r->lease->why, f) < 0)
        return -1;
    return evidence_of_death(r->lease->why) ? store_detach(t, &r->sr->uuid, &r->lease->vdi, r->lease->holder, f) : 0;
}

static int record_quarantined(struct txn *t, void *arg, struct fault *f)
{
    const struct restoring *r = arg;
    return store_lease_set(t, r->lease->epoch, LEASE_QUARANTINED, "smapid", r->why, f);
}

static int close_path(const struct restoring *r, const struct vdi *vdi, struct fault *f)
{
    return backend_fences(r->sr) ? backend_vdi_fence(r->sr, vdi, r->lease->holder, r->lease->epoch, f)
                                 : backend_vdi_deactivate(r->sr, vdi, f);
}

static int quarantine(struct restoring *r, struct fault *f)
{
    char why[FAULT_DETAIL + 32];
    snprintf(why, sizeof why, "after a restart: %s", f->detail);
    r->why = why;
    log_line(LOG_WARNING, "VDI %s: the lease of epoch %llu is in quarantine: %s", r->lease->vdi.text,
             (unsigned long long) r->lease->epoch, why);
    return store_write(r->d->settings.store, record_quarantined, r, f);
}

static int restore_one(struct restoring *r, struct fault *f)
{
    const struct lease *l = r->lease;
    struct store *store = r->d->settings.store;
    const struct vdi vdi = disk_named(&l->vdi);
    switch (l->state) {
    case LEASE_HELD:
        return backend_vdi_restore(r->sr, &vdi, l->epoch, l->writable, f);
    case LEASE_GRANTING:
        if (backend_vdi_restore(r->sr, &vdi, l->epoch, l->writable, f) < 0)
            return quarantine(r, f);
        return store_write(store, record_held, r, f);
    case LEASE_RELEASING:
    case LEASE_REVOKING:
        if (close_path(r, &vdi, f) < 0)
            return quarantine(r, f);
        return store_write(store, l->state == LEASE_RELEASING ? record_released : record_broken, r, f);
    case LEASE_QUARANTINED:
        break;
    }
    return 0;
}

int restore_leases(struct dispatch *d, struct sr *sr, const struct lease *leases, size_t count, struct fault *f)
{
    struct restoring r = {.d = d, .sr = sr};
    for (size_t i = 0; i < count; i++) {
        r.lease = &leases[i];
        if (restore_one(&r, f) < 0)
            return -1;
    }
    return 0;
}

int note_epoch_seen(struct txn *t, uint64_t seen, const struct lease_terms *terms, struct fault *f)
{
    bool restored = false;
    if (seen == 0)
        return 0;
    if (store_epoch_past(t, seen, &restored, f) < 0)
        return -1;
    if (!restored)
        return 0;
    log_line(LOG_WARNING,
             "a data path knows epoch %llu, which this database has not granted: it is older than what hosts hold; no "
             "lease for writing until they must be dead",
             (unsigned long long) seen);
    return store_grace_begin(t, true, terms, clock_boot_ns(), f);
}

static int record_seen(struct txn *t, void *arg, struct fault *f)
{
    const struct restoring *r = arg;
    return note_epoch_seen(t, r->seen, &r->d->settings.terms, f);
}

int restore_epochs(struct dispatch *d, struct sr *sr, struct fault *f)
{
    struct restoring r = {.d = d, .sr = sr};
    if (backend_epoch_seen(sr, &r.seen, f) < 0)
        return -1;
    return r.seen ? store_write(d->settings.store, record_seen, &r, f) : 0;
}
