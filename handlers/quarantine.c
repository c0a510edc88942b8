/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* smapi.vdi_resolve: a person has looked at a disk that recovery could not explain. What the medium holds by now
   counts: a sound image is served, one that is not is damaged, and without one the disk is gone. */
#include "handlers/state.h"
#include <string.h>

static int read_rows(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    struct work *w = c->work;
    w->known = (struct vdi_list){0};
    if (need_vdi(t, c, &w->vdi, f) < 0)
        return -1;
    if (w->vdi->state != VDI_QUARANTINED)
        return fault_set(f, FAULT_VDIUnavailable, "VDI %s is not in quarantine", w->vdi->uuid.text);
    return store_vdi_list(t, &c->keys.sr, &UUID_NONE, 0, c->arena, &w->known, f);
}

static struct vdi *find(const struct vdi_list *list, const struct uuid *uuid)
{
    for (size_t i = 0; i < list->count; i++)
        if (uuid_equal(&list->items[i].uuid, uuid))
            return &list->items[i];
    return NULL;
}

static int smapi_vdi_resolve_act(struct dispatch *d, struct call *c, struct fault *f)
{
    struct work *w = c->work;
    if (store_read(d->settings.store, read_rows, c, f) < 0)
        return -1;
    struct vdi *row = find(&w->known, &w->vdi->uuid);
    if (row) {
        row->state = VDI_LIVE;
        row->damage = "";
    }
    return backend_sr_scan(c->sr, &w->known, c->arena, &w->found, &w->totals, f);
}

static int forget(struct txn *t, struct call *c, struct fault *f)
{
    struct attachment *hosts;
    size_t count;
    if (refuse_if_leased(t, c, c->work->vdi, f) < 0 ||
        store_attachment_list(t, &c->keys.sr, &c->work->vdi->uuid, NULL, c->arena, &hosts, &count, f) < 0)
        return -1;
    if (count)
        return fault_set(f, FAULT_VDIInUse, "VDI %s has no image any more and is attached to host %s",
                         c->work->vdi->uuid.text, hosts[0].holder);
    return store_vdi_remove(t, &c->keys.sr, &c->work->vdi->uuid, f);
}

static int smapi_vdi_resolve_record(struct txn *t, struct call *c, struct fault *f)
{
    const struct vdi *now = find(&c->work->found, &c->work->vdi->uuid);
    if ((now ? store_vdi_put(t, &c->keys.sr, now, f) : forget(t, c, f)) < 0)
        return -1;
    c->result = result_nil(c);
    const char *detail = arena_printf(c->arena, "%s %s is %s", c->keys.sr.text, c->work->vdi->uuid.text,
                                      !now                     ? "gone"
                                      : now->state == VDI_LIVE ? "served"
                                                               : "damaged");
    return store_audit(t, c->who.name, "quarantine_end", detail, f);
}

const struct phases smapi_vdi_resolve_phases = {.act = smapi_vdi_resolve_act, .record = smapi_vdi_resolve_record};
