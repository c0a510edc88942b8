/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/vhd_relink.h"

#include "backends/images/vhd_image.h"
#include "backends/images/vhd_journal.h"
#include "backends/images/vhd_make.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <string.h>
#include <sys/stat.h>

struct relink {
    struct vhd_image image; /* its header is the new one */
    char name[UUID_TEXT + 16];
    unsigned char texts[VHD_LOCATORS][SECTOR_SIZE];
};

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

static int plan_locators(struct relink *r, struct fault *f)
{
    size_t count = 0;
    for (size_t i = 0; i < VHD_LOCATORS; i++) {
        struct vhd_locator *l = &r->image.header.locators[i];
        if (!is_written(l->code)) {
            *l = (struct vhd_locator){.code = VHD_LOCATOR_NONE};
            continue;
        }
        if (!is_place_free(&r->image, l->offset) || ++count == VHD_JOURNAL_SPANS)
            return fault_set(f, FAULT_VDILoad,
                             "not a sound VHD: parent locator %zu is one too many or lies over other metadata", i);
        l->length = (uint32_t) vhd_locator_text(l->code, r->name, r->texts[i]);
    }
    return 0;
}

/* Identifier and time of the new parent; a raw one has no identifier. */
static int plan_parent(struct relink *r, int parent_fd, bool raw, struct fault *f)
{
    struct vhd_header *h = &r->image.header;
    struct vhd_image parent;
    struct stat st;
    memset(h->parent_id, 0, sizeof h->parent_id);
    if (!raw) {
        if (vhd_image_load(parent_fd, &parent, f) < 0)
            return fault_prefix(f, "the new parent");
        memcpy(h->parent_id, parent.footer.id, sizeof h->parent_id);
    }
    if (fstat(parent_fd, &st) < 0)
        return fault_errno(f, FAULT_VDILoad, "look at the new parent");
    h->parent_timestamp = vhd_time(st.st_mtime);
    vhd_parent_name(r->name, h->parent_name);
    return 0;
}

static int write_all(const struct relink *r)
{
    unsigned char raw[VHD_HEADER_SIZE];
    const struct vhd_image *image = &r->image;
    vhd_header_out(&image->header, raw);
    if (io_write_at(image->fd, raw, sizeof raw, image->footer.data_offset) < 0 || POINT(compose_half_written) < 0)
        return -1;
    for (size_t i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator *l = &image->header.locators[i];
        if (l->code != VHD_LOCATOR_NONE && io_write_at(image->fd, r->texts[i], SECTOR_SIZE, l->offset) < 0)
            return -1;
    }
    return 0;
}

static int journal_old(const struct vhd_image *image, const struct image_journal *journal, struct fault *f)
{
    struct vhd_span spans[VHD_JOURNAL_SPANS] = {{image->footer.data_offset, VHD_HEADER_SIZE}};
    size_t count = 1;
    for (size_t i = 0; i < VHD_LOCATORS; i++)
        if (image->header.locators[i].code != VHD_LOCATOR_NONE)
            spans[count++] = (struct vhd_span){image->header.locators[i].offset, SECTOR_SIZE};
    return vhd_journal_make(journal, image->fd, spans, count, f);
}

int vhd_set_parent(int fd, int parent_fd, const struct uuid *parent, const struct image_format *parent_format,
                   const struct image_journal *journal, struct fault *f)
{
    struct relink r = {.name = ""};
    uint64_t data_end;
    if (vhd_image_load(fd, &r.image, f) < 0)
        return -1;
    if (!vhd_image_child(&r.image))
        return fault_set(f, FAULT_VDIType, "an image that was made without a parent takes none");
    snprintf(r.name, sizeof r.name, "%s%s", parent->text, parent_format->suffix);
    if (vhd_image_check_blocks(&r.image, &data_end, f) < 0 || plan_locators(&r, f) < 0 ||
        plan_parent(&r, parent_fd, !parent_format->chains, f) < 0 || journal_old(&r.image, journal, f) < 0)
        return -1;
    if (write_all(&r) < 0)
        return fault_errno(f, FAULT_VDICreate, "write the new parent of a VHD");
    return image_sync(fd, "the new parent of a VHD", f) < 0 ? -1 : vhd_journal_remove(journal, f);
}
