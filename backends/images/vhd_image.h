/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One VHD file, loaded: its footers, header and batmap header read, and every length and offset in them held against
   each other and against the file. Nothing in here allocates by what an image says of itself; the checks of a whole BAT
   take up to 8 MiB, by the length of the file. All faults about the image are VDILoad. */
#ifndef SMAPI_BACKENDS_VHD_IMAGE_H
#define SMAPI_BACKENDS_VHD_IMAGE_H

#include "backends/images/vhd_layout.h"
#include "server/base/fault.h"
#include "server/base/uuid.h"

struct vhd_image {
    int fd; /* the caller's */
    uint64_t file_size, allocated;
    bool fixed; /* a device: it cannot become longer, and its footer stands at its very end */
    struct vhd_footer footer;
    bool end_lost;  /* no footer stands at the end (a writer was killed): footer is the copy, which then counts */
    bool copy_lost; /* no footer stands at the start */
    /* Of dynamic and differencing images only. */
    struct vhd_header header;
    bool has_batmap;
    struct vhd_batmap batmap;
    uint64_t bat_end;      /* first byte after the padded BAT */
    uint64_t metadata_end; /* first byte after all that stands before the blocks */
    uint32_t blocks;       /* BAT entries the disk's size needs */
    uint32_t block_length; /* in the file: bitmap and data */
};

/* Reads what stands in fd: two to four small reads. When no footer stands at the end, the copy counts, and the BAT is
   checked too, as then nothing else shows that the file is whole. */
int vhd_image_load(int fd, struct vhd_image *out, struct fault *f);

/* Checks the whole BAT: each block within the file and after the metadata, no two in the same place. *data_end is the
   first byte after the last block, or after the metadata when there is none. */
int vhd_image_check_blocks(const struct vhd_image *image, uint64_t *data_end, struct fault *f);
/* That, and the batmap: its checksum, and no block full that has no place. Nothing of ours reads its bits, so only who
   writes to the image, which others then read, asks this. */
int vhd_image_check(const struct vhd_image *image, uint64_t *data_end, struct fault *f);

/* Writes the footers that are missing, of a sparse image that the check has passed; no sync. -1 with errno. */
int vhd_image_mend(struct vhd_image *image, uint64_t data_end);

/* A block whose entry is given lies where it may: NULL, or what is wrong. */
const char *vhd_image_entry_wrong(const struct vhd_image *image, uint32_t entry);

/* Has blocks; of the type. */
static inline bool vhd_image_sparse(const struct vhd_image *image)
{
    return image->footer.type != VHD_FIXED;
}
static inline bool vhd_image_child(const struct vhd_image *image)
{
    return image->footer.type == VHD_DIFFERENCING;
}
/* A child whose parent has no identifier of its own is one of a raw disk. */
bool vhd_image_parent_is_raw(const struct vhd_image *image);

/* The VDI uuid in the base name of the parent's locators, else in its name; UUID_NONE when there is none. The name may
   be <uuid>, <uuid>.vhd, <uuid>.raw, VHD-<uuid> or LV-<uuid>. */
int vhd_image_parent(const struct vhd_image *image, struct uuid *out, struct fault *f);

/* Reads count entries of the BAT from the one numbered first, big-endian as they are. */
int vhd_image_entries(const struct vhd_image *image, uint32_t first, uint32_t count, unsigned char *out,
                      struct fault *f);

/* Reads all of it; what lies behind the end of the file is cut off, and the image unsound. what: for the sentence. */
int vhd_image_read(int fd, void *out, size_t length, uint64_t at, const char *what, struct fault *f);

#endif
