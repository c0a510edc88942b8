/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/vhd_relink.h"

#include "backends/images/vhd_image.h"
#include "backends/images/vhd_journal.h"
#include "backends/images/vhd_make.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <string.h>
#include <sys/stat.h>

static bool is_apart(uint64_t at, uint64_t length, uint64_t other, uint64_t other_length)
{
    return at + length <= other || other + other_length <= at;
}

/* A locator's first sector, which is written, lies over nothing else: blocks are checked to lie behind all of them. */
static bool is_place_free(const struct vhd_image *image, uint64_t at)
{
    uint64_t table = image->header.table_offset;
    if (!is_apart(at, SECTOR_SIZE, table, image->bat_end - table))
        return false;
    return !image->has_batmap ||
           (is_apart(at, SECTOR_SIZE, image->bat_end, VHD_BATMAP_SECTOR) &&
            is_apart(at, SECTOR_SIZE, image->batmap.offset, (uint64_t) image->batmap.sectors * SECTOR_SIZE));
}

static bool is_written(uint32_t code)
{
    return code == VHD_LOCATOR_MACX || code == VHD_LOCATOR_W2KU || code == VHD_LOCATOR_W2RU;
}

static int plan_locators(struct vhd_image *image, const char *name, struct vhd_patch *p, struct fault *f)
{
    for (size_t i = 0; i < VHD_LOCATORS; i++) {
        struct vhd_locator *l = &image->header.locators[i];
        struct vhd_piece *piece = &p->pieces[p->count];
        if (!is_written(l->code)) {
            *l = (struct vhd_locator){.code = VHD_LOCATOR_NONE};
            continue;
        }
        if (!is_place_free(image, l->offset) || p->count == VHD_JOURNAL_SPANS)
            return fault_set(f, FAULT_VDILoad,
                             "not a sound VHD: parent locator %zu is one too many or lies over other metadata", i);
        l->length = (uint32_t) vhd_locator_text(l->code, name, piece->bytes);
        piece->at = l->offset;
        piece->length = SECTOR_SIZE;
        p->count++;
    }
    return 0;
}

int vhd_relink_plan(int fd, const struct vhd_origin *parent, struct vhd_patch *out, struct fault *f)
{
    struct vhd_image image;
    struct vhd_header *h = &image.header;
    uint64_t data_end;
    struct vhd_patch p = {.count = 1};
    if (vhd_image_load(fd, &image, f) < 0)
        return -1;
    if (!vhd_image_child(&image))
        return fault_set(f, FAULT_VDIType, "an image that was made without a parent takes none");
    if (vhd_image_check_blocks(&image, &data_end, f) < 0 || plan_locators(&image, parent->name, &p, f) < 0)
        return -1;
    memcpy(h->parent_id, parent->id, sizeof h->parent_id);
    h->parent_timestamp = parent->timestamp;
    vhd_parent_name(parent->name, h->parent_name);
    p.pieces[0].at = image.footer.data_offset;
    p.pieces[0].length = VHD_HEADER_SIZE;
    vhd_header_out(h, p.pieces[0].bytes);
    *out = p;
    return 0;
}

/* Identifier and time of the new parent; a raw one has no identifier. */
static int read_origin(int parent_fd, bool raw, struct vhd_origin *o, struct fault *f)
{
    struct vhd_image parent;
    struct stat st;
    if (!raw) {
        if (vhd_image_load(parent_fd, &parent, f) < 0)
            return fault_prefix(f, "the new parent");
        memcpy(o->id, parent.footer.id, sizeof o->id);
    }
    if (fstat(parent_fd, &st) < 0)
        return fault_errno(f, FAULT_VDILoad, "look at the new parent");
    o->timestamp = vhd_time(st.st_mtime);
    return 0;
}

static int write_all(int fd, const struct vhd_patch *p)
{
    for (size_t i = 0; i < p->count; i++)
        if (io_write_at(fd, p->pieces[i].bytes, p->pieces[i].length, p->pieces[i].at) < 0 ||
            (i == 0 && POINT(compose_half_written) < 0))
            return -1;
    return 0;
}

static int journal_old(int fd, const struct vhd_patch *p, const struct image_journal *journal, struct fault *f)
{
    struct vhd_span spans[VHD_JOURNAL_SPANS];
    for (size_t i = 0; i < p->count; i++)
        spans[i] = (struct vhd_span){p->pieces[i].at, p->pieces[i].length};
    return vhd_journal_make(journal, fd, spans, p->count, f);
}

int vhd_set_parent(int fd, int parent_fd, const struct uuid *parent, const struct image_format *parent_format,
                   const struct image_journal *journal, struct fault *f)
{
    struct vhd_origin o = {.name = ""};
    struct vhd_patch p;
    snprintf(o.name, sizeof o.name, "%s%s", parent->text, parent_format->suffix);
    if (read_origin(parent_fd, !parent_format->chains, &o, f) < 0 || vhd_relink_plan(fd, &o, &p, f) < 0 ||
        journal_old(fd, &p, journal, f) < 0)
        return -1;
    if (write_all(fd, &p) < 0)
        return fault_errno(f, FAULT_VDICreate, "write the new parent of a VHD");
    return image_sync(fd, "the new parent of a VHD", f) < 0 ? -1 : vhd_journal_remove(journal, f);
}
