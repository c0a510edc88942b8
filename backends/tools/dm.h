/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What device-mapper of this kernel holds now, asked of the kernel itself: no child, and no record that could be out of
   date. A kernel without device-mapper holds nothing. */
#ifndef SMAPI_BACKENDS_DM_H
#define SMAPI_BACKENDS_DM_H

#include "server/base/fault.h"
#include <stdbool.h>
#include <sys/types.h>

#define DM_UUID_SIZE 129

struct dm_device {
    dev_t number;
    unsigned open; /* how often it is open, devices that stand on it included */
    bool suspended;
};

/* Whether this kernel has device-mapper; its module is loaded when it can be. */
bool dm_available(void);

/* The name under which device-mapper knows an LVM volume, of LVM's uuids of group and volume. */
void dm_uuid(char out[DM_UUID_SIZE], const char *vg_uuid, const char *lv_uuid);

/* 1 when it is there, 0 when it is not; -1 with EIO. */
int dm_find(const char *uuid, struct dm_device *out, struct fault *f);
/* Removes it; success when it is not there. VDIInUse when it stays open for some seconds, else EIO. */
int dm_remove(const char *uuid, struct fault *f);
/* Tells the target at its beginning this. Success when the device is not there, EIO when it refuses. */
int dm_tell(const char *uuid, const char *text, struct fault *f);
/* dm_remove of every LVM volume of a group of this name, as the kernel has them. One that fails keeps none of the
   others. */
int dm_remove_group(const char *vg, struct fault *f);

#endif
