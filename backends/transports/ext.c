/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ext: a file system (volume.h) on block devices of this machine, device_config device. */
#include "backends/transports/transport.h"
#include "backends/transports/volume.h"

enum { LIST_ARENA = 1 << 20 };

static struct volume_devices devices_of(const struct pairs *config, struct arena *a)
{
    const char *list = pairs_get(config, "device");
    return volume_devices(list ? list : "", a);
}

static int ext_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(LIST_ARENA);
    const struct volume_devices d = devices_of(&sr->config, a);
    return volume_create(sr, plan, &d, f);
}

static int ext_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(LIST_ARENA);
    const struct volume_devices d = devices_of(&sr->config, a);
    return volume_destroy(sr, plan, &d, f);
}

static int ext_connect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(LIST_ARENA);
    const struct volume_devices d = devices_of(&sr->config, a);
    return volume_connect(sr, &d, f);
}

static int ext_disconnect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(LIST_ARENA);
    const struct volume_devices d = devices_of(&sr->config, a);
    return volume_disconnect(sr, &d, f);
}

static int ext_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                     const struct backend_settings *settings, struct arena *a, struct found_list *out, struct fault *f)
{
    (void) layout, (void) secrets, (void) settings;
    const struct volume_devices d = devices_of(config, a);
    return volume_probe(&d, pairs_get(config, "device"), a, out, f);
}

static int ext_find(const struct layout *layout, const struct backend_settings *settings, struct arena *a,
                    struct trace_list *out, struct fault *f)
{
    (void) layout;
    return volume_find(settings, a, out, f);
}

const struct transport transport_ext = {
    .name = "ext",
    .create = ext_create,
    .destroy = ext_destroy,
    .connect = ext_connect,
    .disconnect = ext_disconnect,
    .find = ext_find,
    .probe = ext_probe,
};
