/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An ext4 file system on the one logical volume of a volume group on block devices, as the older manager has it: group
   XSLocalEXT-<sr>, volume <sr>, mounted on <mount_base>/<sr>. For transports that have the devices. */
#ifndef SMAPI_BACKENDS_TRANSPORT_VOLUME_H
#define SMAPI_BACKENDS_TRANSPORT_VOLUME_H

#include "backends/driver.h"

/* The devices; texts of the caller's. */
struct volume_devices {
    const char *const *paths;
    size_t count;
    bool owned; /* other hosts reach them too: the group's tag says which server's it is, before anything is mounted */
};

/* Paths with commas between them, taken apart in the arena. */
struct volume_devices volume_devices(const char *list, struct arena *a);

/* Rootdev, LVMPartInUse, SRInUse or SRExists when a device holds something. */
int volume_check(const struct volume_devices *d, struct fault *f);
/* Group, volume and file system on devices that hold nothing: Rootdev, LVMPartInUse, SRInUse or SRExists naming what
   does, and nothing was touched. */
int volume_create(struct sr *sr, const struct plan *plan, const struct volume_devices *d, struct fault *f);
/* Removes what create made. After an sr_delete also a group that others made for the SR, and the first 100 MiB of each
   device are zeros then. */
int volume_destroy(struct sr *sr, const struct plan *plan, const struct volume_devices *d, struct fault *f);
/* Activates, checks and mounts, and fills sr->place. VolNotFound when the group is not there. */
int volume_connect(struct sr *sr, const struct volume_devices *d, struct fault *f);
int volume_disconnect(struct sr *sr, const struct volume_devices *d, struct fault *f);
/* The group's claim; its place taken by one of this server, by this plan, if it still is that one. VolNotFound,
   SRInUse naming whose it is. */
int volume_owner(struct sr *sr, const struct volume_devices *d, struct owner *out, struct fault *f);
int volume_take(struct sr *sr, const struct volume_devices *d, const struct plan *plan, const struct owner *from,
                struct fault *f);
/* Whether what is mounted under the SR's name is its volume. */
int volume_is_mounted(const struct uuid *sr, const struct backend_settings *settings, struct arena *a, bool *there,
                      struct fault *f);
/* Those that are mounted, with the devices of their groups as device_config device. One that is not is only known by
   the mark in its file system, which nobody mounts to look for it. */
int volume_find(const struct backend_settings *settings, struct arena *a, struct trace_list *out, struct fault *f);
/* The SRs whose groups are on the devices; nothing is activated. */
int volume_probe(const struct volume_devices *d, const char *list, struct arena *a, struct found_list *out,
                 struct fault *f);

#endif
