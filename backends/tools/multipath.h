/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Maps of device-mapper over the paths of one disk. multipathd makes them, when told which disk, and minds their paths;
   which there are is read from sysfs, and they are removed by the kernel, which multipathd follows. */
#ifndef SMAPI_BACKENDS_MULTIPATH_H
#define SMAPI_BACKENDS_MULTIPATH_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include <stdbool.h>

/* Whether multipathd is installed and listens. No child is started. */
bool multipath_runs(void);

/* Name in the kernel ("dm-3") of the map over a path ("sda"); "" when there is none. */
const char *multipath_over(const char *path, struct arena *a);
/* Names of a map's paths, those left out that the kernel has taken away beneath it. */
size_t multipath_paths(const char *map, struct arena *a, const char ***out);
/* It is the map of the disk with this identity. */
bool multipath_is(const char *map, const char *id, struct arena *a);

/* multipathd has heard of the path, and has made the map it is to be in by the configuration. ISCSIDevice when it has
   not, or not yet, or is to leave it alone. */
int multipath_knows(const char *path, int hold, struct fault *f);
/* multipathd makes a map of the paths it knows of the disk with this identity (scsi_disk.id), as it is configured to;
   one that is there is success. ISCSIDevice when it does not: that disk is not to have one. */
int multipath_add(const char *id, int hold, struct fault *f);
/* The map gets the size this path of it has, if it has another. ISCSIDevice. */
int multipath_resize(const char *map, const char *path, int hold, struct fault *f);
/* Nobody waits for a path any more once the map has none, whatever the host's configuration says. */
void multipath_fail(const char *map, int hold);
/* The map goes, and multipath's note that the disk is to have one. SRInUse when somebody has it open. */
int multipath_remove(const char *map, const char *id, int hold, struct fault *f);
/* multipathd takes the path out of its map, whose other paths are somebody else's. ISCSIDevice. */
int multipath_drop_path(const char *path, int hold, struct fault *f);

#endif
