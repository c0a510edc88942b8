/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening a chain, and reading through it. */
#include "backends/images/vhd_chain.h"

#include "server/base/io.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

static void level_free(struct vhd_level *level)
{
    if (level && level->owns_fd)
        close(level->image.fd);
    free(level);
}

static void own_level(struct vhd_level **level)
{
    level_free(*level);
}
#define AUTO_LEVEL __attribute__((cleanup(own_level)))

void vhd_chain_close(struct vhd_chain *chain)
{
    if (!chain)
        return;
    for (size_t i = 0; i < chain->depth; i++)
        level_free(chain->levels[i]);
    free(chain);
}

static void own_chain(struct vhd_chain **chain)
{
    vhd_chain_close(*chain);
}
#define AUTO_CHAIN __attribute__((cleanup(own_chain)))

static int load_raw(struct vhd_level *level, struct fault *f)
{
    struct image_length l;
    if (image_length(level->image.fd, &l, f) < 0)
        return fault_prefix(f, "the raw parent of a VHD");
    level->image.file_size = l.length;
    level->image.footer.size = l.length;
    return 0;
}

/* Takes fd over when owns; the caller still has it after a fault. */
static int level_open(int fd, bool owns, bool raw, struct vhd_level **out, struct fault *f)
{
    struct stat st;
    AUTO_LEVEL struct vhd_level *level = calloc(1, sizeof *level);
    if (!level || fstat(fd, &st) < 0)
        return fault_errno(f, FAULT_VDILoad, "open an image");
    level->image.fd = fd;
    level->raw = raw;
    if ((raw ? load_raw(level, f) : vhd_image_load(fd, &level->image, f)) < 0)
        return -1;
    level->device = st.st_dev;
    level->inode = st.st_ino;
    level->page_number = VHD_NOT_LOADED;
    level->bitmap_block = VHD_NOT_LOADED;
    level->owns_fd = owns;
    *out = TAKE(level);
    return 0;
}

static bool is_in_chain(const struct vhd_chain *chain, const struct vhd_level *level)
{
    for (size_t i = 0; i < chain->depth; i++)
        if (chain->levels[i]->device == level->device && chain->levels[i]->inode == level->inode)
            return true;
    return false;
}

static int check_parent(const struct vhd_chain *chain, const struct vhd_image *child, const struct vhd_level *parent,
                        const char *name, struct fault *f)
{
    if (is_in_chain(chain, parent))
        return fault_set(f, FAULT_VDILoad, "the chain of parents comes back to %s: a loop", name);
    if (!parent->raw && memcmp(child->header.parent_id, parent->image.footer.id, 16) != 0)
        return fault_set(f, FAULT_VDILoad, "%s is not the image its child was made from: their identifiers differ",
                         name);
    return 0;
}

/* Adds the parent of the last image. */
static int add_parent(struct vhd_chain *chain, image_open_parent open_parent, void *context, struct fault *f)
{
    const struct vhd_image *child = &chain->levels[chain->depth - 1]->image;
    struct uuid vdi;
    if (vhd_image_parent(child, &vdi, f) < 0)
        return -1;
    const char *name = uuid_is(&vdi) ? vdi.text : "a parent whose name holds no uuid";
    if (chain->depth == VHD_CHAIN_LIMIT)
        return fault_set(f, FAULT_VDILoad, "more than %d images in a chain, %s the next", VHD_CHAIN_LIMIT, name);
    AUTO_FD int fd = -1;
    if (open_parent(context, &vdi, &fd, f) < 0)
        return fault_prefix(f, "parent %zu of the disk", chain->depth);
    AUTO_LEVEL struct vhd_level *parent = NULL;
    if (level_open(fd, true, vhd_image_parent_is_raw(child), &parent, f) < 0)
        return fault_prefix(f, "parent %s", name);
    fd = -1;
    if (check_parent(chain, child, parent, name, f) < 0)
        return -1;
    chain->levels[chain->depth++] = TAKE(parent);
    return 0;
}

static bool has_parent(const struct vhd_level *level)
{
    return !level->raw && vhd_image_child(&level->image);
}

int vhd_chain_open(int fd, bool writable, image_open_parent open_parent, void *context, struct vhd_chain **out,
                   struct fault *f)
{
    AUTO_CHAIN struct vhd_chain *chain = calloc(1, sizeof *chain);
    if (!chain)
        return fault_errno(f, FAULT_VDILoad, "open a chain of images");
    if (level_open(fd, false, false, &chain->levels[0], f) < 0)
        return -1;
    chain->depth = 1;
    while (has_parent(chain->levels[chain->depth - 1]))
        if (add_parent(chain, open_parent, context, f) < 0)
            return -1;
    chain->writable = writable;
    if (writable && vhd_chain_prepare_leaf(chain, f) < 0)
        return -1;
    *out = TAKE(chain);
    return 0;
}

uint64_t vhd_chain_size(const struct vhd_chain *chain)
{
    return chain->levels[0]->image.footer.size;
}

size_t vhd_chain_depth(const struct vhd_chain *chain)
{
    return chain->depth;
}

int vhd_level_entry(struct vhd_level *level, uint32_t block, uint32_t *entry, struct fault *f)
{
    uint32_t number = block / VHD_BAT_PAGE, first = number * VHD_BAT_PAGE;
    if (level->page_number != number) {
        uint32_t left = level->image.blocks - first;
        level->page_number = VHD_NOT_LOADED;
        if (vhd_image_entries(&level->image, first, left < VHD_BAT_PAGE ? left : VHD_BAT_PAGE, level->page, f) < 0)
            return -1;
        level->page_number = number;
    }
    uint32_t found = vhd_get32(level->page + (size_t) (block - first) * 4);
    const char *wrong = found == VHD_UNUSED ? NULL : vhd_image_entry_wrong(&level->image, found);
    if (wrong)
        return fault_set(f, FAULT_VDILoad, "not a sound VHD: block %" PRIu32 ", at sector %" PRIu32 ", %s", block,
                         found, wrong);
    *entry = found;
    return 0;
}

int vhd_level_bitmap(struct vhd_level *level, uint32_t block, uint32_t entry, struct fault *f)
{
    if (level->bitmap_block == block)
        return 0;
    level->bitmap_block = VHD_NOT_LOADED;
    if (vhd_image_read(level->image.fd, level->bitmap, sizeof level->bitmap, (uint64_t) entry * SECTOR_SIZE, "a bitmap",
                       f) < 0)
        return -1;
    level->bitmap_block = block;
    return 0;
}

static int read_plain(const struct vhd_level *level, unsigned char *out, uint64_t length, uint64_t at, struct fault *f)
{
    return vhd_image_read(level->image.fd, out, (size_t) length, at, "the data", f);
}

/* How far from offset all sectors of the bitmap say the same, up to length; *held: what they say. */
static uint64_t run_length(const unsigned char *bitmap, uint64_t offset, uint64_t length, bool *held)
{
    uint64_t sector = offset / SECTOR_SIZE, end = (offset + length + SECTOR_SIZE - 1) / SECTOR_SIZE, next = sector + 1;
    *held = vhd_bit(bitmap, sector);
    while (next < end && vhd_bit(bitmap, next) == *held)
        next++;
    uint64_t stop = next * SECTOR_SIZE;
    return stop < offset + length ? stop - offset : length;
}

static int read_level(struct vhd_chain *chain, size_t depth, unsigned char *out, uint64_t length, uint64_t offset,
                      struct fault *f);

/* Within one block. */
static int read_block(struct vhd_chain *chain, size_t depth, unsigned char *out, uint64_t length, uint64_t offset,
                      struct fault *f)
{
    struct vhd_level *level = chain->levels[depth];
    uint32_t size = level->image.header.block_size, block = (uint32_t) (offset / size), entry;
    if (vhd_level_entry(level, block, &entry, f) < 0)
        return -1;
    if (entry == VHD_UNUSED)
        return read_level(chain, depth + 1, out, length, offset, f);
    while (length > 0) {
        bool held;
        if (vhd_level_bitmap(level, block, entry, f) < 0)
            return -1;
        uint64_t within = offset % size, n = run_length(level->bitmap, within, length, &held);
        uint64_t at = (uint64_t) entry * SECTOR_SIZE + VHD_BITMAP_SIZE + within;
        if ((held ? read_plain(level, out, n, at, f) : read_level(chain, depth + 1, out, n, offset, f)) < 0)
            return -1;
        out += n;
        offset += n;
        length -= n;
    }
    return 0;
}

/* As far as the disk of that level goes; zeros behind it, and where there is no level. */
static int read_level(struct vhd_chain *chain, size_t depth, unsigned char *out, uint64_t length, uint64_t offset,
                      struct fault *f)
{
    if (depth == chain->depth) {
        memset(out, 0, (size_t) length);
        return 0;
    }
    struct vhd_level *level = chain->levels[depth];
    uint64_t size = level->image.footer.size, there = offset < size ? size - offset : 0;
    if (there < length) {
        memset(out + there, 0, (size_t) (length - there));
        length = there;
    }
    if (level->raw || !vhd_image_sparse(&level->image))
        return read_plain(level, out, length, offset, f);
    while (length > 0) {
        uint64_t left = level->image.header.block_size - offset % level->image.header.block_size;
        uint64_t n = length < left ? length : left;
        if (read_block(chain, depth, out, n, offset, f) < 0)
            return -1;
        out += n;
        offset += n;
        length -= n;
    }
    return 0;
}

int vhd_chain_read(struct vhd_chain *chain, void *out, size_t length, uint64_t offset, struct fault *f)
{
    uint64_t size = vhd_chain_size(chain);
    if (offset > size || length > size - offset)
        return fault_set(f, FAULT_InvalidArg, "read %zu bytes at %" PRIu64 " of a disk of %" PRIu64, length, offset,
                         size);
    return read_level(chain, 0, out, length, offset, f);
}

/* Raw content: a stretch counts as held when the file system has data in it. */
static int is_plain_held(const struct vhd_level *level, uint64_t at, uint64_t length, bool *held, struct fault *f)
{
    uint64_t data;
    if (image_next(level->image.fd, true, at, at + length, &data) < 0)
        return fault_errno(f, FAULT_VDILoad, "look for the data of an image");
    *held = data < at + length;
    return 0;
}

/* *held: the level holds something of that stretch, which lies within one block of every level. */
static int is_held(struct vhd_level *level, uint64_t at, uint64_t length, bool *held, struct fault *f)
{
    uint32_t entry;
    *held = false;
    if (at >= level->image.footer.size)
        return 0;
    if (level->raw || !vhd_image_sparse(&level->image))
        return is_plain_held(level, at, length, held, f);
    if (vhd_level_entry(level, (uint32_t) (at / level->image.header.block_size), &entry, f) < 0)
        return -1;
    *held = entry != VHD_UNUSED;
    return 0;
}

static int is_any_held(struct vhd_chain *chain, uint64_t at, uint64_t length, bool *held, struct fault *f)
{
    *held = false;
    for (size_t i = 0; i < chain->depth && !*held; i++)
        if (is_held(chain->levels[i], at, length, held, f) < 0)
            return -1;
    return 0;
}

/* The smallest block of the chain. */
static uint64_t stride_of(const struct vhd_chain *chain)
{
    uint64_t stride = VHD_BLOCK_SIZE;
    for (size_t i = 0; i < chain->depth; i++) {
        const struct vhd_level *level = chain->levels[i];
        if (!level->raw && vhd_image_sparse(&level->image) && level->image.header.block_size < stride)
            stride = level->image.header.block_size;
    }
    return stride;
}

/* The first stride from at on that is held, or is not, as asked; the size when there is none. */
static int find(struct vhd_chain *chain, bool wanted, uint64_t at, uint64_t *out, struct fault *f)
{
    uint64_t size = vhd_chain_size(chain), stride = stride_of(chain);
    for (bool held; at < size; at += stride) {
        if (is_any_held(chain, at, stride, &held, f) < 0)
            return -1;
        if (held == wanted)
            break;
    }
    *out = at < size ? at : size;
    return 0;
}

int vhd_chain_extent(struct vhd_chain *chain, uint64_t from, struct vhd_extent *out, struct fault *f)
{
    uint64_t begin, end;
    if (find(chain, true, from - from % stride_of(chain), &begin, f) < 0 || find(chain, false, begin, &end, f) < 0)
        return -1;
    if (begin < from)
        begin = from;
    *out = (struct vhd_extent){.offset = begin, .length = begin < end ? end - begin : 0};
    return 0;
}
