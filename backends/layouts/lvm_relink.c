/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdi_reset and vdi_compose: a VHD is changed where it stands, as a second volume as long as the first may not find
   room. A tag says so before the first write and goes after the last, and everything can be written again, by any
   server that attaches the group: reset     the disk's tag smapi_reset=<op8>: its BAT is being emptied compose   a
   volume tmp_<op8>_LINK-<disk> holds what is to be written over the child's header and locators; its tag
               smapi_link=<disk>:<parent> says that it is whole. */
#include "backends/images/vhd_image.h"
#include "backends/images/vhd_relink.h"
#include "backends/layouts/lvm.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <inttypes.h>
#include <string.h>
#include <time.h>

#define MEMORY  (256U << 20)
#define PIECE   65536U
#define LOG     16384U /* bytes of a log; longer than any */
#define COOKIE  "smapi-link 1\n"
#define LINK_OF "LINK-"

/* Passing a point fails as the step before it would. */
#define PASS(name, code, f) (POINT(name) < 0 ? fault_errno(f, code, "at point " #name) : 0)

/* ------------------------------------------------------------------ the disk */

/* A visible VHD that nothing is made from, with its chain. */
static int find_leaf(struct sr *sr, const struct uuid *vdi, struct arena *a, struct lvm_vg **vg, struct lvm_chain *c,
                     struct fault *f)
{
    struct lvm_disks disks;
    if (lvm_group(sr, a, vg, f) < 0 || lvm_chain_read(*vg, vdi, c, f) < 0)
        return -1;
    if (c->info.hidden)
        return fault_set(f, FAULT_VDIUnavailable, "disk %s is hidden: it is the base of other disks", vdi->text);
    if (lvm_disks_read(*vg, a, &disks, f) < 0)
        return -1;
    const struct lvm_disk *disk = lvm_disks_find(&disks, vdi);
    return disk && disk->children
               ? fault_set(f, FAULT_VDIInUse, "disk %s is the parent of %zu others", vdi->text, disk->children)
               : 0;
}

/* What the kernel has of the disk is of its chain as it now is. */
static int follow_chain(struct sr *sr, const struct vdi *vdi, const struct lvm_vg *vg, const struct lvm_lv *lv,
                        struct arena *a, struct fault *f)
{
    const char *ignored;
    int active = lvm_is_active(vg, lv, f);
    if (active < 0)
        return -1;
    return active ? lvm_vdi_attach(sr, vdi, !vdi->read_only, a, &ignored, f) : 0;
}

/* ------------------------------------------------------------------ reset */

static void reset_tag(char out[64], const struct uuid *op)
{
    snprintf(out, 64, LVM_TAG_RESET "%.8s", op->text);
}

/* The map that says which blocks are full, with its checksum. First, as no block may be called full that has no place.
 */
static int clear_batmap(const struct volume *v, const struct vhd_image *image, struct fault *f)
{
    unsigned char raw[VHD_BATMAP_SECTOR];
    struct vhd_batmap map = image->batmap;
    if (!image->has_batmap)
        return 0;
    map.checksum = vhd_checksum(NULL, 0); /* of zeros, however many */
    vhd_batmap_out(&map, raw);
    if (volume_zero(v, map.offset, (uint64_t) map.sectors * SECTOR_SIZE) < 0 ||
        volume_write(v, raw, sizeof raw, image->bat_end) < 0)
        return fault_errno(f, FAULT_LVMWrite, "empty the batmap of volume %s", v->lv->name);
    return 0;
}

/* Those parts of the BAT that hold an entry. */
static int clear_bat(const struct volume *v, const struct vhd_image *image, struct fault *f)
{
    unsigned char empty[PIECE], piece[PIECE];
    memset(empty, 0xff, sizeof empty);
    for (uint64_t at = image->header.table_offset; at < image->bat_end; at += PIECE) {
        size_t n = image->bat_end - at < PIECE ? (size_t) (image->bat_end - at) : PIECE;
        if (volume_read(v, piece, n, at) < 0 || (memcmp(piece, empty, n) != 0 && volume_write(v, empty, n, at) < 0))
            return fault_errno(f, FAULT_LVMWrite, "empty the BAT of volume %s", v->lv->name);
    }
    return 0;
}

static int clear_image(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, struct fault *f)
{
    struct vhd_image image;
    AUTO_FD int fd = -1;
    AUTO_VOLUME struct volume v = {0};
    if (volume_open(vg, lv, true, &v, f) < 0 || lvm_image_window(&v, true, &fd, f) < 0)
        return -1;
    if (vhd_image_load(fd, &image, f) < 0 || clear_batmap(&v, &image, f) < 0 || clear_bat(&v, &image, f) < 0)
        return fault_prefix(f, "volume %s", lv->name);
    return lvm_sync(sr, &v, f);
}

int lvm_reset_finish(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, struct fault *f)
{
    char tag[64];
    AUTO_ARENA struct arena *a = arena_new(1 << 16);
    const char *op = lvm_tag_value(lv->tags, LVM_TAG_RESET, a);
    if (!op)
        return 0;
    snprintf(tag, sizeof tag, LVM_TAG_RESET "%.40s", op);
    if (clear_image(sr, vg, lv, f) < 0 || PASS(volume_reset_cleared, FAULT_LVMWrite, f) < 0)
        return -1;
    return lvm_change(sr, lv->name, LVM_ACCESS_KEEP, NULL, tag, FAULT_LVMWrite, f);
}

int lvm_vdi_reset(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                  struct fault *f)
{
    char tag[64];
    struct lvm_vg *vg;
    struct lvm_chain c;
    bool raw;
    if (find_leaf(sr, &plan->vdi, a, &vg, &c, f) < 0)
        return -1;
    if (!c.info.differencing)
        return fault_set(f, FAULT_Unimplemented, "disk %s was not made from another and cannot be reset to it",
                         vdi->uuid.text);
    reset_tag(tag, &plan->op);
    if (lvm_change(sr, c.lvs[0]->name, LVM_ACCESS_KEEP, tag, NULL, FAULT_LVMWrite, f) < 0 ||
        PASS(volume_reset_marked, FAULT_LVMWrite, f) < 0 || lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, &plan->vdi, &raw);
    if (!lv)
        return fault_set(f, FAULT_VDIUnavailable, "the volume of disk %s is gone", vdi->uuid.text);
    return lvm_reset_finish(sr, vg, lv, f) < 0 ? -1 : lvm_describe_now(sr, &plan->vdi, vdi, a, out, f);
}

bool lvm_is_reset(const struct lvm_vg *vg, const struct lvm_lv *lv)
{
    struct fault ignored;
    struct vhd_image image;
    uint64_t data_end;
    AUTO_FD int fd = -1;
    AUTO_VOLUME struct volume v = {0};
    return volume_open(vg, lv, false, &v, &ignored) == 0 && lvm_image_window(&v, true, &fd, &ignored) == 0 &&
           vhd_image_load(fd, &image, &ignored) == 0 && vhd_image_child(&image) &&
           vhd_image_check_blocks(&image, &data_end, &ignored) == 0 && data_end == image.metadata_end;
}

/* ------------------------------------------------------------------ compose: may it be done */

static int check_compose(const struct lvm_vg *vg, const struct vdi *vdi, const struct lvm_chain *child,
                         const struct vdi *parent, struct lvm_chain *p, struct fault *f)
{
    if (!child->info.differencing)
        return fault_set(f, FAULT_VDIType, "disk %s was made without a parent and takes none", vdi->uuid.text);
    if (lvm_chain_read(vg, &parent->uuid, p, f) < 0)
        return fault_prefix(f, "parent %s", parent->uuid.text);
    /* When the child grew, what the parent has behind its old end would come to light. */
    if (p->info.size > child->info.size)
        return fault_set(f, FAULT_VDISize, "disk %s has %" PRIu64 " bytes, less than its new parent %s with %" PRIu64,
                         vdi->uuid.text, child->info.size, parent->uuid.text, p->info.size);
    for (size_t i = 0; i < p->count; i++)
        if (uuid_equal(&p->uuids[i], &vdi->uuid))
            return fault_set(f, FAULT_InvalidArg, "disk %s is made from disk %s", parent->uuid.text, vdi->uuid.text);
    if (p->count + 1 > IMAGE_CHAIN_LIMIT)
        return fault_set(f, FAULT_SnapshotChainTooLong, "disk %s has %zu images in its chain already",
                         parent->uuid.text, p->count);
    return 0;
}

/* ------------------------------------------------------------------ compose: the log */

static void log_name(char out[LVM_NAME], const struct plan *plan)
{
    char name[LVM_NAME];
    snprintf(name, sizeof name, LINK_OF "%s", plan->vdi.text);
    lvm_temp_name(out, &plan->op, name);
}

static void log_out(const struct vhd_patch *p, unsigned char raw[LOG])
{
    unsigned char *at = raw + sizeof COOKIE;
    memset(raw, 0, LOG);
    memcpy(raw, COOKIE, sizeof COOKIE);
    vhd_put32(at, (uint32_t) p->count);
    at += 4;
    for (size_t i = 0; i < p->count; i++) {
        vhd_put32(at, (uint32_t) (p->pieces[i].at >> 32));
        vhd_put32(at + 4, (uint32_t) p->pieces[i].at);
        vhd_put32(at + 8, p->pieces[i].length);
        memcpy(at + 12, p->pieces[i].bytes, p->pieces[i].length);
        at += 12 + p->pieces[i].length;
    }
}

static bool log_in(const unsigned char raw[LOG], struct vhd_patch *out)
{
    const unsigned char *at = raw + sizeof COOKIE;
    struct vhd_patch p = {.count = 0};
    uint32_t count = vhd_get32(at);
    at += 4;
    if (memcmp(raw, COOKIE, sizeof COOKIE) != 0 || count == 0 || count > COUNT_OF(p.pieces))
        return false;
    for (; p.count < count; p.count++) {
        struct vhd_piece *piece = &p.pieces[p.count];
        piece->at = (uint64_t) vhd_get32(at) << 32 | vhd_get32(at + 4);
        piece->length = vhd_get32(at + 8);
        if (piece->length > sizeof piece->bytes)
            return false;
        memcpy(piece->bytes, at + 12, piece->length);
        at += 12 + piece->length;
    }
    *out = p;
    return true;
}

static int plan_patch(const struct lvm_vg *vg, const struct lvm_lv *lv, const struct lvm_chain *parent,
                      struct vhd_patch *out, struct fault *f)
{
    char name[LVM_NAME];
    struct vhd_origin o = {.timestamp = vhd_time(time(NULL))};
    AUTO_FD int fd = -1;
    AUTO_VOLUME struct volume v = {0};
    lvm_name(name, parent->raw, &parent->uuids[0]);
    snprintf(o.name, sizeof o.name, "%.*s", (int) sizeof o.name - 1, name);
    if (!parent->raw)
        memcpy(o.id, parent->info.id, sizeof o.id);
    if (volume_open(vg, lv, false, &v, f) < 0 || lvm_image_window(&v, true, &fd, f) < 0)
        return -1;
    return vhd_relink_plan(fd, &o, out, f) < 0 ? fault_prefix(f, "volume %s", lv->name) : 0;
}

/* The log in a volume of its own, whole and synced; then its tag, from which on it is carried out. */
static int write_log(struct sr *sr, const struct plan *plan, const struct vhd_patch *patch, struct arena *a,
                     struct fault *f)
{
    unsigned char raw[LOG];
    char name[LVM_NAME], op[64], link[160];
    const char *const tags[] = {op, NULL};
    struct lvm_vg *vg;
    AUTO_VOLUME struct volume v = {0};
    struct lvm_scope scope = lvm_sr_scope(sr);
    log_name(name, plan);
    snprintf(op, sizeof op, LVM_TAG_OP "%.8s", plan->op.text);
    snprintf(link, sizeof link, LVM_TAG_LINK "%s:%s", plan->vdi.text, plan->base.text);
    log_out(patch, raw);
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_new wanted = {.name = name, .size = vg->extent_size, .tags = tags};
    if (lvm_lv_create(&scope, vg->name, &wanted, f) < 0 || lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find(vg, name);
    if (!lv)
        return fault_set(f, FAULT_LVMNoVolume, "volume %s is gone that was just made", name);
    if (volume_open(vg, lv, true, &v, f) < 0)
        return -1;
    if (volume_write(&v, raw, sizeof raw, 0) < 0)
        return fault_errno(f, FAULT_LVMWrite, "write volume %s", name);
    if (lvm_sync(sr, &v, f) < 0 || PASS(volume_link_written, FAULT_LVMWrite, f) < 0)
        return -1;
    return lvm_change(sr, name, LVM_ACCESS_KEEP, link, NULL, FAULT_LVMWrite, f);
}

/* ------------------------------------------------------------------ compose: carried out */

static int read_log(const struct lvm_vg *vg, const struct lvm_lv *log, struct vhd_patch *out, struct fault *f)
{
    unsigned char raw[LOG];
    AUTO_VOLUME struct volume v = {0};
    if (volume_open(vg, log, false, &v, f) < 0)
        return -1;
    if (volume_read(&v, raw, sizeof raw, 0) < 0)
        return fault_errno(f, FAULT_VDILoad, "read volume %s", log->name);
    return log_in(raw, out) ? 0 : fault_set(f, FAULT_VDILoad, "volume %s does not hold what its tag says", log->name);
}

static int apply(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, const struct vhd_patch *p,
                 struct fault *f)
{
    AUTO_VOLUME struct volume v = {0};
    if (volume_open(vg, lv, true, &v, f) < 0)
        return -1;
    for (size_t i = 0; i < p->count; i++)
        if (volume_write(&v, p->pieces[i].bytes, p->pieces[i].length, p->pieces[i].at) < 0 ||
            (i == 0 && POINT(compose_half_written) < 0))
            return fault_errno(f, FAULT_LVMWrite, "write the new parent into volume %s", lv->name);
    return lvm_sync(sr, &v, f) < 0 ? -1 : PASS(compose_linked, FAULT_LVMWrite, f);
}

bool lvm_link_parse(const struct lvm_lv *log, struct uuid *disk, struct uuid *parent, struct arena *a)
{
    const char *text = lvm_tag_value(log->tags, LVM_TAG_LINK, a);
    return text && strlen(text) == 2 * UUID_TEXT + 1 && text[UUID_TEXT] == ':' && uuid_parse(text, UUID_TEXT, disk) &&
           uuid_parse(text + UUID_TEXT + 1, UUID_TEXT, parent);
}

const struct lvm_lv *lvm_link_find(const struct lvm_vg *vg, const struct plan *plan)
{
    char name[LVM_NAME];
    log_name(name, plan);
    return lvm_find(vg, name);
}

int lvm_link_finish(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *log, struct fault *f)
{
    struct uuid disk, parent;
    struct vhd_patch patch;
    bool raw;
    const char *const names[] = {log->name, NULL};
    struct lvm_scope scope = lvm_sr_scope(sr);
    AUTO_ARENA struct arena *a = arena_new(1 << 16);
    if (!lvm_link_parse(log, &disk, &parent, a))
        return fault_set(f, FAULT_VDILoad, "volume %s has no tag that says what it is for", log->name);
    const struct lvm_lv *lv = lvm_find_disk(vg, &disk, &raw);
    if (!lv || raw)
        return fault_set(f, FAULT_VDIUnavailable, "there is no VHD of disk %s, which was to get another parent",
                         disk.text);
    if (read_log(vg, log, &patch, f) < 0 || apply(sr, vg, lv, &patch, f) < 0 ||
        lvm_hide(sr, &parent, FAULT_VDICreate, f) < 0)
        return -1;
    return lvm_lv_remove(&scope, vg->name, names, f);
}

int lvm_link_describe(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                      struct arena *a, struct vdi *out, struct vdi *base, struct fault *f)
{
    struct vdi child_now, parent_now;
    if (lvm_describe_now(sr, &plan->vdi, vdi, a, &child_now, f) < 0 ||
        lvm_describe_now(sr, &plan->base, parent, a, &parent_now, f) < 0 || lvm_mgt_put(sr, &child_now, f) < 0 ||
        lvm_mgt_put(sr, &parent_now, f) < 0)
        return -1;
    *out = child_now;
    *base = parent_now;
    return 0;
}

int lvm_vdi_compose(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                    struct arena *a, struct vdi *out, struct vdi *base, struct fault *f)
{
    struct lvm_vg *vg;
    struct lvm_chain c, p;
    struct vhd_patch patch;
    if (uuid_equal(&plan->vdi, &plan->base))
        return fault_set(f, FAULT_InvalidArg, "disk %s cannot be made from itself", vdi->uuid.text);
    if (find_leaf(sr, &plan->vdi, a, &vg, &c, f) < 0 || check_compose(vg, vdi, &c, parent, &p, f) < 0 ||
        plan_patch(vg, c.lvs[0], &p, &patch, f) < 0 || write_log(sr, plan, &patch, a, f) < 0 ||
        lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *log = lvm_link_find(vg, plan);
    if (!log)
        return fault_set(f, FAULT_LVMNoVolume, "the volume that says what is to be done with disk %s is gone",
                         vdi->uuid.text);
    if (lvm_link_finish(sr, vg, log, f) < 0 || follow_chain(sr, vdi, vg, c.lvs[0], a, f) < 0)
        return -1;
    return lvm_link_describe(sr, plan, vdi, parent, a, out, base, f);
}
