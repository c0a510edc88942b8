/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mkfs.ext4 and e2fsck of e2fsprogs. */
#ifndef SMAPI_BACKENDS_TOOLS_EXT_H
#define SMAPI_BACKENDS_TOOLS_EXT_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include "server/base/uuid.h"

/* An ext4 file system whose uuid is that of the operation, by which recovery knows it again. Never forced: what stands
   on the device is the caller's to look at before. LVMFilesystem. */
int ext_make(const char *device, const struct uuid *op, int hold, struct arena *a, struct fault *f);

/* Replays the journal and repairs what can be repaired without a question. LVMMount when more is wrong. */
int ext_check(const char *device, int hold, struct arena *a, struct fault *f);

#endif
