/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The whole check of a BAT and a batmap. */
#include "backends/images/vhd_image.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_ENTRIES 4096U
#define SLOT_FREE     UINT16_MAX

/* The file in slots as long as a block: two blocks that begin in one slot overlap, and so do two in neighbouring slots
   that begin less than a slot apart. A slot keeps how many sectors into it a block begins (at most 4096). */
struct slots {
    uint16_t *begin;
    uint64_t count;
    uint32_t sectors; /* in a slot */
    uint64_t last;    /* sector after the last block */
};

static void slots_free(struct slots *s)
{
    free(s->begin);
}
#define AUTO_SLOTS __attribute__((cleanup(slots_free)))

static int slots_make(const struct vhd_image *image, struct slots *out, struct fault *f)
{
    uint32_t each = image->block_length / SECTOR_SIZE;
    uint64_t file = image->file_size / SECTOR_SIZE;
    if (file > VHD_UNUSED)
        file = VHD_UNUSED; /* no entry leads further */
    uint64_t count = file / each + 1;
    uint16_t *begin = malloc(count * sizeof *begin);
    if (!begin)
        return fault_errno(f, FAULT_VDILoad, "check a BAT");
    memset(begin, 0xff, count * sizeof *begin);
    *out = (struct slots){.begin = begin, .count = count, .sectors = each};
    return 0;
}

/* False when the block that begins at that sector overlaps another. The sector is within the file. */
static bool slots_take(struct slots *s, uint32_t sector)
{
    uint64_t slot = sector / s->sectors;
    uint16_t begin = (uint16_t) (sector % s->sectors);
    if (s->begin[slot] != SLOT_FREE)
        return false;
    if (slot > 0 && s->begin[slot - 1] != SLOT_FREE && s->begin[slot - 1] > begin)
        return false;
    if (slot + 1 < s->count && s->begin[slot + 1] != SLOT_FREE && s->begin[slot + 1] < begin)
        return false;
    s->begin[slot] = begin;
    if ((uint64_t) sector + s->sectors > s->last)
        s->last = (uint64_t) sector + s->sectors;
    return true;
}

static int check_entry(const struct vhd_image *image, struct slots *s, uint32_t block, uint32_t entry, struct fault *f)
{
    const char *wrong = vhd_image_entry_wrong(image, entry);
    if (!wrong && !slots_take(s, entry))
        wrong = "lies over another";
    return wrong ? fault_set(f, FAULT_VDILoad, "not a sound VHD: block %" PRIu32 ", at sector %" PRIu32 ", %s", block,
                             entry, wrong)
                 : 0;
}

static int check_entries(const struct vhd_image *image, struct slots *s, struct fault *f)
{
    unsigned char raw[CHUNK_ENTRIES * 4];
    for (uint32_t first = 0; first < image->blocks; first += CHUNK_ENTRIES) {
        uint32_t left = image->blocks - first, count = left < CHUNK_ENTRIES ? left : CHUNK_ENTRIES;
        if (vhd_image_entries(image, first, count, raw, f) < 0)
            return -1;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t entry = vhd_get32(raw + (size_t) i * 4);
            if (entry != VHD_UNUSED && check_entry(image, s, first + i, entry, f) < 0)
                return -1;
        }
    }
    return 0;
}

/* A writer that was killed leaves its last block longer than the file: then all of it that was written must be there.
 */
static int check_last_block(const struct vhd_image *image, uint64_t data_end, struct fault *f)
{
    if (data_end <= image->file_size)
        return 0;
    uint64_t at = data_end - image->block_length, data = at + VHD_BITMAP_SIZE;
    unsigned char bitmap[VHD_BITMAP_SIZE];
    if (vhd_image_read(image->fd, bitmap, sizeof bitmap, at, "a bitmap", f) < 0)
        return -1;
    uint64_t there = image->file_size < data ? 0 : (image->file_size - data) / SECTOR_SIZE;
    for (uint64_t i = there; i < image->header.block_size / SECTOR_SIZE; i++)
        if (vhd_bit(bitmap, i))
            return fault_set(f, FAULT_VDILoad, "not a sound VHD: cut off within the block at %" PRIu64, at);
    return 0;
}

/* A block the batmap calls full has a place. */
static int check_batmap_bits(const struct vhd_image *image, const unsigned char *map, uint64_t covered, struct fault *f)
{
    unsigned char raw[CHUNK_ENTRIES * 4];
    uint32_t count = image->blocks < covered * 8 ? image->blocks : (uint32_t) (covered * 8);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = i % CHUNK_ENTRIES, left = count - i;
        if (at == 0 && vhd_image_entries(image, i, left < CHUNK_ENTRIES ? left : CHUNK_ENTRIES, raw, f) < 0)
            return -1;
        if (vhd_bit(map, i) && vhd_get32(raw + (size_t) at * 4) == VHD_UNUSED)
            return fault_set(f, FAULT_VDILoad, "not a sound VHD: block %" PRIu32 " is full by the batmap, and nowhere",
                             i);
    }
    return 0;
}

static int check_batmap(const struct vhd_image *image, struct fault *f)
{
    if (!image->has_batmap || image->batmap.version != VHD_BATMAP_V12)
        return 0; /* older sums are of signed bytes */
    uint64_t covered = vhd_batmap_covered(image->footer.size);
    AUTO_FREE unsigned char *map = malloc(covered);
    if (!map)
        return fault_errno(f, FAULT_VDILoad, "check a batmap");
    if (vhd_image_read(image->fd, map, covered, image->batmap.offset, "the batmap", f) < 0)
        return -1;
    if (vhd_checksum(map, covered) != image->batmap.checksum)
        return fault_set(f, FAULT_VDILoad, "not a sound VHD: the batmap has a wrong checksum");
    return check_batmap_bits(image, map, covered, f);
}

int vhd_image_check_blocks(const struct vhd_image *image, uint64_t *data_end, struct fault *f)
{
    if (!vhd_image_sparse(image)) {
        *data_end = image->footer.size;
        return 0;
    }
    AUTO_SLOTS struct slots s = {0};
    if (slots_make(image, &s, f) < 0 || check_entries(image, &s, f) < 0)
        return -1;
    uint64_t end = s.last * SECTOR_SIZE > image->metadata_end ? s.last * SECTOR_SIZE : image->metadata_end;
    if (check_last_block(image, end, f) < 0)
        return -1;
    *data_end = end;
    return 0;
}

int vhd_image_check(const struct vhd_image *image, uint64_t *data_end, struct fault *f)
{
    return check_batmap(image, f) < 0 ? -1 : vhd_image_check_blocks(image, data_end, f);
}
