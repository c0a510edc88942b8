/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is mounted, from the kernel's own list, and mounting and unmounting without ever touching what may not answer.
 */
#ifndef SMAPI_BACKENDS_TOOLS_MOUNTS_H
#define SMAPI_BACKENDS_TOOLS_MOUNTS_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include <stdbool.h>

struct mounted {
    bool there;
    const char *source, *type, *options; /* options: with a comma between two */
};

/* What is mounted last on the directory path. Touches no file system but /proc. */
int mounts_find(const char *path, struct arena *a, struct mounted *out, struct fault *f);
/* Of such options, what stands behind name=; "" for one that is there without a value, NULL when it is not. */
const char *mounts_option(const struct mounted *m, const char *name, struct arena *a);
/* Where the block device with that number is mounted, NULL in *out when it is nowhere. */
int mounts_find_device(dev_t device, struct arena *a, const char **out, struct fault *f);

/* A file system of a local device. LVMMount with what the kernel said. */
int mounts_mount(const char *device, const char *path, const char *type, const char *options, struct fault *f);

/* Takes away what is mounted last on path. A file system that is in use gives code; one whose server does not answer is
   taken out of the tree by force, and the kernel ends it when it can. */
int mounts_unmount(const char *path, int hold, enum fault_code code, struct arena *a, struct fault *f);

/* The directory on which an SR is to be mounted: makes it, and mount_base; code when something else is there. */
int mounts_make_point(const char *mount_base, const char *path, enum fault_code code, struct fault *f);
/* Removes it, when it is such a directory; what somebody has put into it stays. code when something is mounted there.
 */
int mounts_remove_point(const char *path, enum fault_code code, struct fault *f);

#endif
