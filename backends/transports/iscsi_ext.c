/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A file system (volume.h) on one LUN of an iSCSI target. One server has it at a time: its persistent reservation shuts
   every other one's writes out, and where the target knows none, the volume group's tag tells whose it is. */
#include "backends/scsi/fence.h"
#include "backends/transports/iscsi.h"
#include "backends/transports/transport.h"
#include "backends/transports/volume.h"
#include "backends/types.h"
#include "server/base/point.h"
#include <string.h>

enum { DEVICES_ARENA = 1 << 20 };

/* The SR's LUN by its link, in the arena; sr->place is free for the file system. */
static int reach(struct sr *sr, struct arena *a, struct volume_devices *out, bool *fresh, struct fault *f)
{
    if (iscsi_open(sr, fresh, f) < 0)
        return -1;
    const char **paths = ARENA_ARRAY(a, const char *, sr->place.device_count + 1);
    for (size_t i = 0; i < sr->place.device_count; i++)
        paths[i] = arena_text(a, sr->place.devices[i]);
    *out = (struct volume_devices){.paths = paths, .count = sr->place.device_count, .owned = true};
    place_free_devices(&sr->place);
    return 0;
}

/* What is linked, whether its target answers or not. */
static struct volume_devices reached(const struct sr *sr, struct arena *a)
{
    struct volume_devices d = {.owned = true};
    d.paths = iscsi_links(&sr->uuid, a, &d.count);
    return d;
}

/* ------------------------------------------------------------------ reservation */

/* Each time under a newer key than any that this server has on the LUN: what a session of its own that was lost may
   still send is shut out too. */
static int reserve(struct sr *sr, const char *path, bool seize, struct fault *f)
{
    const struct uuid *server = &sr->settings->server;
    uint64_t newest;
    bool able;
    if (fence_able(path, &able, f) < 0)
        return -1;
    sr->unfenced = !able;
    if (!able)
        return 0;
    if (fence_newest(path, server, &newest, f) < 0)
        return -1;
    uint64_t key = fence_key(server, newest + 1);
    return seize ? fence_seize(path, key, f) : fence_take(path, key, FAULT_SRInUse, f);
}

static int reserve_all(struct sr *sr, const struct volume_devices *d, bool seize, struct fault *f)
{
    for (size_t i = 0; i < d->count; i++)
        if (reserve(sr, d->paths[i], seize, f) < 0)
            return fault_prefix(f, "reserve SR %s for this server", sr->uuid.text);
    return 0;
}

/* A LUN that is gone holds nothing of ours that could be given back. */
static void release_all(const struct volume_devices *d)
{
    struct fault ignored;
    bool able;
    for (size_t i = 0; i < d->count; i++)
        if (fence_able(d->paths[i], &able, &ignored) == 0 && able)
            fence_drop(d->paths[i], &ignored);
}

static int leave(struct sr *sr, const struct volume_devices *d, struct fault *f)
{
    release_all(d);
    return iscsi_close(sr, f);
}

/* ------------------------------------------------------------------ the place */

static int iscsi_ext_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(DEVICES_ARENA);
    struct volume_devices d;
    bool ignored;
    if (reach(sr, a, &d, &ignored, f) < 0 || volume_check(&d, f) < 0 || reserve_all(sr, &d, false, f) < 0)
        return -1;
    return volume_create(sr, plan, &d, f);
}

/* What is on the LUN is taken down over a session that the SR may have lost by then. */
static int iscsi_ext_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(DEVICES_ARENA);
    struct volume_devices d;
    bool ignored;
    if (reach(sr, a, &d, &ignored, f) < 0)
        return strcmp(plan->method, "sr_delete") == 0 ? -1
                                                      : iscsi_close(sr, f); /* nothing was made on what is not there */
    return volume_destroy(sr, plan, &d, f) < 0 ? -1 : leave(sr, &d, f);
}

static int iscsi_ext_connect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(DEVICES_ARENA);
    struct volume_devices d;
    struct fault ignored;
    bool fresh;
    if (sr->place.path)
        return 0;
    if (reach(sr, a, &d, &fresh, f) < 0)
        return -1;
    if (reserve_all(sr, &d, false, f) == 0 && volume_connect(sr, &d, f) == 0)
        return 0;
    if (fresh && iscsi_give_up(sr, &ignored) == 0 && volume_disconnect(sr, &d, &ignored) == 0)
        leave(sr, &d, &ignored);
    return -1;
}

static int iscsi_ext_disconnect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(DEVICES_ARENA);
    const struct volume_devices d = reached(sr, a);
    return volume_disconnect(sr, &d, f) < 0 ? -1 : leave(sr, &d, f);
}

/* ------------------------------------------------------------------ whose it is */

static int iscsi_ext_owner(struct sr *sr, struct owner *out, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(DEVICES_ARENA);
    struct volume_devices d;
    struct fault ignored;
    bool fresh;
    if (reach(sr, a, &d, &fresh, f) < 0)
        return -1;
    int r = volume_owner(sr, &d, out, f);
    if (fresh)
        iscsi_close(sr, &ignored);
    return r;
}

/* Who came late is told before it shuts out who did not. */
static int iscsi_ext_take(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(DEVICES_ARENA);
    struct volume_devices d;
    struct owner now;
    bool fresh;
    if (reach(sr, a, &d, &fresh, f) < 0 || volume_owner(sr, &d, &now, f) < 0)
        return -1;
    if (!uuid_equal(&now.op, &plan->op) && (!uuid_equal(&now.op, &from->op) || !uuid_equal(&now.server, &from->server)))
        return sr_check_owner(sr, &now, f) < 0
                   ? -1
                   : fault_set(f, FAULT_SRUnavailable, "the claim on SR %s has changed", sr->uuid.text);
    return reserve_all(sr, &d, true, f) < 0 ? -1 : volume_take(sr, &d, plan, from, f);
}

/* ------------------------------------------------------------------ probe */

static int look(const struct layout *layout, const struct iscsi_found *found, struct arena *a, struct found_list *out,
                struct fault *f)
{
    const char **paths = ARENA_ARRAY(a, const char *, found->count);
    (void) layout;
    for (size_t i = 0; i < found->count; i++)
        paths[i] = found->devices[i];
    const struct volume_devices d = {.paths = paths, .count = found->count};
    return volume_probe(&d, found->id, a, out, f);
}

static int iscsi_ext_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                           const struct backend_settings *settings, struct arena *a, struct found_list *out,
                           struct fault *f)
{
    (void) settings;
    return iscsi_probe(layout, config, secrets, look, a, out, f);
}

static int iscsi_ext_find(const struct layout *layout, const struct backend_settings *settings, struct arena *a,
                          struct trace_list *out, struct fault *f)
{
    struct iscsi_trace *traces;
    size_t count;
    if (iscsi_traces(layout, a, &traces, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const struct sr_trace *t = &traces[i].trace;
        bool there;
        if (volume_is_mounted(&t->uuid, settings, a, &there, f) < 0)
            return -1;
        if (there)
            trace_add(a, out, &t->uuid, t->config.items, t->config.count);
    }
    return 0;
}

const struct transport transport_iscsi_ext = {
    .name = "iscsi_ext",
    .find = iscsi_ext_find,
    .ends = true,
    .create = iscsi_ext_create,
    .destroy = iscsi_ext_destroy,
    .owner = iscsi_ext_owner,
    .take = iscsi_ext_take,
    .connect = iscsi_ext_connect,
    .disconnect = iscsi_ext_disconnect,
    .answers = iscsi_answers,
    .give_up = iscsi_give_up,
    .attached = iscsi_attached,
    .probe = iscsi_ext_probe,
};
