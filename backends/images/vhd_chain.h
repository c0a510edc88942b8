/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of a chain, for its two files: reading and writing. */
#ifndef SMAPI_BACKENDS_VHD_CHAIN_H
#define SMAPI_BACKENDS_VHD_CHAIN_H

#include "backends/images/vhd.h"
#include "backends/images/vhd_image.h"
#include <sys/types.h>

#define VHD_BAT_PAGE 1024U /* entries read at a time */

/* One image of a chain, the raw base included. */
struct vhd_level {
    struct vhd_image image; /* of a raw disk only fd and file_size, and footer.size, which is the same */
    bool raw, owns_fd;
    dev_t device;
    ino_t inode;
    unsigned char page[VHD_BAT_PAGE * 4]; /* of the BAT, as on disk */
    uint32_t page_number;
    uint32_t bitmap_block; /* whose bitmap is in bitmap */
    unsigned char bitmap[VHD_BITMAP_SIZE];
};
#define VHD_NOT_LOADED UINT32_MAX

struct vhd_chain {
    struct vhd_level *levels[VHD_CHAIN_LIMIT]; /* leaf first; each malloc'd */
    size_t depth;
    bool writable;
    uint64_t data_end; /* of the leaf, when writable: after its last block */
    uint64_t tail;     /* of the leaf, when writable: where its footer begins */
};

/* The BAT entry of a block, checked: VHD_UNUSED or a place within the file. */
int vhd_level_entry(struct vhd_level *level, uint32_t block, uint32_t *entry, struct fault *f);
/* Loads the bitmap of a block that has that entry into level->bitmap. */
int vhd_level_bitmap(struct vhd_level *level, uint32_t block, uint32_t entry, struct fault *f);

/* Makes ready for writes: the check of a whole image, and a footer where none stands. */
int vhd_chain_prepare_leaf(struct vhd_chain *chain, struct fault *f);

#endif
