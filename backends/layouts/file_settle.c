/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bringing the medium to an end of an operation, by what stands on it: names that carry the operation, and sidecars,
   which say which inode which operation meant. Each step may be cut off and done again. */
#include "backends/layouts/file.h"
#include "backends/layouts/settle.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

static int dir_of(const struct settling *w)
{
    return w->sr->place.dir;
}

/* A poisoned SR cannot promise more than that the names are gone now; those of temporaries are swept again at attach.
 */
static int undone(struct settling *w, struct fault *f)
{
    w->how = SETTLED_UNDONE;
    if (atomic_load(&w->sr->poison))
        return 0;
    return file_sync(w->sr, dir_of(w), w->sr->place.path, f);
}

/* The disk's sidecar was written by this operation. */
static bool claimed(const struct settling *w, struct claim *out)
{
    struct vdi vdi = vdi_blank();
    vdi.uuid = w->plan->vdi;
    return sidecar_read(dir_of(w), w->a, &vdi, out) && uuid_equal(&out->op, &w->plan->op);
}

/* The disk as the slot would have answered it; synced. False when its image is not sound or not of that size (0: any).
 */
static bool whole(struct settling *w, uint64_t size)
{
    struct image_file file;
    struct image_info info;
    struct fault ignored;
    uint64_t rounded = 0;
    const char *place = w->sr->place.path;
    if (image_open(w->sr, &w->plan->vdi, "", O_RDONLY, &file, &ignored) < 0)
        return false;
    AUTO_FD int fd = file.fd;
    if (file.format->info(fd, &info, &ignored) < 0 || (size && file.format->round(size, &rounded, &ignored) < 0))
        return false;
    if ((size && rounded != info.size) || file_sync(w->sr, fd, file.name, &ignored) < 0 ||
        file_sync(w->sr, dir_of(w), place, &ignored) < 0)
        return false;
    const struct vdi kept = w->wanted ? layout_copy(w->a, w->wanted) : vdi_blank();
    image_describe(dir_of(w), &w->plan->vdi, file.format, &info, w->wanted ? &kept : NULL, w->a, w->vdi);
    w->how = SETTLED_DONE;
    return true;
}

static int remove_sidecar(const struct settling *w)
{
    char name[FILE_NAME];
    sidecar_name(name, &w->plan->vdi);
    return file_remove(dir_of(w), name);
}

/* What this operation published under the disk's name, if it stands: 1, or 0; -1 with errno. */
static int published(const struct settling *w, const struct claim *claim, char name[FILE_NAME])
{
    struct stat st;
    int stands = image_stand(dir_of(w), &w->plan->vdi, name, &st);
    return stands <= 0 ? stands : S_ISREG(st.st_mode) && st.st_ino == claim->inode;
}

/* Table A. Without the claim nothing was published: a sidecar comes before the name. */
static int settle_create(struct settling *w, struct fault *f)
{
    char name[FILE_NAME];
    struct claim claim;
    if (file_sweep_operation(dir_of(w), w->plan) < 0)
        return fault_errno(f, FAULT_VDIRemove, "remove what operation %s left", w->plan->op.text);
    if (!claimed(w, &claim))
        return undone(w, f);
    int stands = published(w, &claim, name);
    if (stands == 1 && w->plan->keep && !atomic_load(&w->sr->poison) && whole(w, w->plan->size))
        return 0;
    if (stands < 0 || (stands == 1 && file_remove(dir_of(w), name) < 0))
        return fault_errno(f, FAULT_VDIRemove, "undo the creation of disk %s", w->plan->vdi.text);
    /* The name is gone for good before what says whose it was. */
    if (undone(w, f) < 0)
        return -1;
    if (remove_sidecar(w) < 0)
        return fault_errno(f, FAULT_VDIRemove, "remove the labels of disk %s", w->plan->vdi.text);
    return undone(w, f);
}

/* Table E: always forward, but for a file that is not the plan's, and one that cannot be hidden. */
static int settle_delete(struct settling *w, struct fault *f)
{
    struct vdi vdi = vdi_blank();
    struct deletion deleted;
    vdi.uuid = w->plan->vdi;
    if (file_vdi_delete(w->sr, w->plan, &vdi, w->a, &deleted, f) < 0) {
        if (f->code == FAULT_VDIDelete && !atomic_load(&w->sr->poison))
            return undone(w, f);
        return f->code == FAULT_VDIUnavailable ? 0 : -1;
    }
    *w->deleted = deleted;
    w->how = SETTLED_DONE;
    return 0;
}

/* Table D: both sizes are sound; a format that keeps a journal is brought back first. */
static int settle_resize(struct settling *w, struct fault *f)
{
    char name[TEMPORARY_NAME];
    struct image_file file;
    temporary_name(name, &w->plan->op, TEMPORARY_GROW, &w->plan->vdi);
    if (image_open(w->sr, &w->plan->vdi, "", O_RDWR, &file, f) < 0)
        return faccessat(dir_of(w), name, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : undone(w, f);
    AUTO_FD int fd = file.fd;
    const struct image_journal journal = {dir_of(w), name};
    if (file.format->revert && file.format->revert(fd, &journal, f) < 0)
        return -1;
    return whole(w, w->plan->size) ? 0 : undone(w, f);
}

/* The sidecar is what the operation wrote; the row still has the old labels. */
/* What the disk's image says of itself. */
static bool read_info(const struct settling *w, const struct uuid *vdi, struct image_info *out)
{
    struct fault ignored;
    struct image_file file;
    if (image_open(w->sr, vdi, "", O_RDONLY, &file, &ignored) < 0)
        return false;
    AUTO_FD int fd = file.fd;
    return file.format->info(fd, out, &ignored) == 0;
}

/* Removes the sidecar of a disk that this operation did not come to make. */
static int forget(const struct settling *w, const struct uuid *vdi)
{
    char name[FILE_NAME];
    struct vdi read = vdi_blank();
    struct claim claim;
    read.uuid = *vdi;
    if (!sidecar_read(dir_of(w), w->a, &read, &claim) || !uuid_equal(&claim.op, &w->plan->op))
        return 0;
    sidecar_name(name, vdi);
    return file_remove(dir_of(w), name);
}

static int fork_undone(struct settling *w, struct fault *f)
{
    if (forget(w, &w->plan->base) < 0 || forget(w, &w->plan->made) < 0)
        return fault_errno(f, FAULT_EIO, "remove what operation %s left", w->plan->op.text);
    return undone(w, f);
}

/* Tables B and C. While disk and base are one image the point of no return was not reached; afterwards the disk is a
   child of the base that carries the operation. A base that is neither was there before and is not ours. */
static int settle_fork(struct settling *w, struct fault *f)
{
    char name[FILE_NAME], base_name[FILE_NAME];
    struct stat st, base;
    struct image_info info;
    const struct plan *p = w->plan;
    if (file_sweep_operation(dir_of(w), p) < 0)
        return fault_errno(f, FAULT_VDIRemove, "remove what operation %s left", p->op.text);
    int stands = image_stand(dir_of(w), &p->vdi, name, &st);
    int base_stands = image_stand(dir_of(w), &p->base, base_name, &base);
    if (stands < 0 || base_stands < 0)
        return fault_errno(f, FAULT_EIO, "look for disk %s and its base", p->vdi.text);
    if (!base_stands)
        return fork_undone(w, f);
    if (!stands)
        return 0;
    if (st.st_ino == base.st_ino)
        return file_remove(dir_of(w), base_name) < 0 ? fault_errno(f, FAULT_VDIRemove, "remove %s", base_name)
                                                     : fork_undone(w, f);
    if (!read_info(w, &p->vdi, &info))
        return 0;
    if (!image_has_id(&info, &p->op) || !uuid_equal(&info.parent, &p->base))
        return fork_undone(w, f);
    if (file_fork_finish(w->sr, p, w->wanted, w->a, w->vdi, w->base, f) < 0)
        return -1;
    w->how = SETTLED_DONE;
    return 0;
}

static int settle_reset(struct settling *w, struct fault *f)
{
    struct image_info info;
    if (file_sweep_operation(dir_of(w), w->plan) < 0)
        return fault_errno(f, FAULT_VDIRemove, "remove what operation %s left", w->plan->op.text);
    if (!read_info(w, &w->plan->vdi, &info))
        return 0;
    return image_has_id(&info, &w->plan->op) && whole(w, 0) ? 0 : undone(w, f);
}

/* The child has its old parent again or the new one, which then gets hidden. */
static int settle_compose(struct settling *w, struct fault *f)
{
    char name[TEMPORARY_NAME];
    struct image_file file;
    struct image_info info;
    temporary_name(name, &w->plan->op, TEMPORARY_GROW, &w->plan->vdi);
    if (image_open(w->sr, &w->plan->vdi, "", O_RDWR, &file, f) < 0)
        return 0;
    AUTO_FD int fd = file.fd;
    const struct image_journal journal = {dir_of(w), name};
    if (file.format->revert && file.format->revert(fd, &journal, f) < 0)
        return -1;
    if (file.format->info(fd, &info, f) < 0)
        return 0;
    if (!uuid_equal(&info.parent, &w->plan->base))
        return undone(w, f);
    const struct vdi *row = w->wanted && uuid_equal(&w->wanted->uuid, &w->plan->vdi) ? w->wanted : NULL;
    if (file_compose_finish(w->sr, w->plan, row, NULL, w->a, w->vdi, w->base, f) < 0)
        return -1;
    w->how = SETTLED_DONE;
    return 0;
}

static int settle_update(struct settling *w, struct fault *f)
{
    struct claim claim;
    w->wanted = NULL;
    if (file_sweep_operation(dir_of(w), w->plan) < 0)
        return fault_errno(f, FAULT_EIO, "remove what operation %s left", w->plan->op.text);
    return claimed(w, &claim) && whole(w, 0) ? 0 : undone(w, f);
}

/* The image goes back under the name it was found by. */
static int rename_back(struct settling *w, const struct introduced *it, struct fault *f)
{
    char name[FILE_NAME];
    struct claim claim;
    if (!claimed(w, &claim))
        return undone(w, f);
    int stands = published(w, &claim, name);
    if (stands < 0 || (stands == 1 && image_publish(dir_of(w), name, it->source) < 0) || remove_sidecar(w) < 0)
        return fault_errno(f, FAULT_VDICreate, "rename %s back to %.200s", it->name, it->source);
    return undone(w, f);
}

static int settle_introduce(struct settling *w, struct fault *f)
{
    struct introduced it;
    struct claim claim;
    if (file_sweep_operation(dir_of(w), w->plan) < 0)
        return fault_errno(f, FAULT_EIO, "remove what operation %s left", w->plan->op.text);
    if (file_introduced(w->sr, &w->plan->vdi, w->plan->name, w->a, &it, f) < 0)
        return undone(w, f); /* refused before anything was touched */
    if (w->plan->keep && (!it.rename || claimed(w, &claim)) && whole(w, 0))
        return 0;
    return it.rename ? rename_back(w, &it, f) : undone(w, f);
}

static int settle_sr_create(struct settling *w, struct fault *f)
{
    if (file_sweep_operation(dir_of(w), w->plan) < 0)
        return fault_errno(f, FAULT_FileSRDelete, "remove what operation %s left", w->plan->op.text);
    if (file_sr_undo(w->sr, w->plan, f) < 0)
        return -1;
    w->how = SETTLED_UNDONE;
    return 0;
}

static int settle_sr_delete(struct settling *w, struct fault *f)
{
    bool empty = false;
    if (file_sr_clear(w->sr, w->plan, &empty, f) < 0)
        return -1;
    w->how = empty ? SETTLED_DONE : SETTLED_UNDONE;
    return 0;
}

static const struct settle_row rows[] = {
    {"vdi_create", settle_create, true},        {"vdi_delete", settle_delete, false},
    {"vdi_resize", settle_resize, false},       {"vdi_update", settle_update, false},
    {"vdi_introduce", settle_introduce, false}, {"vdi_snapshot", settle_fork, false},
    {"vdi_clone", settle_fork, false},          {"vdi_epoch_begin", settle_reset, false},
    {"vdi_compose", settle_compose, false},     {"sr_create", settle_sr_create, true},
    {"sr_delete", settle_sr_delete, true},
};

int file_settle(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, enum settled *how,
                struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f)
{
    struct settling w = {
        .sr = sr, .plan = plan, .wanted = wanted, .a = a, .vdi = vdi, .base = base, .deleted = deleted};
    if (settle_by_row(rows, COUNT_OF(rows), 1U << 20, &w, f) < 0)
        return -1;
    *how = w.how;
    return 0;
}
