/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/vhd_layout.h"

#include <endian.h>
#include <string.h>

#define FOOTER_COOKIE      "conectix"
#define FOOTER_DISABLED    "v_poison" /* written over the cookie by Xen's tools to take an image out of use */
#define HEADER_COOKIE      "cxsparse"
#define BATMAP_COOKIE      "tdbatmap"
#define COOKIE_SIZE        8
#define FOOTER_CHECKSUM_AT 64
#define HEADER_CHECKSUM_AT 36
#define EPOCH_2000         946684800

/* clang-format off */
#define FOOTER_FIELDS(NUMBER, BYTES) \
    NUMBER(32, features, 8)          NUMBER(32, version, 12)         NUMBER(64, data_offset, 16) \
    NUMBER(32, timestamp, 24)        BYTES(creator, 28)              NUMBER(32, creator_version, 32) \
    NUMBER(32, creator_os, 36)       NUMBER(64, original_size, 40)   NUMBER(64, size, 48) \
    NUMBER(32, geometry, 56)         NUMBER(32, type, 60)            BYTES(id, 68) \
    NUMBER(8, saved, 84)             NUMBER(8, hidden, 85)           BYTES(reserved, 86)

#define HEADER_FIELDS(NUMBER, BYTES) \
    NUMBER(64, data_offset, 8)       NUMBER(64, table_offset, 16)    NUMBER(32, version, 24) \
    NUMBER(32, max_entries, 28)      NUMBER(32, block_size, 32)      BYTES(parent_id, 40) \
    NUMBER(32, parent_timestamp, 56) NUMBER(32, reserved, 60)        BYTES(parent_name, 64) \
    BYTES(reserved_end, 768)
#define LOCATORS_AT  576
#define LOCATOR_SIZE 24

#define LOCATOR_FIELDS(NUMBER, BYTES) \
    NUMBER(32, code, 0)              NUMBER(32, space, 4)            NUMBER(32, length, 8) \
    NUMBER(32, reserved, 12)         NUMBER(64, offset, 16)

#define BATMAP_FIELDS(NUMBER, BYTES) \
    NUMBER(64, offset, 8)            NUMBER(32, sectors, 16)         NUMBER(32, version, 20) \
    NUMBER(32, checksum, 24)         BYTES(rest, 28)
/* clang-format on */

#define TAKE_NUMBER(bits, field, at) out->field = get##bits(raw + (at));
#define TAKE_BYTES(field, at)        memcpy(out->field, raw + (at), sizeof out->field);
#define GIVE_NUMBER(bits, field, at) put##bits(raw + (at), in->field);
#define GIVE_BYTES(field, at)        memcpy(raw + (at), in->field, sizeof in->field);

static unsigned char get8(const unsigned char *at)
{
    return *at;
}

static uint32_t get32(const unsigned char *at)
{
    uint32_t big;
    memcpy(&big, at, sizeof big);
    return be32toh(big);
}

static uint64_t get64(const unsigned char *at)
{
    uint64_t big;
    memcpy(&big, at, sizeof big);
    return be64toh(big);
}

static void put8(unsigned char *at, unsigned char value)
{
    *at = value;
}

static void put32(unsigned char *at, uint32_t value)
{
    uint32_t big = htobe32(value);
    memcpy(at, &big, sizeof big);
}

static void put64(unsigned char *at, uint64_t value)
{
    uint64_t big = htobe64(value);
    memcpy(at, &big, sizeof big);
}

uint32_t vhd_get32(const unsigned char *at)
{
    return get32(at);
}

void vhd_put32(unsigned char *at, uint32_t value)
{
    put32(at, value);
}

static uint32_t sum(const unsigned char *data, size_t length)
{
    uint32_t total = 0;
    for (size_t i = 0; i < length; i++)
        total += data[i];
    return total;
}

uint32_t vhd_checksum(const unsigned char *data, size_t length)
{
    return ~sum(data, length);
}

/* Of a structure whose own four checksum bytes count as zero. */
static uint32_t checksum_around(const unsigned char *raw, size_t length, size_t at)
{
    return ~(sum(raw, length) - sum(raw + at, 4));
}

const char *vhd_footer_in(const unsigned char raw[VHD_FOOTER_SIZE], struct vhd_footer *out)
{
    if (memcmp(raw, FOOTER_DISABLED, COOKIE_SIZE) == 0)
        return "is marked as disabled";
    if (memcmp(raw, FOOTER_COOKIE, COOKIE_SIZE) != 0)
        return "has no cookie";
    if (get32(raw + FOOTER_CHECKSUM_AT) != checksum_around(raw, VHD_FOOTER_SIZE, FOOTER_CHECKSUM_AT))
        return "has a wrong checksum";
    FOOTER_FIELDS(TAKE_NUMBER, TAKE_BYTES)
    return NULL;
}

void vhd_footer_out(const struct vhd_footer *in, unsigned char raw[VHD_FOOTER_SIZE])
{
    memcpy(raw, FOOTER_COOKIE, COOKIE_SIZE);
    FOOTER_FIELDS(GIVE_NUMBER, GIVE_BYTES)
    put32(raw + FOOTER_CHECKSUM_AT, checksum_around(raw, VHD_FOOTER_SIZE, FOOTER_CHECKSUM_AT));
}

static void locator_in(const unsigned char *raw, struct vhd_locator *out)
{
    LOCATOR_FIELDS(TAKE_NUMBER, TAKE_BYTES)
}

static void locator_out(const struct vhd_locator *in, unsigned char *raw)
{
    LOCATOR_FIELDS(GIVE_NUMBER, GIVE_BYTES)
}

const char *vhd_header_in(const unsigned char raw[VHD_HEADER_SIZE], struct vhd_header *out)
{
    if (memcmp(raw, HEADER_COOKIE, COOKIE_SIZE) != 0)
        return "has no cookie";
    if (get32(raw + HEADER_CHECKSUM_AT) != checksum_around(raw, VHD_HEADER_SIZE, HEADER_CHECKSUM_AT))
        return "has a wrong checksum";
    HEADER_FIELDS(TAKE_NUMBER, TAKE_BYTES)
    for (size_t i = 0; i < VHD_LOCATORS; i++)
        locator_in(raw + LOCATORS_AT + i * LOCATOR_SIZE, &out->locators[i]);
    return NULL;
}

void vhd_header_out(const struct vhd_header *in, unsigned char raw[VHD_HEADER_SIZE])
{
    memcpy(raw, HEADER_COOKIE, COOKIE_SIZE);
    HEADER_FIELDS(GIVE_NUMBER, GIVE_BYTES)
    for (size_t i = 0; i < VHD_LOCATORS; i++)
        locator_out(&in->locators[i], raw + LOCATORS_AT + i * LOCATOR_SIZE);
    put32(raw + HEADER_CHECKSUM_AT, checksum_around(raw, VHD_HEADER_SIZE, HEADER_CHECKSUM_AT));
}

const char *vhd_batmap_in(const unsigned char raw[VHD_BATMAP_SECTOR], struct vhd_batmap *out)
{
    if (memcmp(raw, BATMAP_COOKIE, COOKIE_SIZE) != 0)
        return "has no cookie";
    BATMAP_FIELDS(TAKE_NUMBER, TAKE_BYTES)
    return NULL;
}

void vhd_batmap_out(const struct vhd_batmap *in, unsigned char raw[VHD_BATMAP_SECTOR])
{
    memcpy(raw, BATMAP_COOKIE, COOKIE_SIZE);
    BATMAP_FIELDS(GIVE_NUMBER, GIVE_BYTES)
}

/* Fewer sectors than this fit 65535 cylinders of 16 heads and 63 sectors. */
#define GEOMETRY_63  (65535U * 16 * 63)
#define GEOMETRY_255 (65535U * 16 * 255)

uint32_t vhd_geometry(uint64_t size)
{
    uint64_t count = vhd_padded(size) / SECTOR_SIZE;
    uint32_t total = count > GEOMETRY_255 ? GEOMETRY_255 : (uint32_t) count;
    uint32_t track = 17, heads = (total / track + 1023) / 1024;
    if (heads < 4)
        heads = 4;
    if (total >= GEOMETRY_63) {
        track = 255;
        heads = 16;
    } else if (total / track >= heads * 1024 || heads > 16) {
        heads = 16;
        track = total / 31 >= heads * 1024 ? 63 : 31;
    }
    return (total / track / heads) << 16 | heads << 8 | track;
}

uint32_t vhd_time(int64_t seconds)
{
    return seconds < EPOCH_2000 ? 0 : (uint32_t) (seconds - EPOCH_2000);
}

uint64_t vhd_locator_space(const struct vhd_locator *locator)
{
    if (locator->space < SECTOR_SIZE)
        return (uint64_t) locator->space * SECTOR_SIZE;
    return locator->space % SECTOR_SIZE == 0 ? locator->space : 0;
}

uint64_t vhd_batmap_covered(uint64_t size)
{
    uint64_t whole = size / VHD_BLOCK_SIZE / 8;
    return whole ? vhd_padded(whole) : SECTOR_SIZE;
}

uint64_t vhd_block_place(uint64_t at)
{
    uint64_t sector = vhd_padded(at) / SECTOR_SIZE, data = sector + VHD_BITMAP_SIZE / SECTOR_SIZE;
    return sector + (VHD_PAGE_SECTORS - data % VHD_PAGE_SECTORS) % VHD_PAGE_SECTORS;
}
