/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Empty images, byte for byte as Xen's tools make them. */
#ifndef SMAPI_BACKENDS_VHD_MAKE_H
#define SMAPI_BACKENDS_VHD_MAKE_H

#include "backends/images/vhd_layout.h"
#include "server/base/fault.h"
#include "server/base/uuid.h"
#include <stdint.h>

/* The slots of image_vhd. */
int vhd_make(int fd, const struct uuid *id, uint64_t size, struct fault *f);
int vhd_make_child(int fd, const struct uuid *id, int parent_fd, const struct uuid *parent, struct fault *f);
int vhd_make_sibling(int fd, const struct uuid *id, int of_fd, struct fault *f);

/* The same for a volume, a new file standing for it: the footer ends where the volume does, at length, and the BAT has
   room for VHD_RESERVED whatever the size. */
#define VHD_RESERVED (UINT64_C(2048) * GIB)
#define VHD_METADATA 4329472U /* bytes before the blocks, locators included, up to whole pages */
int vhd_make_in(int fd, const struct uuid *id, uint64_t size, uint64_t length, struct fault *f);

/* What a child keeps of its parent. */
#define VHD_NAME (UUID_TEXT + 16)
struct vhd_origin {
    char name[VHD_NAME]; /* of its file or volume */
    uint64_t size;
    unsigned char id[16]; /* zero: a raw disk */
    uint32_t timestamp;
};
int vhd_make_child_in(int fd, const struct uuid *id, const struct vhd_origin *parent, uint64_t length, struct fault *f);

/* What a locator of that code holds for a parent of that file name; its length. */
size_t vhd_locator_text(uint32_t code, const char *name, unsigned char out[SECTOR_SIZE]);
/* The parent's file name as a header holds it, the rest zero. */
void vhd_parent_name(const char *name, unsigned char out[512]);

/* Writes length bytes of that value at a place. -1 with errno. */
int vhd_fill(int fd, unsigned char value, uint64_t at, uint64_t length);

#endif
