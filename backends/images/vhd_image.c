/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/vhd_image.h"

#include "backends/images/image.h"
#include "server/base/io.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FEATURES_VERSION 0x00010000U
#define HEADER_VERSION   0x00010000U
#define TAP_LITTLE_END   0x00000001U /* of an early writer whose bitmaps count from the low bit */

static int unsound(struct fault *f, const char *fmt, ...) PRINTF(2, 3);

static int unsound(struct fault *f, const char *fmt, ...)
{
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return fault_set(f, FAULT_VDILoad, "not a sound VHD: %s", what);
}

int vhd_image_read(int fd, void *out, size_t length, uint64_t at, const char *what, struct fault *f)
{
    if (io_read_at(fd, out, length, at) == 0)
        return 0;
    if (errno == 0)
        return unsound(f, "%s, at %" PRIu64 ", is cut off", what, at);
    return fault_errno(f, FAULT_VDILoad, "read %s of a VHD at %" PRIu64, what, at);
}

/* Sizes that every kind of image must keep. */
static int check_footer(const struct vhd_footer *footer, struct fault *f)
{
    if (footer->version != FEATURES_VERSION)
        return unsound(f, "format version %08" PRIx32 " is not 00010000", footer->version);
    if (footer->type != VHD_FIXED && footer->type != VHD_DYNAMIC && footer->type != VHD_DIFFERENCING)
        return unsound(f, "disk type %" PRIu32 " does not exist", footer->type);
    if (footer->size == 0 || footer->size % SECTOR_SIZE || footer->size > VHD_LARGEST)
        return unsound(f, "a virtual size of %" PRIu64 " bytes", footer->size);
    if (memcmp(footer->creator, "tap", 4) == 0 && footer->creator_version == TAP_LITTLE_END)
        return unsound(f, "its bitmaps are those of tapdisk 0.1, which nobody writes any more");
    return 0;
}

static bool is_whole_power(uint32_t n)
{
    return n && (n & (n - 1)) == 0;
}

/* The header's own fields, and where it puts the BAT. end: where the last footer begins. */
static int check_header(struct vhd_image *image, uint64_t end, struct fault *f)
{
    const struct vhd_header *h = &image->header;
    if (h->version != HEADER_VERSION)
        return unsound(f, "header version %08" PRIx32 " is not 00010000", h->version);
    if (!is_whole_power(h->block_size) || h->block_size < VHD_BLOCK_SMALL || h->block_size > VHD_BLOCK_SIZE)
        return unsound(f, "blocks of %" PRIu32 " bytes are neither 512 KiB, 1 MiB nor 2 MiB", h->block_size);
    image->blocks = (uint32_t) ((image->footer.size + h->block_size - 1) / h->block_size);
    image->block_length = VHD_BITMAP_SIZE + h->block_size;
    if (h->max_entries < image->blocks)
        return unsound(f, "a BAT of %" PRIu32 " entries for %" PRIu32 " blocks", h->max_entries, image->blocks);
    uint64_t length = vhd_padded((uint64_t) h->max_entries * 4);
    if (h->table_offset % SECTOR_SIZE || h->table_offset < image->footer.data_offset + VHD_HEADER_SIZE ||
        h->table_offset > end || length > end - h->table_offset)
        return unsound(f, "a BAT of %" PRIu64 " bytes at %" PRIu64 " in a file of %" PRIu64, length, h->table_offset,
                       image->file_size);
    image->bat_end = h->table_offset + length;
    image->metadata_end = image->bat_end;
    return 0;
}

static int check_locators(struct vhd_image *image, uint64_t end, struct fault *f)
{
    for (size_t i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator *l = &image->header.locators[i];
        if (l->code == VHD_LOCATOR_NONE)
            continue;
        uint64_t space = vhd_locator_space(l);
        if (space == 0 || l->length > space || l->offset < image->footer.data_offset + VHD_HEADER_SIZE ||
            l->offset % SECTOR_SIZE || l->offset > end || space > end - l->offset)
            return unsound(f, "parent locator %zu of %" PRIu64 " bytes at %" PRIu64, i, space, l->offset);
        if (l->offset + space > image->metadata_end)
            image->metadata_end = l->offset + space;
    }
    return 0;
}

/* Images by Xen's tools carry one right after the BAT; the earliest may lack it. */
static int load_batmap(struct vhd_image *image, uint64_t end, struct fault *f)
{
    const struct vhd_footer *footer = &image->footer;
    if (memcmp(footer->creator, "tap", 4) != 0 || footer->creator_version < VHD_BATMAP_FIRST)
        return 0;
    unsigned char raw[VHD_BATMAP_SECTOR];
    if (vhd_image_read(image->fd, raw, sizeof raw, image->bat_end, "the batmap's header", f) < 0)
        return -1;
    struct vhd_batmap *map = &image->batmap;
    if (vhd_batmap_in(raw, map)) {
        if (footer->creator_version >= VHD_BATMAP_SURE)
            return unsound(f, "no batmap stands behind the BAT: a program that knows none has written to it");
        return 0;
    }
    uint64_t least = image->bat_end + VHD_BATMAP_SECTOR, length = (uint64_t) map->sectors * SECTOR_SIZE;
    if (map->version > VHD_BATMAP_V12 || map->offset % SECTOR_SIZE || map->offset < least || map->offset > end ||
        length > end - map->offset || length * 8 < image->blocks || length < vhd_batmap_covered(footer->size))
        return unsound(f, "a batmap of %" PRIu64 " bytes at %" PRIu64 ", version %08" PRIx32, length, map->offset,
                       map->version);
    image->has_batmap = true;
    if (map->offset + length > image->metadata_end)
        image->metadata_end = map->offset + length;
    return 0;
}

static int load_header(struct vhd_image *image, const unsigned char start[VHD_FOOTER_SIZE + VHD_HEADER_SIZE],
                       struct fault *f)
{
    unsigned char elsewhere[VHD_HEADER_SIZE];
    const unsigned char *raw = start + VHD_HEADER_AT;
    uint64_t at = image->footer.data_offset;
    uint64_t end = image->file_size - (image->end_lost ? 0 : VHD_FOOTER_SIZE);
    if (at % SECTOR_SIZE || at < VHD_HEADER_AT || at > end || end - at < VHD_HEADER_SIZE)
        return unsound(f, "a header at %" PRIu64 " in a file of %" PRIu64, at, image->file_size);
    if (at != VHD_HEADER_AT) {
        if (vhd_image_read(image->fd, elsewhere, sizeof elsewhere, at, "the header", f) < 0)
            return -1;
        raw = elsewhere;
    }
    const char *wrong = vhd_header_in(raw, &image->header);
    if (wrong)
        return unsound(f, "the header %s", wrong);
    if (check_header(image, end, f) < 0 || load_batmap(image, end, f) < 0)
        return -1;
    return check_locators(image, end, f);
}

static int check_fixed(const struct vhd_image *image, struct fault *f)
{
    if (image->footer.size > image->file_size - VHD_FOOTER_SIZE)
        return unsound(f, "a fixed disk of %" PRIu64 " bytes in a file of %" PRIu64, image->footer.size,
                       image->file_size);
    return 0;
}

/* The hidden mark, written to one after the other, is all in which two footers may differ for a moment. */
static bool is_same_disk(const struct vhd_footer *a, const struct vhd_footer *b)
{
    return a->size == b->size && a->type == b->type && a->data_offset == b->data_offset &&
           memcmp(a->id, b->id, sizeof a->id) == 0;
}

/* Decides between the footer at the end and its copy. */
static int choose_footer(struct vhd_image *image, const unsigned char *end, const unsigned char *start, struct fault *f)
{
    struct vhd_footer copy;
    const char *end_wrong = vhd_footer_in(end, &image->footer);
    if (!end_wrong && image->footer.type == VHD_FIXED)
        return 0;
    const char *copy_wrong = vhd_footer_in(start, &copy);
    if (end_wrong && copy_wrong)
        return unsound(f, "the footer %s, and its copy %s", end_wrong, copy_wrong);
    if (end_wrong && copy.type == VHD_FIXED)
        return unsound(f, "the footer %s", end_wrong);
    if (!end_wrong && !copy_wrong && image->fixed && memcmp(end, start, VHD_FOOTER_SIZE) != 0)
        end_wrong =
            "was another's"; /* a volume that was longer once, or got an end that was somebody's: the copy counts */
    if (!end_wrong && !copy_wrong && !is_same_disk(&image->footer, &copy))
        return unsound(f, "the footer and its copy tell of different disks");
    image->end_lost = end_wrong;
    image->copy_lost = copy_wrong;
    if (end_wrong)
        image->footer = copy;
    return 0;
}

static int load_size(struct vhd_image *image, struct fault *f)
{
    struct image_length l;
    if (image_length(image->fd, &l, f) < 0)
        return fault_prefix(f, "not a VHD");
    if (l.length < VHD_FOOTER_SIZE)
        return unsound(f, "a file of %" PRIu64 " bytes has no room for a footer", l.length);
    image->file_size = l.length;
    image->allocated = l.allocated;
    image->fixed = l.fixed;
    return 0;
}

int vhd_image_load(int fd, struct vhd_image *out, struct fault *f)
{
    unsigned char start[VHD_FOOTER_SIZE + VHD_HEADER_SIZE] = {0}, end[VHD_FOOTER_SIZE];
    struct vhd_image image = {.fd = fd};
    if (load_size(&image, f) < 0)
        return -1;
    size_t length = image.file_size < sizeof start ? (size_t) image.file_size : sizeof start;
    if (vhd_image_read(fd, end, sizeof end, image.file_size - sizeof end, "the footer", f) < 0 ||
        vhd_image_read(fd, start, length, 0, "the header", f) < 0)
        return -1;
    if (choose_footer(&image, end, start, f) < 0 || check_footer(&image.footer, f) < 0)
        return -1;
    if (!vhd_image_sparse(&image)) {
        if (check_fixed(&image, f) < 0)
            return -1;
    } else if (load_header(&image, start, f) < 0) {
        return -1;
    }
    uint64_t data_end;
    if (image.end_lost && vhd_image_check_blocks(&image, &data_end, f) < 0)
        return -1;
    *out = image;
    return 0;
}

bool vhd_image_parent_is_raw(const struct vhd_image *image)
{
    static const unsigned char none[16];
    return memcmp(image->header.parent_id, none, sizeof none) == 0;
}

int vhd_image_entries(const struct vhd_image *image, uint32_t first, uint32_t count, unsigned char *out,
                      struct fault *f)
{
    return vhd_image_read(image->fd, out, (size_t) count * 4, image->header.table_offset + (uint64_t) first * 4,
                          "the BAT", f);
}

const char *vhd_image_entry_wrong(const struct vhd_image *image, uint32_t entry)
{
    uint64_t at = (uint64_t) entry * SECTOR_SIZE;
    if (at < image->metadata_end)
        return "lies over the metadata";
    if (image->end_lost)
        return at + VHD_BITMAP_SIZE > image->file_size ? "lies behind the end of the file" : NULL;
    return at + image->block_length > image->file_size - VHD_FOOTER_SIZE ? "lies over or behind the footer" : NULL;
}
