/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iSCSI: an SR's place is LUNs of a target (iscsi_place.c). */
#include "backends/transports/iscsi.h"
#include "backends/probe.h"
#include "backends/tools/blkid.h"
#include "backends/transports/transport.h"
#include "backends/types.h"
#include <string.h>

static int iscsi_transport_connect(struct sr *sr, struct fault *f)
{
    bool ignored;
    return iscsi_open(sr, &ignored, f);
}

/* Nothing is ever put over what stands on a LUN. */
static int check_empty(const struct place *place, struct arena *a, struct fault *f)
{
    for (size_t i = 0; i < place->device_count; i++) {
        struct device d;
        if (device_look(place->devices[i], a, &d, f) < 0)
            return -1;
        if (d.system)
            return fault_set(f, FAULT_Rootdev, "%s %s", d.path, d.user);
        if (strcmp(d.signature, "LVM2_member") == 0)
            return fault_set(f, FAULT_LVMPartInUse, "%s is a physical volume (%s) already", d.path, d.uuid);
        if (d.user)
            return fault_set(f, FAULT_SRInUse, "%s %s", d.path, d.user);
        if (d.signature[0])
            return fault_set(f, FAULT_SRExists, "%s is not empty: it holds %s", d.path, d.signature);
    }
    return 0;
}

/* A target is made by whoever runs it, not by us; what a layout is to write on must be empty. */
static int iscsi_transport_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(8 << 20);
    (void) plan;
    if (iscsi_takes_all(sr->type->layout))
        return 0;
    return iscsi_transport_connect(sr, f) < 0 ? -1 : check_empty(&sr->place, a, f);
}

/* What a connection that never came to be left. */
static int iscsi_transport_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) plan;
    return iscsi_close(sr, f);
}

static int look(const struct layout *layout, const struct iscsi_found *found, struct arena *a, struct found_list *out,
                struct fault *f)
{
    const struct place place = {.dir = -1, .devices = found->devices, .device_count = found->count};
    (void) f;
    probe_place(layout, &place, found->id, found->size, a, out);
    return 0;
}

static int iscsi_transport_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                                 const struct backend_settings *settings, struct arena *a, struct found_list *out,
                                 struct fault *f)
{
    (void) settings;
    return iscsi_probe(layout, config, secrets, look, a, out, f);
}

/* An SR of LUNs bears no mark: what has sessions and links in its name, and is nothing else, is one. */
static int iscsi_transport_find(const struct layout *layout, const struct backend_settings *settings, struct arena *a,
                                struct trace_list *out, struct fault *f)
{
    struct iscsi_trace *traces;
    size_t count;
    if (iscsi_traces(layout, a, &traces, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const struct sr_trace *t = &traces[i].trace;
        const struct place place = {.dir = -1, .devices = traces[i].links, .device_count = traces[i].link_count};
        struct uuid uuid;
        if (layout->unmarked ||
            (layout->recognise_own(&place, &settings->server, &uuid) && uuid_equal(&uuid, &t->uuid)))
            trace_add(a, out, &t->uuid, t->config.items, t->config.count);
    }
    return 0;
}

const struct transport transport_iscsi = {
    .name = "iscsi",
    .find = iscsi_transport_find,
    .shared = true,
    .create = iscsi_transport_create,
    .destroy = iscsi_transport_destroy,
    .connect = iscsi_transport_connect,
    .disconnect = iscsi_close,
    .answers = iscsi_answers,
    .give_up = iscsi_give_up,
    .attached = iscsi_attached,
    .refresh = iscsi_reopen,
    .probe = iscsi_transport_probe,
};
