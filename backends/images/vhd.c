/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The row of the image table. */
#include "backends/images/vhd.h"

#include "backends/images/vhd_grow.h"
#include "backends/images/vhd_image.h"
#include "backends/images/vhd_make.h"
#include "server/base/io.h"
#include <inttypes.h>
#include <string.h>

#define GRAIN VHD_BLOCK_SIZE

static int vhd_round(uint64_t wanted, uint64_t *size, struct fault *f)
{
    if (wanted == 0 || wanted > VHD_LARGEST)
        return fault_set(f, FAULT_VDISize,
                         "a VHD has from 2097152 to %" PRIu64 " bytes (2 MiB to 2040 GiB), not %" PRIu64, VHD_LARGEST,
                         wanted);
    *size = (wanted + GRAIN - 1) / GRAIN * GRAIN;
    return 0;
}

static int vhd_info(int fd, struct image_info *out, struct fault *f)
{
    struct vhd_image image;
    if (vhd_image_load(fd, &image, f) < 0)
        return -1;
    struct image_info info = {
        .size = image.footer.size,
        .utilisation = image.allocated,
        .hidden = image.footer.hidden,
        .differencing = vhd_image_child(&image),
    };
    memcpy(info.id, image.footer.id, sizeof info.id);
    memcpy(info.parent_id, image.header.parent_id, sizeof info.parent_id);
    if (info.differencing && vhd_image_parent(&image, &info.parent, f) < 0)
        return -1;
    *out = info;
    return 0;
}

/* The footer at the end, which readers ask first, then the copy. Each is one sector, whole at any moment, and says by
   itself what the disk is; between the two writes the end's word counts. Where none stands at the end, the copy counts.
 */
static int vhd_hide(int fd, bool hidden, struct fault *f)
{
    struct vhd_image image;
    unsigned char raw[VHD_FOOTER_SIZE];
    if (vhd_image_load(fd, &image, f) < 0)
        return -1;
    image.footer.hidden = hidden;
    vhd_footer_out(&image.footer, raw);
    if (!image.end_lost && io_write_at(fd, raw, sizeof raw, image.file_size - sizeof raw) < 0)
        return fault_errno(f, FAULT_VDIDelete, "write a VHD's footer");
    if (vhd_image_sparse(&image) && io_write_at(fd, raw, sizeof raw, 0) < 0)
        return fault_errno(f, FAULT_VDIDelete, "write the copy of a VHD's footer");
    return 0;
}

int vhd_check(int fd, struct fault *f)
{
    struct vhd_image image;
    uint64_t data_end;
    return vhd_image_load(fd, &image, f) < 0 ? -1 : vhd_image_check(&image, &data_end, f);
}

const struct image_format image_vhd = {
    .name = "vhd",
    .suffix = ".vhd",
    .chains = true,
    .round = vhd_round,
    .make = vhd_make,
    .info = vhd_info,
    .grow = vhd_grow,
    .revert = vhd_revert,
    .make_child = vhd_make_child,
    .hide = vhd_hide,
};
