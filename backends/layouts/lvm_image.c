/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/vhd_image.h"
#include "backends/images/vhd_make.h"
#include "backends/layouts/lvm.h"
#include "server/base/io.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BLOCK_OVERHEAD 4096U /* a block's bitmap, and the gap that lets its data begin on a page */
#define PIECE          (1U << 20)
#define LOCATOR_LOOK   1024U /* of a locator; a longer one is no name of ours */

/* ------------------------------------------------------------------ names */

bool lvm_name_parse(const char *name, bool *raw, struct uuid *uuid)
{
    bool is_raw = strncmp(name, LVM_RAW_PREFIX, strlen(LVM_RAW_PREFIX)) == 0;
    const char *prefix = is_raw ? LVM_RAW_PREFIX : LVM_VHD_PREFIX;
    struct uuid u;
    if (strncmp(name, prefix, strlen(prefix)) != 0 || !uuid_parse_text(name + strlen(prefix), &u) ||
        strcmp(name + strlen(prefix), u.text) != 0)
        return false;
    *raw = is_raw;
    *uuid = u;
    return true;
}

void lvm_name(char out[LVM_NAME], bool raw, const struct uuid *uuid)
{
    snprintf(out, LVM_NAME, "%s%s", raw ? LVM_RAW_PREFIX : LVM_VHD_PREFIX, uuid->text);
}

void lvm_temp_name(char out[LVM_NAME], const struct uuid *op, const char *name)
{
    snprintf(out, LVM_NAME, LVM_TEMP "%.8s_%.100s", op->text, name);
}

const struct lvm_lv *lvm_find_disk(const struct lvm_vg *vg, const struct uuid *uuid, bool *raw)
{
    char name[LVM_NAME];
    for (int i = 0; i < 2; i++) {
        lvm_name(name, i == 1, uuid);
        const struct lvm_lv *lv = lvm_find(vg, name);
        *raw = i == 1;
        if (lv)
            return lv;
    }
    return NULL;
}

bool lvm_is_of(const struct lvm_lv *lv, const struct uuid *op)
{
    char tag[64];
    snprintf(tag, sizeof tag, LVM_TAG_OP "%.8s", op->text);
    return lvm_has_tag(lv->tags, tag);
}

/* ------------------------------------------------------------------ sizes */

uint64_t lvm_round(const struct lvm_vg *vg, uint64_t size)
{
    return (size + vg->extent_size - 1) / vg->extent_size * vg->extent_size;
}

uint64_t lvm_thick_size(const struct lvm_vg *vg, uint64_t size)
{
    uint64_t blocks = (size + VHD_BLOCK_SIZE - 1) / VHD_BLOCK_SIZE;
    return lvm_round(vg, size + VHD_METADATA + blocks * BLOCK_OVERHEAD);
}

uint64_t lvm_empty_size(const struct lvm_vg *vg)
{
    return lvm_round(vg, VHD_METADATA + VHD_FOOTER_SIZE);
}

/* ------------------------------------------------------------------ looking at a VHD */

static int bad(struct fault *f, const struct volume *v, const char *what)
{
    return fault_errno(f, FAULT_VDILoad, "%s volume %s", what, v->lv->name);
}

/* For pieces of a stretch so long. A BAT of 4 MiB in pieces of a few KiB waits for the device a hundred times. */
static unsigned char *chunk_new(uint64_t length)
{
    unsigned char *chunk = malloc(length < PIECE ? length + 1 : PIECE);
    if (!chunk)
        abort();
    return chunk;
}

/* Copies a stretch of the volume into the window; what lies behind the volume's end is left out. */
static int show(const struct volume *v, int window, uint64_t at, uint64_t length, struct fault *f)
{
    uint64_t end = at > v->lv->size ? at : at + length < v->lv->size ? at + length : v->lv->size;
    AUTO_FREE unsigned char *chunk = chunk_new(end - at);
    while (at < end) {
        size_t n = end - at < PIECE ? (size_t) (end - at) : PIECE;
        if (volume_read(v, chunk, n, at) < 0 || io_write_at(window, chunk, n, at) < 0)
            return bad(f, v, "read");
        at += n;
    }
    return 0;
}

/* What stands behind the BAT, and when asked the BAT. */
static int show_header(const struct volume *v, int window, const unsigned char *raw, bool table, struct fault *f)
{
    struct vhd_header h;
    if (vhd_header_in(raw, &h) || h.table_offset > v->lv->size)
        return 0; /* whoever looks at the window says what is wrong */
    uint64_t length = vhd_padded((uint64_t) h.max_entries * 4);
    if (table && show(v, window, h.table_offset, length, f) < 0)
        return -1;
    for (size_t i = 0; i < VHD_LOCATORS; i++)
        if (h.locators[i].code != VHD_LOCATOR_NONE && show(v, window, h.locators[i].offset, LOCATOR_LOOK, f) < 0)
            return -1;
    return show(v, window, h.table_offset + length, VHD_BATMAP_SECTOR, f);
}

int lvm_image_window(const struct volume *v, bool table, int *fd, struct fault *f)
{
    unsigned char start[VHD_FOOTER_SIZE + VHD_HEADER_SIZE], end[VHD_FOOTER_SIZE];
    struct vhd_footer copy;
    uint64_t size = v->lv->size;
    AUTO_FD int window = memfd_create("vhd", MFD_CLOEXEC);
    if (window < 0 || ftruncate(window, (off_t) size) < 0 || volume_read(v, start, sizeof start, 0) < 0 ||
        volume_read(v, end, sizeof end, size - sizeof end) < 0)
        return bad(f, v, "look at");
    bool copied = !vhd_footer_in(start, &copy) && copy.type != VHD_FIXED;
    if (io_write_at(window, start, sizeof start, 0) < 0 ||
        io_write_at(window, copied ? start : end, VHD_FOOTER_SIZE, size - VHD_FOOTER_SIZE) < 0)
        return bad(f, v, "look at");
    if (show_header(v, window, start + VHD_HEADER_AT, table, f) < 0)
        return -1;
    *fd = TAKE_FD(window);
    return 0;
}

int lvm_image_info(const struct volume *v, bool raw, struct image_info *out, struct fault *f)
{
    struct image_info info = {.size = v->lv->size, .hidden = lvm_has_tag(v->lv->tags, LVM_TAG_HIDDEN)};
    AUTO_FD int fd = -1;
    if (!raw && (lvm_image_window(v, false, &fd, f) < 0 || image_vhd.info(fd, &info, f) < 0))
        return fault_prefix(f, "volume %s", v->lv->name);
    info.utilisation = v->lv->size;
    *out = info;
    return 0;
}

int lvm_info(const struct lvm_vg *vg, const struct lvm_lv *lv, bool raw, struct image_info *out, struct fault *f)
{
    AUTO_VOLUME struct volume v = {0};
    if (raw) { /* its name, length and tags are all there is */
        v.lv = lv;
        return lvm_image_info(&v, true, out, f);
    }
    return volume_open(vg, lv, false, &v, f) < 0 ? -1 : lvm_image_info(&v, false, out, f);
}

int lvm_image_least(const struct volume *v, uint64_t *out, struct fault *f)
{
    struct vhd_image image;
    uint64_t data_end;
    AUTO_FD int fd = -1;
    if (lvm_image_window(v, true, &fd, f) < 0 || vhd_image_load(fd, &image, f) < 0 ||
        vhd_image_check_blocks(&image, &data_end, f) < 0)
        return fault_prefix(f, "volume %s", v->lv->name);
    *out = (data_end < VHD_METADATA ? VHD_METADATA : data_end) + VHD_FOOTER_SIZE;
    return 0;
}

/* ------------------------------------------------------------------ writing one */

/* A stretch of the file, whose ends are a page's, to the volume, without a copy on the way. -1 with errno. */
static int pour_piece(int window, off_t at, size_t length, const struct volume *v)
{
    void *piece = mmap(NULL, length, PROT_READ, MAP_SHARED, window, at);
    if (piece == MAP_FAILED)
        return -1;
    int r = volume_write(v, piece, length, (uint64_t) at), reason = errno;
    munmap(piece, length);
    errno = reason;
    return r;
}

/* Everything in the file that is not a hole, to the volume. -1 with errno. */
static int pour(int window, const struct volume *v)
{
    off_t size = (off_t) v->lv->size;
    errno = ENXIO;
    for (off_t at = lseek(window, 0, SEEK_DATA); at >= 0 && at < size; at = lseek(window, at, SEEK_DATA)) {
        off_t end = lseek(window, at, SEEK_HOLE);
        if (end < 0 || pour_piece(window, at, (size_t) (end - at), v) < 0)
            return -1;
        at = end;
    }
    return errno == ENXIO ? 0 : -1;
}

static struct vhd_origin origin_of(const struct lvm_parent *parent)
{
    struct vhd_origin o = {.size = parent->info.size, .timestamp = vhd_time(time(NULL))};
    char name[LVM_NAME];
    lvm_name(name, parent->raw, &parent->uuid);
    snprintf(o.name, sizeof o.name, "%.*s", (int) sizeof o.name - 1, name);
    if (!parent->raw)
        memcpy(o.id, parent->info.id, sizeof o.id);
    return o;
}

int lvm_image_make(struct sr *sr, const struct volume *v, const struct uuid *id, uint64_t size,
                   const struct lvm_parent *parent, struct fault *f)
{
    AUTO_FD int window = memfd_create("vhd", MFD_CLOEXEC);
    if (window < 0 || ftruncate(window, (off_t) v->lv->size) < 0)
        return fault_errno(f, FAULT_VDICreate, "make an image for volume %s", v->lv->name);
    if (parent) {
        const struct vhd_origin o = origin_of(parent);
        if (vhd_make_child_in(window, id, &o, v->lv->size, f) < 0)
            return -1;
    } else if (vhd_make_in(window, id, size, v->lv->size, f) < 0) {
        return -1;
    }
    if (pour(window, v) < 0)
        return fault_errno(f, FAULT_LVMWrite, "write an image to volume %s", v->lv->name);
    return lvm_sync(sr, v, f);
}

/* The end first, so that the volume is never without a footer; the copy is what counts. */
int lvm_image_footers(struct sr *sr, const struct volume *v, uint64_t length, uint64_t size, bool hidden,
                      struct fault *f)
{
    struct vhd_image image;
    unsigned char raw[VHD_FOOTER_SIZE];
    AUTO_FD int fd = -1;
    if (lvm_image_window(v, false, &fd, f) < 0 || vhd_image_load(fd, &image, f) < 0)
        return fault_prefix(f, "volume %s", v->lv->name);
    if (!vhd_image_sparse(&image) || (uint64_t) image.header.max_entries * image.header.block_size < size)
        return fault_set(f, FAULT_VDISize, "the VHD in volume %s has no room in its BAT for %" PRIu64 " bytes",
                         v->lv->name, size);
    image.footer.size = size;
    image.footer.geometry = vhd_geometry(size);
    image.footer.hidden = hidden;
    vhd_footer_out(&image.footer, raw);
    if (volume_write(v, raw, sizeof raw, length - sizeof raw) < 0)
        return fault_errno(f, FAULT_LVMWrite, "write the footer of volume %s", v->lv->name);
    if (lvm_sync(sr, v, f) < 0)
        return -1;
    if (volume_write(v, raw, sizeof raw, 0) < 0)
        return fault_errno(f, FAULT_LVMWrite, "write the footer's copy of volume %s", v->lv->name);
    return lvm_sync(sr, v, f);
}

/* Footers first: a crash leaves a volume that is longer than it need be. */
int lvm_shorten(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, struct fault *f)
{
    uint64_t least;
    struct image_info info;
    AUTO_VOLUME struct volume v = {0};
    struct lvm_scope scope = lvm_sr_scope(sr);
    if (volume_open(vg, lv, true, &v, f) < 0 || lvm_image_least(&v, &least, f) < 0 ||
        lvm_image_info(&v, false, &info, f) < 0)
        return -1;
    least = lvm_round(vg, least);
    if (least >= lv->size)
        return 0;
    if (lvm_image_footers(sr, &v, least, info.size, info.hidden, f) < 0)
        return -1;
    return lvm_lv_resize(&scope, vg->name, lv->name, least, f);
}

/* ------------------------------------------------------------------ the disk */

static void config_set(struct arena *a, struct vdi *vdi, const char *key, const char *value)
{
    const char *now = pairs_get(&vdi->sm_config, key);
    if (now && strcmp(now, value) == 0)
        return;
    vdi->sm_config = pairs_copy(a, &vdi->sm_config);
    pairs_set(a, &vdi->sm_config, key, value);
}

void lvm_describe(struct sr *sr, const struct uuid *uuid, bool raw, const struct lvm_lv *lv,
                  const struct image_info *info, const struct vdi *known, struct arena *a, struct vdi *out)
{
    struct vdi vdi = known ? *known : vdi_blank();
    vdi.uuid = *uuid;
    if (!known && !lvm_mgt_read(sr, uuid, a, &vdi))
        vdi.managed = !info->hidden;
    if (!known || !vdi.location || !vdi.location[0])
        vdi.location = arena_copy(a, uuid->text, UUID_TEXT);
    if (vdi.state != VDI_QUARANTINED) {
        vdi.state = VDI_LIVE;
        vdi.damage = "";
    }
    vdi.format = raw ? image_raw.name : image_vhd.name;
    vdi.size = info->size;
    vdi.utilisation = lv->size;
    if (info->hidden || (known && known->hidden))
        vdi.managed = !info->hidden;
    vdi.hidden = info->hidden;
    vdi.parent = info->parent;
    config_set(a, &vdi, "vdi_type", raw ? "aio" : "vhd");
    if (uuid_is(&info->parent))
        config_set(a, &vdi, "vhd-parent", info->parent.text);
    *out = vdi;
}

int lvm_describe_now(struct sr *sr, const struct uuid *uuid, const struct vdi *known, struct arena *a, struct vdi *out,
                     struct fault *f)
{
    bool raw;
    struct lvm_vg *vg;
    struct image_info info;
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, uuid, &raw);
    if (!lv)
        return fault_set(f, FAULT_VDIUnavailable, "SR %s holds no volume of disk %s", sr->uuid.text, uuid->text);
    if (lvm_info(vg, lv, raw, &info, f) < 0)
        return -1;
    struct vdi kept;
    if (known)
        kept = layout_copy(a, known);
    lvm_describe(sr, uuid, raw, lv, &info, known ? &kept : NULL, a, out);
    return 0;
}
