/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/vhd_make.h"

#include "backends/images/vhd.h"
#include "backends/images/vhd_image.h"
#include "server/base/io.h"
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define FEATURES_NONE  0x00000002U /* a bit that is always set */
#define FORMAT_VERSION 0x00010000U
#define FILL_CHUNK     65536U
#define ANYWHERE       0U /* a file ends where its image does */

int vhd_fill(int fd, unsigned char value, uint64_t at, uint64_t length)
{
    unsigned char chunk[FILL_CHUNK];
    memset(chunk, value, length < sizeof chunk ? (size_t) length : sizeof chunk);
    while (length > 0) {
        size_t n = length < sizeof chunk ? (size_t) length : sizeof chunk;
        if (io_write_at(fd, chunk, n, at) < 0)
            return -1;
        at += n;
        length -= n;
    }
    return 0;
}

static unsigned digit(char c)
{
    return (unsigned) (c <= '9' ? c - '0' : c - 'a' + 10);
}

static void uuid_bytes(const struct uuid *u, unsigned char out[16])
{
    const char *at = u->text;
    for (size_t i = 0; i < 16; i++, at += 2) {
        if (*at == '-')
            at++;
        out[i] = (unsigned char) (digit(at[0]) << 4 | digit(at[1]));
    }
}

static struct vhd_footer new_footer(const struct uuid *id, uint64_t size, enum vhd_type type)
{
    struct vhd_footer footer = {
        .features = FEATURES_NONE,
        .version = FORMAT_VERSION,
        .data_offset = VHD_HEADER_AT,
        .timestamp = vhd_time(time(NULL)),
        .creator = {'t', 'a', 'p', 0},
        .creator_version = VHD_XEN_VERSION,
        .original_size = size,
        .size = size,
        .geometry = vhd_geometry(size),
        .type = type,
    };
    uuid_bytes(id, footer.id);
    return footer;
}

/* reserved: the size the BAT has room for. */
static struct vhd_header new_header(uint64_t reserved)
{
    return (struct vhd_header){
        .data_offset = VHD_NOWHERE,
        .table_offset = VHD_BAT_AT,
        .version = FORMAT_VERSION,
        .max_entries = (uint32_t) ((reserved + VHD_BLOCK_SIZE - 1) / VHD_BLOCK_SIZE),
        .block_size = VHD_BLOCK_SIZE,
    };
}

static struct vhd_batmap new_batmap(const struct vhd_header *header)
{
    struct vhd_batmap map = {
        .offset = header->table_offset + vhd_padded((uint64_t) header->max_entries * 4) + VHD_BATMAP_SECTOR,
        .sectors = (uint32_t) (vhd_padded((header->max_entries + 7) / 8) / SECTOR_SIZE),
        .version = VHD_BATMAP_V12,
        .checksum = vhd_checksum(NULL, 0),
    };
    return map;
}

/* BAT and batmap, empty. The padding behind the BAT is zero. */
static int write_tables(int fd, const struct vhd_header *header, const struct vhd_batmap *map)
{
    unsigned char raw[VHD_BATMAP_SECTOR];
    uint64_t entries = (uint64_t) header->max_entries * 4, bat_end = header->table_offset + vhd_padded(entries);
    vhd_batmap_out(map, raw);
    if (vhd_fill(fd, 0xff, header->table_offset, entries) < 0 ||
        vhd_fill(fd, 0, header->table_offset + entries, vhd_padded(entries) - entries) < 0 ||
        io_write_at(fd, raw, sizeof raw, bat_end) < 0)
        return -1;
    return vhd_fill(fd, 0, map->offset, (uint64_t) map->sectors * SECTOR_SIZE);
}

/* Header, both footers and the tables; the last footer at end. */
static int write_image(int fd, const struct vhd_footer *footer, const struct vhd_header *header,
                       const struct vhd_batmap *map, uint64_t end, struct fault *f)
{
    unsigned char raw_footer[VHD_FOOTER_SIZE], raw_header[VHD_HEADER_SIZE];
    vhd_footer_out(footer, raw_footer);
    vhd_header_out(header, raw_header);
    if (io_write_at(fd, raw_footer, sizeof raw_footer, 0) < 0 ||
        io_write_at(fd, raw_header, sizeof raw_header, VHD_HEADER_AT) < 0 || write_tables(fd, header, map) < 0 ||
        io_write_at(fd, raw_footer, sizeof raw_footer, end) < 0)
        return fault_errno(f, FAULT_VDICreate, "write an empty VHD");
    return 0;
}

/* Where the last footer begins, behind metadata that ends there, in a volume of that length. */
static int footer_place(uint64_t metadata_end, uint64_t length, uint64_t *out, struct fault *f)
{
    *out = metadata_end;
    if (length == ANYWHERE)
        return 0;
    if (length < metadata_end + VHD_FOOTER_SIZE)
        return fault_set(f, FAULT_VDISize, "a volume of %llu bytes is too short for an empty VHD",
                         (unsigned long long) length);
    *out = length - VHD_FOOTER_SIZE;
    return 0;
}

static int make(int fd, const struct uuid *id, uint64_t size, uint64_t reserved, uint64_t length, struct fault *f)
{
    struct vhd_footer footer = new_footer(id, size, VHD_DYNAMIC);
    struct vhd_header header = new_header(reserved);
    struct vhd_batmap map = new_batmap(&header);
    uint64_t end;
    if (footer_place(map.offset + (uint64_t) map.sectors * SECTOR_SIZE, length, &end, f) < 0)
        return -1;
    return write_image(fd, &footer, &header, &map, end, f);
}

int vhd_make(int fd, const struct uuid *id, uint64_t size, struct fault *f)
{
    return make(fd, id, size, size, ANYWHERE, f);
}

int vhd_make_in(int fd, const struct uuid *id, uint64_t size, uint64_t length, struct fault *f)
{
    return make(fd, id, size, VHD_RESERVED, length, f);
}

/* ASCII as UTF-16; low: which byte of each pair holds the character. Returns the length. */
static size_t widen(const char *text, size_t low, unsigned char *out)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        out[i * 2 + low] = (unsigned char) text[i];
        out[i * 2 + 1 - low] = 0;
    }
    return n * 2;
}

/* What each locator holds. Both Windows forms are relative, as Xen's tools have it. */
size_t vhd_locator_text(uint32_t code, const char *name, unsigned char out[SECTOR_SIZE])
{
    char text[VHD_NAME + 16];
    memset(out, 0, SECTOR_SIZE);
    if (code == VHD_LOCATOR_MACX) {
        snprintf(text, sizeof text, "file://./%s", name);
        memcpy(out, text, strlen(text));
        return strlen(text);
    }
    snprintf(text, sizeof text, ".\\%s", name);
    return widen(text, 0, out);
}

void vhd_parent_name(const char *name, unsigned char out[512])
{
    memset(out, 0, 512);
    widen(name, 1, out);
}

/* The locators, one in each sector from there; *end is behind the last. */
static int write_locators(int fd, struct vhd_header *header, const char *name, uint64_t at, uint64_t *end)
{
    static const uint32_t codes[] = {VHD_LOCATOR_MACX, VHD_LOCATOR_W2KU, VHD_LOCATOR_W2RU};
    unsigned char raw[SECTOR_SIZE];
    for (size_t i = 0; i < COUNT_OF(codes); i++, at += SECTOR_SIZE) {
        header->locators[i] = (struct vhd_locator){
            .code = codes[i],
            .space = SECTOR_SIZE, /* in bytes, against the specification, as everybody has it */
            .length = (uint32_t) vhd_locator_text(codes[i], name, raw),
            .offset = at,
        };
        if (io_write_at(fd, raw, sizeof raw, at) < 0)
            return -1;
    }
    *end = at;
    return 0;
}

static int make_child(int fd, const struct uuid *id, const struct vhd_origin *parent, uint64_t reserved,
                      uint64_t length, struct fault *f)
{
    struct vhd_footer footer = new_footer(id, parent->size, VHD_DIFFERENCING);
    struct vhd_header header = new_header(reserved);
    struct vhd_batmap map = new_batmap(&header);
    uint64_t end = map.offset + (uint64_t) map.sectors * SECTOR_SIZE;
    memcpy(header.parent_id, parent->id, sizeof header.parent_id);
    header.parent_timestamp = parent->timestamp;
    vhd_parent_name(parent->name, header.parent_name);
    if (write_locators(fd, &header, parent->name, end, &end) < 0)
        return fault_errno(f, FAULT_VDICreate, "write an empty VHD");
    if (footer_place(end, length, &end, f) < 0)
        return -1;
    return write_image(fd, &footer, &header, &map, end, f);
}

int vhd_make_child_in(int fd, const struct uuid *id, const struct vhd_origin *parent, uint64_t length, struct fault *f)
{
    return make_child(fd, id, parent, VHD_RESERVED, length, f);
}

static int parent_stat(int fd, struct stat *st, struct fault *f)
{
    return fstat(fd, st) < 0 ? fault_errno(f, FAULT_VDILoad, "look at a parent") : 0;
}

int vhd_make_child(int fd, const struct uuid *id, int parent_fd, const struct uuid *parent, struct fault *f)
{
    struct vhd_image image;
    struct stat st;
    if (vhd_image_load(parent_fd, &image, f) < 0 || parent_stat(parent_fd, &st, f) < 0)
        return -1;
    struct vhd_origin p = {.size = image.footer.size, .timestamp = vhd_time(st.st_mtime)};
    snprintf(p.name, sizeof p.name, "%s.vhd", parent->text);
    memcpy(p.id, image.footer.id, sizeof p.id);
    return make_child(fd, id, &p, p.size, ANYWHERE, f);
}

int vhd_make_child_of_raw(int fd, const struct uuid *id, int parent_fd, const struct uuid *parent, struct fault *f)
{
    struct stat st;
    if (parent_stat(parent_fd, &st, f) < 0)
        return -1;
    uint64_t size = vhd_padded((uint64_t) st.st_size);
    if (size == 0 || size > VHD_LARGEST)
        return fault_set(f, FAULT_VDISize, "a raw disk of %llu bytes cannot be the parent of a VHD",
                         (unsigned long long) st.st_size);
    struct vhd_origin p = {.size = size, .timestamp = vhd_time(st.st_mtime)};
    snprintf(p.name, sizeof p.name, "%s.raw", parent->text);
    return make_child(fd, id, &p, p.size, ANYWHERE, f);
}

int vhd_make_sibling(int fd, const struct uuid *id, int of_fd, struct fault *f)
{
    struct vhd_image image;
    struct uuid parent;
    if (vhd_image_load(of_fd, &image, f) < 0)
        return -1;
    if (!vhd_image_child(&image))
        return fault_set(f, FAULT_VDIType, "the image has no parent");
    if (vhd_image_parent(&image, &parent, f) < 0)
        return -1;
    if (!uuid_is(&parent))
        return fault_set(f, FAULT_VDILoad, "the name of the image's parent holds no uuid");
    struct vhd_origin p = {.size = image.footer.size, .timestamp = image.header.parent_timestamp};
    snprintf(p.name, sizeof p.name, "%s%s", parent.text, vhd_image_parent_is_raw(&image) ? ".raw" : ".vhd");
    memcpy(p.id, image.header.parent_id, sizeof p.id);
    return make_child(fd, id, &p, p.size, ANYWHERE, f);
}
