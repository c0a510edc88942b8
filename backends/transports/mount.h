/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What transports that mount something on <mount_base>/<sr> share. */
#ifndef SMAPI_BACKENDS_TRANSPORT_MOUNT_H
#define SMAPI_BACKENDS_TRANSPORT_MOUNT_H

#include "backends/driver.h"
#include "backends/tools/mounts.h"

/* <mount_base>/<sr>, in the arena, without links: as the kernel's list of mounts has it. */
const char *mount_path(const struct sr *sr, struct arena *a);

/* Whether source (a server's path, or a device) is mounted on the SR's path already: a process that died left it. code
   when something else is. */
int mount_is_there(const struct sr *sr, const char *source, enum fault_code code, struct arena *a, bool *there,
                   struct fault *f);

/* Opens what is mounted on the SR's path into sr->place; never waits for a server that is gone. */
int mount_take(struct sr *sr, struct fault *f);

/* What is mounted in the mount base under the name of an SR, by what the kernel's list says. */
struct mount_trace {
    struct uuid sr;
    struct mounted mounted;
};
int mount_list(const struct backend_settings *settings, struct arena *a, struct mount_trace **out, size_t *count,
               struct fault *f);

/* Gives sr->place back, unmounts what is mounted from a source of which ours says that it is, and removes the mount
   point. Idempotent. ours NULL: whatever is mounted there. */
int mount_leave(struct sr *sr, const char *source, enum fault_code code, struct fault *f);

#endif
