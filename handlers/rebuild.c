/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows made anew from media: for a database that is lost. */
#include "handlers/state.h"
#include "server/base/clock.h"
#include "store/host.h"
#include "store/journal.h"
#include <string.h>

/* Where smapid.epoch is lost with the database, epochs go on past 2^8 for each second since 1970; until 2106 that fits
   the 40 bits that the key of a reservation has for them. */
#define EPOCHS_A_SECOND 8

static int begin_unknown(struct txn *t, void *arg, struct fault *f)
{
    bool restored;
    if (store_epoch_past(t, (uint64_t) clock_wall_s() << EPOCHS_A_SECOND, &restored, f) < 0 ||
        store_grace_begin(t, true, arg, clock_boot_ns(), f) < 0)
        return -1;
    return store_audit(t, "smapid", "rebuild", "the database was made anew from the media", f);
}

int dispatch_rebuild(struct dispatch *d, struct fault *f)
{
    return store_write(d->settings.store, begin_unknown, &d->settings.terms, f);
}

struct rebuild {
    struct sr *sr;
    struct work work;
};

static int record(struct txn *t, void *arg, struct fault *f)
{
    struct rebuild *r = arg;
    const struct sr_row row = {.uuid = r->sr->uuid,
                               .type = r->sr->type->name,
                               .state = SR_LIVE,
                               .label = "",
                               .description = "",
                               .config = r->sr->config};
    return store_sr_put(t, &row, f) < 0 ? -1 : scan_record(t, &r->sr->uuid, &r->work, f);
}

static int rebuild(struct dispatch *d, struct sr *sr, size_t *disks, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1U << 30);
    struct rebuild r = {.sr = sr, .work = {.arena = a}};
    if (backend_sr_attach(sr, f) < 0 || scan_look(d, sr, &r.work, f) < 0 ||
        store_write(d->settings.store, record, &r, f) < 0)
        return -1;
    *disks = r.work.found.count;
    return 0;
}

/* The place is left as it is, with what leads there: guests may run from it. */
int dispatch_rebuild_sr(struct dispatch *d, const char *type_name, const struct uuid *uuid, const struct pairs *config,
                        size_t *disks, struct fault *f)
{
    const struct sr_type *type = sr_type_find(type_name);
    if (!type || !backend_recognises(type))
        return fault_set(f, FAULT_SRUnknownType, "an SR of type \"%.40s\" cannot be made anew from its medium",
                         type_name);
    if (backend_config_check(type, config, f) < 0)
        return -1;
    if (registry_find(d->registry, uuid))
        return fault_set(f, FAULT_SRExists, "SR %s was named twice", uuid->text);
    struct sr *sr = registry_add(d->registry, uuid, type, config, STANDING_SERVING);
    int r = rebuild(d, sr, disks, f);
    backend_sr_release(sr);
    return r;
}
