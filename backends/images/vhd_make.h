/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Empty images, byte for byte as Xen's tools make them. */
#ifndef SMAPI_BACKENDS_VHD_MAKE_H
#define SMAPI_BACKENDS_VHD_MAKE_H

#include "server/base/fault.h"
#include "server/base/uuid.h"
#include <stdint.h>

/* The slots of image_vhd. */
int vhd_make(int fd, const struct uuid *id, uint64_t size, struct fault *f);
int vhd_make_child(int fd, const struct uuid *id, int parent_fd, const struct uuid *parent, struct fault *f);

/* Writes length bytes of that value at a place. -1 with errno. */
int vhd_fill(int fd, unsigned char value, uint64_t at, uint64_t length);

#endif
