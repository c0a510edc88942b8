/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block devices of this machine, named by device_config device with a comma between two. */
#include "backends/probe.h"
#include "backends/tools/blkid.h"
#include "backends/tools/lvm.h"
#include "backends/transports/iscsi.h"
#include "backends/transports/transport.h"
#include <string.h>

#define MEMORY (1U << 20)

enum { TRIES = 3 };

static const char *devices_of(const struct sr *sr)
{
    const char *list = pairs_get(&sr->config, "device");
    return list ? list : "";
}

/* The paths of a list, in the arena. */
static char **paths_of(const char *list, struct arena *a, size_t *count)
{
    char **paths = ARENA_ARRAY(a, char *, strlen(list) + 1);
    *count = 0;
    for (const char *at = list; *at; at += strspn(at, ",")) {
        size_t length = strcspn(at, ",");
        paths[(*count)++] = arena_copy(a, at, length);
        at += length;
    }
    return paths;
}

/* ------------------------------------------------------------------ create */

struct look {
    struct arena *arena;
    bool users; /* are refused too */
};

/* Nothing is ever put over what stands on a device, and nothing on the device of the system. */
static int check_device(const char *path, const struct look *look, struct fault *f)
{
    struct device d;
    if (device_look(path, look->arena, &d, f) < 0)
        return -1;
    if (d.system)
        return fault_set(f, FAULT_Rootdev, "%s %s", path, d.user);
    if (!look->users)
        return 0;
    if (strcmp(d.signature, "LVM2_member") == 0)
        return fault_set(f, FAULT_LVMPartInUse, "%s is a physical volume (%s) already", path, d.uuid);
    if (d.user)
        return fault_set(f, FAULT_SRInUse, "%s %s", path, d.user);
    return d.signature[0] ? fault_set(f, FAULT_SRExists, "%s is not empty: it holds %s%s%s", path, d.signature,
                                      d.uuid[0] ? " with uuid " : "", d.uuid)
                          : 0;
}

static int check_devices(char *const *paths, size_t count, const struct look *look, struct fault *f)
{
    for (size_t i = 0; i < count; i++)
        if (check_device(paths[i], look, f) < 0)
            return -1;
    return 0;
}

static int disks_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) plan;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    const struct look look = {.arena = a, .users = true};
    size_t count;
    char **paths = paths_of(devices_of(sr), a, &count);
    return check_devices(paths, count, &look, f);
}

/* Nothing was made here: the layout takes its own marks off the devices. */
static int disks_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) sr, (void) plan, (void) f;
    return 0;
}

/* ------------------------------------------------------------------ connect */

static int disks_connect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    const struct look look = {.arena = a};
    size_t count;
    if (sr->place.device_count)
        return 0;
    char **paths = paths_of(devices_of(sr), a, &count);
    if (check_devices(paths, count, &look, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        place_add_device(&sr->place, paths[i]);
    return 0;
}

static int disks_disconnect(struct sr *sr, struct fault *f)
{
    (void) f;
    place_free_devices(&sr->place);
    return 0;
}

/* ------------------------------------------------------------------ probe */

static int disks_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                       const struct backend_settings *settings, struct arena *a, struct found_list *out,
                       struct fault *f)
{
    (void) secrets, (void) settings;
    const char *list = pairs_get(config, "device");
    const struct look look = {.arena = a};
    struct place place = {.dir = -1};
    uint64_t size = 0;
    if (!list)
        return 0;
    place.devices = paths_of(list, a, &place.device_count);
    if (check_devices(place.devices, place.device_count, &look, f) < 0)
        return -1;
    for (size_t i = 0; i < place.device_count; i++) {
        struct device d;
        if (device_look(place.devices[i], a, &d, f) < 0)
            return -1;
        size += d.size;
    }
    if (place.device_count)
        probe_place(layout, &place, list, size, a, out);
    return 0;
}

/* ------------------------------------------------------------------ find */

/* Paths with commas between them. */
static const char *list_of(const struct lvm_vg *vg, struct arena *a)
{
    const char *list = "";
    for (size_t i = 0; i < vg->pv_count; i++)
        list = arena_printf(a, "%s%s%s", list, i ? "," : "", vg->pvs[i].name);
    return list;
}

/* All groups of this host. A device may go while it is looked at. */
static int read_groups(struct arena *a, struct lvm_report *out, struct fault *f)
{
    int r = 0;
    for (int i = 0; i < TRIES; i++) {
        size_t count;
        char **members = device_list("LVM2_member", a, &count);
        const struct lvm_scope scope = lvm_scope((const char *const *) members, count, -1);
        *out = (struct lvm_report){0};
        r = count ? lvm_read(&scope, a, out, f) : 0;
        if (r == 0)
            break;
    }
    return r;
}

/* Groups that bear the server's mark. */
static int disks_find(const struct layout *layout, const struct backend_settings *settings, struct arena *a,
                      struct trace_list *out, struct fault *f)
{
    struct lvm_report r;
    if (read_groups(a, &r, f) < 0)
        return -1;
    for (size_t i = 0; i < r.vg_count; i++) {
        const struct pair device = {"device", list_of(&r.vgs[i], a)};
        struct place place = {.dir = -1};
        struct uuid uuid;
        place.devices = paths_of(device.value, a, &place.device_count);
        size_t links = 0;
        if (!layout->recognise_own(&place, &settings->server, &uuid))
            continue;
        iscsi_links(&uuid, a, &links);
        if (!links) /* else it stands on LUNs of a target, and is of another type */
            trace_add(a, out, &uuid, &device, 1);
    }
    return 0;
}

const struct transport transport_disks = {
    .name = "disks",
    .shared = true,
    .find = disks_find,
    .create = disks_create,
    .destroy = disks_destroy,
    .connect = disks_connect,
    .disconnect = disks_disconnect,
    .probe = disks_probe,
};
