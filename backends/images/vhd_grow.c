/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/vhd_grow.h"

#include "backends/images/vhd_image.h"
#include "backends/images/vhd_journal.h"
#include "backends/images/vhd_make.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MOVES_CEILING   64U /* the largest BAT and batmap cover fewer of the smallest blocks */
#define LOCATOR_CEILING 65536U
#define CHUNK_ENTRIES   4096U
#define COPY_CHUNK      65536U

struct move {
    uint32_t block, from, to; /* from, to: BAT entries */
};

/* What stands, and what shall stand. */
struct grow {
    struct vhd_image old;
    struct vhd_footer footer;
    struct vhd_header header;
    struct vhd_batmap batmap;
    uint64_t bat_end, metadata_end; /* new */
    uint64_t tail;                  /* where the first moved block or the new footer may begin */
    unsigned char *map;             /* the new batmap */
    bool blank;                     /* no batmap: zeros behind the new BAT, lest what lay there be taken for one */
    unsigned char *locators[VHD_LOCATORS]; /* of those that move */
    struct move moves[MOVES_CEILING];
    size_t move_count;
};

static void grow_free(struct grow *g)
{
    free(g->map);
    for (size_t i = 0; i < VHD_LOCATORS; i++)
        free(g->locators[i]);
}
#define AUTO_GROW __attribute__((cleanup(grow_free)))

/* Reads length bytes of the image into new memory of room bytes, the rest zero. */
static int keep(const struct vhd_image *image, uint64_t at, size_t length, size_t room, unsigned char **out,
                struct fault *f)
{
    AUTO_FREE unsigned char *data = calloc(1, room);
    if (!data)
        return fault_errno(f, FAULT_VDISize, "grow a VHD");
    if (vhd_image_read(image->fd, data, length, at, "its metadata", f) < 0)
        return -1;
    *out = TAKE(data);
    return 0;
}

/* The new map keeps the bits of the blocks there are, if their checksum is right; a clear bit is never wrong. */
static int plan_batmap(struct grow *g, struct fault *f)
{
    const struct vhd_batmap *old = &g->old.batmap;
    uint64_t covered = vhd_batmap_covered(g->old.footer.size), room = (uint64_t) g->batmap.sectors * SECTOR_SIZE;
    if (keep(&g->old, old->offset, covered, room, &g->map, f) < 0)
        return -1;
    if (old->version != VHD_BATMAP_V12 || vhd_checksum(g->map, covered) != old->checksum)
        memset(g->map, 0, room);
    for (uint64_t i = g->old.blocks; i < covered * 8; i++)
        vhd_bit_clear(g->map, i);
    g->batmap.version = VHD_BATMAP_V12;
    g->batmap.checksum = vhd_checksum(g->map, vhd_batmap_covered(g->footer.size));
    return 0;
}

static int plan_locator(struct grow *g, size_t i, uint64_t *at, struct fault *f)
{
    struct vhd_locator *l = &g->header.locators[i];
    uint64_t space = vhd_locator_space(l);
    if (l->code == VHD_LOCATOR_NONE || l->offset < g->header.table_offset)
        return 0;
    if (space > LOCATOR_CEILING)
        return fault_set(f, FAULT_VDILoad, "a parent locator of %" PRIu64 " bytes is too long to move", space);
    if (keep(&g->old, l->offset, space, space, &g->locators[i], f) < 0)
        return -1;
    l->offset = *at;
    *at += space;
    return 0;
}

/* Where everything between header and blocks goes. When the new entries fit the padding of the old, nothing moves. */
static int plan_metadata(struct grow *g, struct fault *f)
{
    const struct vhd_image *old = &g->old;
    uint64_t at = old->header.table_offset + vhd_padded((uint64_t) g->header.max_entries * 4);
    bool moves = at != old->bat_end;
    g->bat_end = at;
    if (old->has_batmap) {
        uint64_t needed = vhd_padded((g->header.max_entries + 7) / 8) / SECTOR_SIZE;
        if (needed > old->batmap.sectors)
            g->batmap.sectors = (uint32_t) needed;
        moves = moves || g->batmap.sectors != old->batmap.sectors;
        if (plan_batmap(g, f) < 0)
            return -1;
        if (moves)
            g->batmap.offset = at + VHD_BATMAP_SECTOR;
        at = g->batmap.offset + (uint64_t) g->batmap.sectors * SECTOR_SIZE;
    } else if (moves) {
        g->blank = true;
        at += VHD_BATMAP_SECTOR;
    }
    for (size_t i = 0; i < VHD_LOCATORS && moves; i++)
        if (plan_locator(g, i, &at, f) < 0)
            return -1;
    g->metadata_end = at > old->metadata_end ? at : old->metadata_end;
    return 0;
}

static int plan_move(struct grow *g, uint32_t block, uint32_t entry, struct fault *f)
{
    uint64_t to = vhd_block_place(g->tail);
    if (g->move_count == MOVES_CEILING || to >= VHD_UNUSED)
        return fault_set(f, FAULT_VDISize, "the blocks of this VHD leave no room for a larger BAT");
    g->moves[g->move_count++] = (struct move){.block = block, .from = entry, .to = (uint32_t) to};
    g->tail = to * SECTOR_SIZE + g->old.block_length;
    return 0;
}

static int plan_moves(struct grow *g, struct fault *f)
{
    unsigned char raw[CHUNK_ENTRIES * 4];
    for (uint32_t first = 0; first < g->old.blocks; first += CHUNK_ENTRIES) {
        uint32_t left = g->old.blocks - first, count = left < CHUNK_ENTRIES ? left : CHUNK_ENTRIES;
        if (vhd_image_entries(&g->old, first, count, raw, f) < 0)
            return -1;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t entry = vhd_get32(raw + (size_t) i * 4);
            if (entry != VHD_UNUSED && (uint64_t) entry * SECTOR_SIZE < g->metadata_end &&
                plan_move(g, first + i, entry, f) < 0)
                return -1;
        }
    }
    return 0;
}

static int plan(struct grow *g, uint64_t size, uint64_t data_end, struct fault *f)
{
    const struct vhd_image *old = &g->old;
    uint32_t needed = (uint32_t) ((size + old->header.block_size - 1) / old->header.block_size);
    g->footer = old->footer;
    g->footer.size = size;
    g->footer.geometry = vhd_geometry(size);
    g->header = old->header;
    if (needed > g->header.max_entries)
        g->header.max_entries = needed;
    g->batmap = old->batmap;
    if (plan_metadata(g, f) < 0)
        return -1;
    g->tail = old->end_lost ? vhd_padded(old->file_size) : old->file_size - VHD_FOOTER_SIZE;
    if (g->tail < data_end)
        g->tail = data_end;
    if (g->tail < g->metadata_end)
        g->tail = g->metadata_end;
    return plan_moves(g, f);
}

/* All of the old file that is written over. */
static int journal_old(const struct grow *g, const struct image_journal *journal, struct fault *f)
{
    const struct vhd_image *old = &g->old;
    uint64_t table = old->header.table_offset, tail = old->file_size - VHD_FOOTER_SIZE;
    uint64_t end = g->metadata_end < old->file_size ? g->metadata_end : old->file_size;
    struct vhd_span spans[] = {
        {0, VHD_FOOTER_SIZE},
        {old->footer.data_offset, VHD_HEADER_SIZE},
        {table, end - table},
        {tail, VHD_FOOTER_SIZE},
    };
    return vhd_journal_make(journal, old->fd, spans, COUNT_OF(spans), f);
}

/* Bytes behind the end of the file, of a block cut short by a killed writer, are zero. */
static int copy_chunk(int fd, unsigned char *chunk, size_t length, uint64_t from, uint64_t to)
{
    memset(chunk, 0, length);
    if (io_read_at(fd, chunk, length, from) < 0 && errno != 0)
        return -1;
    return io_write_at(fd, chunk, length, to);
}

static int copy_block(const struct grow *g, const struct move *m)
{
    unsigned char chunk[COPY_CHUNK];
    for (uint64_t done = 0; done < g->old.block_length;) {
        uint64_t left = g->old.block_length - done;
        size_t n = left < sizeof chunk ? (size_t) left : sizeof chunk;
        if (copy_chunk(g->old.fd, chunk, n, (uint64_t) m->from * SECTOR_SIZE + done,
                       (uint64_t) m->to * SECTOR_SIZE + done) < 0)
            return -1;
        done += n;
    }
    return 0;
}

/* The old footer, where it does not become the new one, lies in a gap or under something else. */
static int clear_old_footer(const struct grow *g)
{
    uint64_t at = g->old.file_size - VHD_FOOTER_SIZE;
    return g->old.end_lost || g->tail == at ? 0 : vhd_fill(g->old.fd, 0, at, VHD_FOOTER_SIZE);
}

static int write_bat(const struct grow *g)
{
    uint64_t table = g->header.table_offset, known = (uint64_t) g->old.blocks * 4;
    uint64_t entries = (uint64_t) g->header.max_entries * 4;
    unsigned char raw[4];
    for (size_t i = 0; i < g->move_count; i++) {
        vhd_put32(raw, g->moves[i].to);
        if (io_write_at(g->old.fd, raw, sizeof raw, table + (uint64_t) g->moves[i].block * 4) < 0)
            return -1;
    }
    if (vhd_fill(g->old.fd, 0xff, table + known, entries - known) < 0)
        return -1;
    return vhd_fill(g->old.fd, 0, table + entries, g->bat_end - table - entries);
}

static int write_behind_bat(const struct grow *g)
{
    unsigned char raw[VHD_BATMAP_SECTOR];
    if (g->old.has_batmap) {
        vhd_batmap_out(&g->batmap, raw);
        if (io_write_at(g->old.fd, raw, sizeof raw, g->bat_end) < 0 ||
            io_write_at(g->old.fd, g->map, (size_t) g->batmap.sectors * SECTOR_SIZE, g->batmap.offset) < 0)
            return -1;
    }
    if (g->blank && vhd_fill(g->old.fd, 0, g->bat_end, VHD_BATMAP_SECTOR) < 0)
        return -1;
    for (size_t i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator *l = &g->header.locators[i];
        if (g->locators[i] && io_write_at(g->old.fd, g->locators[i], vhd_locator_space(l), l->offset) < 0)
            return -1;
    }
    return 0;
}

/* Any order will do: until the journal is removed, only revert may look at the image. */
static int write_all(const struct grow *g)
{
    unsigned char footer[VHD_FOOTER_SIZE], header[VHD_HEADER_SIZE];
    vhd_footer_out(&g->footer, footer);
    vhd_header_out(&g->header, header);
    if (clear_old_footer(g) < 0)
        return -1;
    for (size_t i = 0; i < g->move_count; i++)
        if (copy_block(g, &g->moves[i]) < 0)
            return -1;
    if (write_bat(g) < 0 || write_behind_bat(g) < 0 || io_write_at(g->old.fd, footer, sizeof footer, g->tail) < 0 ||
        io_write_at(g->old.fd, header, sizeof header, g->footer.data_offset) < 0 ||
        io_write_at(g->old.fd, footer, sizeof footer, 0) < 0)
        return -1;
    return 0;
}

/* The new size is on the medium: syncs it, then forgets the old one. */
static int finish(int fd, const struct image_journal *journal, struct fault *f)
{
    if (POINT(resize_grown) < 0)
        return fault_errno(f, FAULT_VDISize, "grow a VHD");
    return image_sync(fd, "a VHD that grew", f) < 0 ? -1 : vhd_journal_remove(journal, f);
}

static int grow_sparse(struct grow *g, uint64_t size, const struct image_journal *journal, struct fault *f)
{
    uint64_t data_end;
    if (vhd_image_check_blocks(&g->old, &data_end, f) < 0 || plan(g, size, data_end, f) < 0 ||
        journal_old(g, journal, f) < 0)
        return -1;
    if (write_all(g) < 0)
        return fault_errno(f, FAULT_VDISize, "grow a VHD to %" PRIu64 " bytes", size);
    return finish(g->old.fd, journal, f);
}

/* The disk, then the footer: the new footer goes behind the new end, and the old one becomes zeros of the disk. */
static int grow_fixed(const struct vhd_image *old, uint64_t size, const struct image_journal *journal, struct fault *f)
{
    struct vhd_footer footer = old->footer;
    unsigned char raw[VHD_FOOTER_SIZE];
    struct vhd_span span = {footer.size, VHD_FOOTER_SIZE};
    if (old->file_size != footer.size + VHD_FOOTER_SIZE)
        return fault_set(f, FAULT_VDILoad, "a fixed VHD with %" PRIu64 " bytes between disk and footer does not grow",
                         old->file_size - VHD_FOOTER_SIZE - footer.size);
    footer.size = size;
    footer.geometry = vhd_geometry(size);
    vhd_footer_out(&footer, raw);
    if (vhd_journal_make(journal, old->fd, &span, 1, f) < 0)
        return -1;
    if (io_write_at(old->fd, raw, sizeof raw, size) < 0 || vhd_fill(old->fd, 0, span.at, span.length) < 0)
        return fault_errno(f, FAULT_VDISize, "grow a VHD to %" PRIu64 " bytes", size);
    return finish(old->fd, journal, f);
}

int vhd_grow(int fd, uint64_t size, const struct image_journal *journal, struct fault *f)
{
    AUTO_GROW struct grow g = {0};
    if (vhd_image_load(fd, &g.old, f) < 0)
        return -1;
    if (size == g.old.footer.size)
        return 0;
    if (size < g.old.footer.size || size > VHD_LARGEST || size % SECTOR_SIZE)
        return fault_set(f, FAULT_VDISize,
                         "a VHD of %" PRIu64 " bytes cannot become one of %" PRIu64 " (at most %" PRIu64 ")",
                         g.old.footer.size, size, VHD_LARGEST);
    return vhd_image_sparse(&g.old) ? grow_sparse(&g, size, journal, f) : grow_fixed(&g.old, size, journal, f);
}

int vhd_revert(int fd, const struct image_journal *journal, struct fault *f)
{
    return vhd_journal_revert(journal, fd, f);
}
