/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What stands on a block device, and who uses it. Reads only. */
#ifndef SMAPI_BACKENDS_BLKID_H
#define SMAPI_BACKENDS_BLKID_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct device {
    const char *path; /* as it was given */
    dev_t number;
    uint64_t size;         /* bytes */
    const char *signature; /* "ext4", "LVM2_member", "gpt", …, "several"; "" when libblkid knows none */
    const char *uuid;      /* of the signature, "" when it has none */
    const char *user;      /* who uses it now, as a sentence's end ("is mounted on /home"); NULL when nobody does */
    bool system;           /* the running system is on it; size and signature are not looked at then */
};

/* InvalidDev when there is no such device, ConfigDeviceInvalid when it is no block device, EIO when it cannot be
   read. */
int device_look(const char *path, struct arena *a, struct device *out, struct fault *f);

/* Paths in /dev of all devices of this host, but those of the running system, that bear a signature; for looking only:
   what cannot be read is left out. */
char **device_list(const char *signature, struct arena *a, size_t *count);

/* What device_look says of system and users, of a device known by its number. sys is "/sys" and mounts
   "/proc/self/mountinfo"; other trees are for tests. */
bool device_is_system(const char *sys, const char *mounts, dev_t number);
const char *device_user(const char *sys, const char *mounts, dev_t number, struct arena *a);

#endif
