/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing to the leaf of a chain. What a crash could show half-done is ordered by fdatasync:
     - a sector's bit is set after its data is durable;
     - a new block gets its BAT entry after its data, its bitmap and the footer behind it are durable;
     - data_end moves on before the entry is written, so that no second block is ever put where an entry may lead.
   Bits of the batmap stay clear: its map and its checksum cannot change as one, and a clear bit only means "look at the
   bitmap". A block left without an entry by a crash is space the next block takes. */
#include "backends/images/vhd_chain.h"
#include "backends/images/vhd_make.h"
#include "server/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define ZERO_BY_HAND 65536U /* more than that is punched out */

static int write_footer(const struct vhd_image *leaf, uint64_t at)
{
    unsigned char raw[VHD_FOOTER_SIZE];
    vhd_footer_out(&leaf->footer, raw);
    return io_write_at(leaf->fd, raw, sizeof raw, at);
}

int vhd_image_mend(struct vhd_image *leaf, uint64_t data_end)
{
    if (leaf->end_lost && leaf->fixed) {
        uint64_t end = leaf->file_size - VHD_FOOTER_SIZE;
        errno = ENOSPC;
        if (data_end > end || write_footer(leaf, end) < 0)
            return -1;
        leaf->end_lost = false;
    }
    if (leaf->end_lost) {
        if (write_footer(leaf, data_end) < 0 || ftruncate(leaf->fd, (off_t) (data_end + VHD_FOOTER_SIZE)) < 0)
            return -1;
        leaf->file_size = data_end + VHD_FOOTER_SIZE;
        leaf->end_lost = false;
    }
    if (leaf->copy_lost && write_footer(leaf, 0) < 0)
        return -1;
    leaf->copy_lost = false;
    return 0;
}

int vhd_chain_prepare_leaf(struct vhd_chain *chain, struct fault *f)
{
    struct vhd_image *leaf = &chain->levels[0]->image;
    if (vhd_image_check(leaf, &chain->data_end, f) < 0)
        return -1;
    if (vhd_image_sparse(leaf) && vhd_image_mend(leaf, chain->data_end) < 0)
        return fault_errno(f, FAULT_EIO, "give a VHD its footer back");
    chain->tail = leaf->file_size - VHD_FOOTER_SIZE;
    return 0;
}

static int clear_range(int fd, uint64_t at, uint64_t length)
{
    if (length > ZERO_BY_HAND &&
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) at, (off_t) length) == 0)
        return 0;
    return vhd_fill(fd, 0, at, length);
}

/* Makes the file long enough for a block that ends there: the footer behind it first, then zeros over the old footer
   and whatever a crash left. -1 with errno. */
static int make_room(struct vhd_chain *chain, uint64_t end)
{
    struct vhd_image *leaf = &chain->levels[0]->image;
    uint64_t stop = end;
    if (end > chain->tail && leaf->fixed) {
        errno = ENOSPC;
        return -1;
    }
    if (end > chain->tail) {
        stop = chain->tail + VHD_FOOTER_SIZE;
        if (write_footer(leaf, end) < 0)
            return -1;
        chain->tail = end;
        leaf->file_size = end + VHD_FOOTER_SIZE;
    }
    return stop > chain->data_end ? clear_range(leaf->fd, chain->data_end, stop - chain->data_end) : 0;
}

static void set_bits(unsigned char *bitmap, uint64_t within, size_t length)
{
    for (uint64_t i = within / SECTOR_SIZE; i < (within + length) / SECTOR_SIZE; i++)
        vhd_bit_set(bitmap, i);
}

/* Data and bitmap of a new block, durable. -1 with errno. */
static int write_new(struct vhd_chain *chain, uint64_t place, const unsigned char *bitmap, const void *data,
                     size_t length, uint64_t within)
{
    const struct vhd_image *leaf = &chain->levels[0]->image;
    uint64_t at = place * SECTOR_SIZE;
    if (make_room(chain, at + leaf->block_length) < 0 ||
        io_write_at(leaf->fd, data, length, at + VHD_BITMAP_SIZE + within) < 0 ||
        io_write_at(leaf->fd, bitmap, VHD_BITMAP_SIZE, at) < 0)
        return -1;
    chain->data_end = at + leaf->block_length;
    return fdatasync(leaf->fd);
}

/* -1 with errno. */
static int publish(struct vhd_level *level, uint32_t block, uint32_t entry)
{
    unsigned char raw[4];
    vhd_put32(raw, entry);
    level->page_number = VHD_NOT_LOADED;
    return io_write_at(level->image.fd, raw, sizeof raw, level->image.header.table_offset + (uint64_t) block * 4);
}

static int add_block(struct vhd_chain *chain, uint32_t block, const void *data, size_t length, uint64_t within,
                     struct fault *f)
{
    struct vhd_level *level = chain->levels[0];
    unsigned char bitmap[VHD_BITMAP_SIZE] = {0};
    uint64_t place = vhd_block_place(chain->data_end);
    if (place >= VHD_UNUSED)
        return fault_set(f, FAULT_EIO, "no BAT entry can lead to the next block, at sector %" PRIu64, place);
    set_bits(bitmap, within, length);
    level->bitmap_block = VHD_NOT_LOADED;
    if (write_new(chain, place, bitmap, data, length, within) < 0 || publish(level, block, (uint32_t) place) < 0)
        return fault_errno(f, FAULT_EIO, "write a new block %" PRIu32, block);
    return 0;
}

static int write_to_block(struct vhd_level *level, uint32_t block, uint32_t entry, const void *data, size_t length,
                          uint64_t within, struct fault *f)
{
    unsigned char bitmap[VHD_BITMAP_SIZE];
    uint64_t at = (uint64_t) entry * SECTOR_SIZE;
    int fd = level->image.fd;
    if (vhd_level_bitmap(level, block, entry, f) < 0)
        return -1;
    memcpy(bitmap, level->bitmap, sizeof bitmap);
    set_bits(bitmap, within, length);
    bool changes = memcmp(bitmap, level->bitmap, sizeof bitmap) != 0;
    if (io_write_at(fd, data, length, at + VHD_BITMAP_SIZE + within) < 0)
        return fault_errno(f, FAULT_EIO, "write block %" PRIu32, block);
    level->bitmap_block = VHD_NOT_LOADED;
    if (changes && (fdatasync(fd) < 0 || io_write_at(fd, bitmap, sizeof bitmap, at) < 0))
        return fault_errno(f, FAULT_EIO, "write the bitmap of block %" PRIu32, block);
    memcpy(level->bitmap, bitmap, sizeof bitmap);
    level->bitmap_block = block;
    return 0;
}

static int write_block(struct vhd_chain *chain, const void *data, size_t length, uint64_t offset, struct fault *f)
{
    struct vhd_level *level = chain->levels[0];
    uint32_t size = level->image.header.block_size, block = (uint32_t) (offset / size), entry;
    if (vhd_level_entry(level, block, &entry, f) < 0)
        return -1;
    if (entry == VHD_UNUSED)
        return add_block(chain, block, data, length, offset % size, f);
    return write_to_block(level, block, entry, data, length, offset % size, f);
}

static int write_fixed(const struct vhd_image *leaf, const void *data, size_t length, uint64_t offset, struct fault *f)
{
    return io_write_at(leaf->fd, data, length, offset) < 0 ? fault_errno(f, FAULT_EIO, "write to a fixed VHD") : 0;
}

int vhd_chain_write(struct vhd_chain *chain, const void *data, size_t length, uint64_t offset, struct fault *f)
{
    const struct vhd_image *leaf = &chain->levels[0]->image;
    const unsigned char *from = data;
    uint64_t size = vhd_chain_size(chain);
    if (!chain->writable || offset % SECTOR_SIZE || length % SECTOR_SIZE || offset > size || length > size - offset)
        return fault_set(f, FAULT_InvalidArg, "write %zu bytes at %" PRIu64 " of a%s disk of %" PRIu64, length, offset,
                         chain->writable ? "" : " read-only", size);
    if (!vhd_image_sparse(leaf))
        return write_fixed(leaf, data, length, offset, f);
    while (length > 0) {
        uint64_t left = leaf->header.block_size - offset % leaf->header.block_size;
        size_t n = length < left ? length : (size_t) left;
        if (write_block(chain, from, n, offset, f) < 0)
            return -1;
        from += n;
        offset += n;
        length -= n;
    }
    return 0;
}

int vhd_chain_sync(struct vhd_chain *chain, struct fault *f)
{
    return fdatasync(chain->levels[0]->image.fd) < 0 ? fault_errno(f, FAULT_EIO, "sync a VHD") : 0;
}
