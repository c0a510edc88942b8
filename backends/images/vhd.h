/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VHD: what a reader or writer of disks needs beyond the row image_vhd of image.h. */
#ifndef SMAPI_BACKENDS_VHD_H
#define SMAPI_BACKENDS_VHD_H

#include "backends/images/image.h"
#include <stddef.h>

#define VHD_CHAIN_LIMIT IMAGE_CHAIN_LIMIT

/* Checks an image whole, the BAT with it: no block outside the file, over the metadata or over another; the batmap.
   VDILoad, saying what is wrong. Its parents are not looked at. Takes up to 8 MiB while it runs. */
int vhd_check(int fd, struct fault *f);

/* As image_vhd.make_child, for a parent that is a raw disk: <parent>.raw. VDISize when it is too large or empty. */
int vhd_make_child_of_raw(int fd, const struct uuid *id, int parent_fd, const struct uuid *parent, struct fault *f);

/* A leaf and all its parents, as one disk. For one thread at a time. */
struct vhd_chain;

/* fd stays the caller's and outlives the chain; it is written to only when writable. A writable leaf is checked whole,
   and gets its footer back when a killed writer has left none. VDILoad for an unsound image, a parent that is not the
   one the child was made from, a loop, and a chain longer than VHD_CHAIN_LIMIT. *out: vhd_chain_close. */
int vhd_chain_open(int fd, bool writable, image_open_parent open_parent, void *context, struct vhd_chain **out,
                   struct fault *f);
void vhd_chain_close(struct vhd_chain *chain); /* NULL is fine; no sync */

/* Of the leaf: the virtual size in bytes. Of the chain: how many images. */
uint64_t vhd_chain_size(const struct vhd_chain *chain);
size_t vhd_chain_depth(const struct vhd_chain *chain);

/* Any bytes within the disk; what no image holds reads as zero. */
int vhd_chain_read(struct vhd_chain *chain, void *out, size_t length, uint64_t offset, struct fault *f);

/* Whole sectors, into the leaf. A crash at any moment leaves a sound image in which each sector reads as it did before
   or as it was written. Durable after vhd_chain_sync. SRNoSpace when the medium is full, EIO when it fails. */
int vhd_chain_write(struct vhd_chain *chain, const void *data, size_t length, uint64_t offset, struct fault *f);
int vhd_chain_sync(struct vhd_chain *chain, struct fault *f);

struct vhd_extent {
    uint64_t offset, length;
};

/* The first stretch at or after from, in whole blocks, that some image of the chain holds; all else is zero. length is
   0 when there is none. Looks at BATs alone. */
int vhd_chain_extent(struct vhd_chain *chain, uint64_t from, struct vhd_extent *out, struct fault *f);

#endif
