/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The slot set_parent of image_vhd. */
#ifndef SMAPI_BACKENDS_VHD_RELINK_H
#define SMAPI_BACKENDS_VHD_RELINK_H

#include "backends/images/image.h"
#include "backends/images/vhd_journal.h"
#include "backends/images/vhd_make.h"

/* The header is changed where it stands, and each locator in its own place; those of a kind nobody writes any more go.
   What is overwritten is in the journal before the first write. */
int vhd_set_parent(int fd, int parent_fd, const struct uuid *parent, const struct image_format *parent_format,
                   const struct image_journal *journal, struct fault *f);

/* What has to be written for it, the header first, each piece where it stands; the same every time, so that it can be
   written again after a crash. Changes nothing. */
struct vhd_piece {
    uint64_t at;
    uint32_t length;
    unsigned char bytes[VHD_HEADER_SIZE];
};
struct vhd_patch {
    struct vhd_piece pieces[VHD_JOURNAL_SPANS];
    size_t count;
};
int vhd_relink_plan(int fd, const struct vhd_origin *parent, struct vhd_patch *out, struct fault *f);

#endif
