/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block devices of this machine, named by device_config device with a comma between two. */
#include "backends/tools/blkid.h"
#include "backends/transports/transport.h"
#include <string.h>

#define MEMORY (1U << 20)

/* Calls visit for each path of a list. */
typedef int visit_path(const char *path, void *arg, struct fault *f);

static int each_path(const char *list, struct arena *a, visit_path *visit, void *arg, struct fault *f)
{
    for (const char *at = list; *at; at += strspn(at, ",")) {
        size_t length = strcspn(at, ",");
        if (visit(arena_copy(a, at, length), arg, f) < 0)
            return -1;
        at += length;
    }
    return 0;
}

static const char *devices_of(const struct sr *sr)
{
    const char *list = pairs_get(&sr->config, "device");
    return list ? list : "";
}

/* ------------------------------------------------------------------ create */

struct look {
    struct arena *arena;
    bool users; /* are refused too */
};

/* Nothing is ever put over what stands on a device, and nothing on the device of the system. */
static int check_device(const char *path, void *arg, struct fault *f)
{
    const struct look *look = arg;
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

static int disks_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) plan;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    struct look look = {.arena = a, .users = true};
    return each_path(devices_of(sr), a, check_device, &look, f);
}

/* Nothing was made here: the layout takes its own marks off the devices. */
static int disks_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) sr, (void) plan, (void) f;
    return 0;
}

/* ------------------------------------------------------------------ connect */

static int add_device(const char *path, void *arg, struct fault *f)
{
    struct place *place = arg;
    char **devices = realloc(place->devices, (place->device_count + 1) * sizeof *devices);
    if (!devices)
        abort();
    place->devices = devices;
    devices[place->device_count] = strdup(path);
    if (!devices[place->device_count])
        abort();
    place->device_count++;
    (void) f;
    return 0;
}

static void free_devices(struct place *place)
{
    for (size_t i = 0; i < place->device_count; i++)
        free(place->devices[i]);
    free(place->devices);
    place->devices = NULL;
    place->device_count = 0;
}

static int disks_connect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    struct look look = {.arena = a};
    if (sr->place.device_count)
        return 0;
    if (each_path(devices_of(sr), a, check_device, &look, f) < 0)
        return -1;
    return each_path(devices_of(sr), a, add_device, &sr->place, f);
}

static int disks_disconnect(struct sr *sr, struct fault *f)
{
    (void) f;
    free_devices(&sr->place);
    return 0;
}

/* ------------------------------------------------------------------ probe */

static int disks_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                       const struct backend_settings *settings, struct arena *a, struct found_list *out,
                       struct fault *f)
{
    (void) secrets, (void) settings;
    const char *list = pairs_get(config, "device");
    struct look look = {.arena = a};
    struct place place = {.dir = -1};
    struct found_list found = {0};
    struct uuid uuid;
    if (!list || each_path(list, a, check_device, &look, f) < 0)
        return list ? -1 : 0;
    each_path(list, a, add_device, &place, f);
    if (place.device_count && layout->recognise(&place, &uuid))
        found_add(a, &found, (struct found_sr){.uuid = uuid, .path = arena_text(a, list)});
    free_devices(&place);
    *out = found;
    return 0;
}

const struct transport transport_disks = {
    .name = "disks",
    .create = disks_create,
    .destroy = disks_destroy,
    .connect = disks_connect,
    .disconnect = disks_disconnect,
    .probe = disks_probe,
};
