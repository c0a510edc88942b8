/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The row of the image table. */
#include "backends/images/vhd.h"

#include "backends/images/extract.h"
#include "backends/images/vhd_grow.h"
#include "backends/images/vhd_image.h"
#include "backends/images/vhd_make.h"
#include "backends/images/vhd_relink.h"
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

static bool lacks_footer(const struct vhd_image *image)
{
    return image->end_lost || (image->copy_lost && vhd_image_sparse(image));
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
        .unfinished = lacks_footer(&image),
    };
    memcpy(info.id, image.footer.id, sizeof info.id);
    memcpy(info.parent_id, image.header.parent_id, sizeof info.parent_id);
    if (info.differencing && vhd_image_parent(&image, &info.parent, f) < 0)
        return -1;
    *out = info;
    return 0;
}

static int check_whole(int fd, struct fault *f)
{
    struct vhd_image image;
    uint64_t data_end;
    if (vhd_image_load(fd, &image, f) < 0)
        return -1;
    if (lacks_footer(&image))
        return fault_set(f, FAULT_VDILoad,
                         "not a sound VHD: no footer stands at its %s, until it is activated to be written",
                         image.end_lost ? "end" : "start");
    return vhd_image_check(&image, &data_end, f);
}

/* With the footers that were missing; whether there were any. -1 is a fault. */
static int load_mended(int fd, struct vhd_image *image, struct fault *f)
{
    uint64_t data_end;
    if (vhd_image_load(fd, image, f) < 0)
        return -1;
    if (!vhd_image_sparse(image) || !lacks_footer(image))
        return 0;
    if (vhd_image_check(image, &data_end, f) < 0)
        return -1;
    if (vhd_image_mend(image, data_end) < 0)
        return fault_errno(f, FAULT_VDILoad, "give a VHD its footer back");
    return 1;
}

static int vhd_mend(int fd, struct fault *f)
{
    struct vhd_image image;
    int mended = load_mended(fd, &image, f);
    return mended > 0 ? image_sync(fd, "a VHD's footer", f) : mended;
}

/* The footer at the end, which readers ask first, then the copy. Each is one sector, whole at any moment, and says by
   itself what the disk is; between the two writes the end's word counts. */
static int vhd_hide(int fd, bool hidden, struct fault *f)
{
    struct vhd_image image;
    unsigned char raw[VHD_FOOTER_SIZE];
    if (load_mended(fd, &image, f) < 0)
        return -1;
    image.footer.hidden = hidden;
    vhd_footer_out(&image.footer, raw);
    if (io_write_at(fd, raw, sizeof raw, image.file_size - sizeof raw) < 0)
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

static int extract_extent(struct vhd_chain *chain, const struct vhd_extent *extent, unsigned char *chunk,
                          struct extract *e, struct fault *f)
{
    uint64_t end = extent->offset + extent->length;
    if (extract_zeros(e, extent->offset - e->at, f) < 0)
        return -1;
    while (e->at < end) {
        size_t n = end - e->at < EXTRACT_CHUNK ? (size_t) (end - e->at) : EXTRACT_CHUNK;
        if (vhd_chain_read(chain, chunk, n, e->at, f) < 0 || extract_data(e, chunk, n, f) < 0)
            return -1;
    }
    return 0;
}

static int extract_chain(struct vhd_chain *chain, int out, struct fault *f)
{
    struct extract e;
    struct vhd_extent extent;
    uint64_t size = vhd_chain_size(chain);
    AUTO_FREE unsigned char *chunk = malloc(EXTRACT_CHUNK);
    if (!chunk)
        return fault_errno(f, FAULT_VDILoad, "read a VHD");
    extract_begin(&e, out);
    while (e.at < size) {
        if (vhd_chain_extent(chain, e.at, &extent, f) < 0)
            return -1;
        if (extent.length == 0)
            extent = (struct vhd_extent){.offset = size};
        if (extract_extent(chain, &extent, chunk, &e, f) < 0)
            return -1;
    }
    return extract_end(&e, f);
}

static int vhd_extract(int fd, image_open_parent open_parent, void *context, int out, struct fault *f)
{
    struct vhd_chain *chain;
    if (vhd_chain_open(fd, false, open_parent, context, &chain, f) < 0)
        return -1;
    int r = extract_chain(chain, out, f);
    vhd_chain_close(chain);
    return r;
}

const struct image_format image_vhd = {
    .name = "vhd",
    .suffix = ".vhd",
    .chains = true,
    .round = vhd_round,
    .make = vhd_make,
    .info = vhd_info,
    .check = check_whole,
    .extract = vhd_extract,
    .grow = vhd_grow,
    .revert = vhd_revert,
    .make_child = vhd_make_child,
    .make_sibling = vhd_make_sibling,
    .set_parent = vhd_set_parent,
    .hide = vhd_hide,
    .mend = vhd_mend,
};
