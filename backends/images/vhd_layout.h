/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a VHD holds on disk (Virtual Hard Disk Image Format Specification 1.0, and what Xen's tools add to it), in and
   out. Every structure crosses this file; all of them are big-endian. Bytes we do not know survive in and out.

     0     copy of the footer, 512 bytes          dynamic and differencing only, as all down to the blocks
     512   header, 1024
     1536  BAT: for each block its first sector, padded to a sector
           batmap header, 512; batmap: a bit for each block whose sectors are all written. Only where Xen made the image
           parent locators, 512 each              differencing only
           blocks: a sector that holds a bit for each sector of the block, then the block. Data begins on a page
     end   footer, 512 */
#ifndef SMAPI_BACKENDS_VHD_LAYOUT_H
#define SMAPI_BACKENDS_VHD_LAYOUT_H

#include "server/base/units.h"
#include <stdbool.h>
#include <stddef.h>

#define VHD_FOOTER_SIZE   512U
#define VHD_HEADER_SIZE   1024U
#define VHD_HEADER_AT     512U
#define VHD_BAT_AT        1536U
#define VHD_BATMAP_SECTOR 512U
#define VHD_BLOCK_SIZE    (2U * 1024 * 1024)
#define VHD_BLOCK_SMALL   (512U * 1024) /* the smallest in use; its bitmap too fills one sector */
#define VHD_BITMAP_SIZE   512U
#define VHD_LARGEST       (UINT64_C(2040) * GIB)
#define VHD_UNUSED        0xffffffffU /* a BAT entry without a block */
#define VHD_NOWHERE       UINT64_MAX  /* an offset of nothing */
#define VHD_PAGE_SECTORS  8U
#define VHD_LOCATORS      8U
#define VHD_XEN_VERSION   0x00010003U /* of images we make; 1.1 was the first with a batmap, which 1.2 made certain */
#define VHD_BATMAP_FIRST  0x00010001U
#define VHD_BATMAP_SURE   0x00010002U
#define VHD_BATMAP_V12    0x00010002U

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

/* Platform codes of parent locators. */
#define VHD_LOCATOR_NONE 0U
#define VHD_LOCATOR_MACX 0x4d616358U /* file URL, UTF-8 */
#define VHD_LOCATOR_W2KU 0x57326b75U /* absolute path, UTF-16LE */
#define VHD_LOCATOR_W2RU 0x57327275U /* relative path, UTF-16LE */

struct vhd_footer {
    uint32_t features, version;
    uint64_t data_offset; /* of the header, VHD_NOWHERE in a fixed image */
    uint32_t timestamp;   /* seconds since 2000 */
    unsigned char creator[4];
    uint32_t creator_version, creator_os;
    uint64_t original_size, size; /* virtual, bytes */
    uint32_t geometry, type;
    unsigned char id[16], saved, hidden, reserved[426];
};

struct vhd_locator {
    uint32_t code, space, length, reserved;
    uint64_t offset;
};

struct vhd_header {
    uint64_t data_offset, table_offset;
    uint32_t version, max_entries, block_size;
    unsigned char parent_id[16];
    uint32_t parent_timestamp, reserved;
    unsigned char parent_name[512]; /* UTF-16BE */
    struct vhd_locator locators[VHD_LOCATORS];
    unsigned char reserved_end[256];
};

struct vhd_batmap {
    uint64_t offset;  /* of the map, bytes */
    uint32_t sectors; /* of the map */
    uint32_t version, checksum;
    unsigned char rest[484]; /* marker, key hash */
};

/* Reads one from raw bytes. NULL, or what is wrong with it ("has no cookie", …); *out is filled on NULL only. */
const char *vhd_footer_in(const unsigned char raw[VHD_FOOTER_SIZE], struct vhd_footer *out);
const char *vhd_header_in(const unsigned char raw[VHD_HEADER_SIZE], struct vhd_header *out);
const char *vhd_batmap_in(const unsigned char raw[VHD_BATMAP_SECTOR], struct vhd_batmap *out);

/* Write one, with cookie and, but for the batmap, whose checksum is that of the map, with the right checksum. */
void vhd_footer_out(const struct vhd_footer *in, unsigned char raw[VHD_FOOTER_SIZE]);
void vhd_header_out(const struct vhd_header *in, unsigned char raw[VHD_HEADER_SIZE]);
void vhd_batmap_out(const struct vhd_batmap *in, unsigned char raw[VHD_BATMAP_SECTOR]);

/* One's complement of the sum of all bytes. */
uint32_t vhd_checksum(const unsigned char *data, size_t length);

uint32_t vhd_get32(const unsigned char *at);
void vhd_put32(unsigned char *at, uint32_t value);

/* Cylinders, heads and sectors of a disk of that many bytes, as the specification's appendix has them. */
uint32_t vhd_geometry(uint64_t size);
/* Seconds since 2000-01-01 UTC of seconds since 1970. */
uint32_t vhd_time(int64_t seconds);

/* Bytes up to the next whole sector. */
static inline uint64_t vhd_padded(uint64_t length)
{
    return (length + SECTOR_SIZE - 1) / SECTOR_SIZE * SECTOR_SIZE;
}
/* Space a locator takes, bytes: the field is in sectors by the specification, in bytes in practice. 0: it is neither.
 */
uint64_t vhd_locator_space(const struct vhd_locator *locator);

/* The first sector, from that byte on, where a block's bitmap may stand so that its data begins on a page. */
uint64_t vhd_block_place(uint64_t at);

/* Bits are counted from the high end of each byte. */
static inline bool vhd_bit(const unsigned char *map, uint64_t at)
{
    return map[at / 8] & (0x80U >> (at % 8));
}
static inline void vhd_bit_set(unsigned char *map, uint64_t at)
{
    map[at / 8] = (unsigned char) (map[at / 8] | (0x80U >> (at % 8)));
}
static inline void vhd_bit_clear(unsigned char *map, uint64_t at)
{
    map[at / 8] = (unsigned char) (map[at / 8] & ~(0x80U >> (at % 8)));
}

/* The bytes of a batmap its checksum covers in a disk of that size: whole sectors, counted from whole groups of eight
   blocks of 2 MiB. Bits past them are never set, as Xen's tools neither read nor sum them. */
uint64_t vhd_batmap_covered(uint64_t size);

#endif
