/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdi_snapshot and vdi_clone. The disk's image gets a second name, the base's; two empty children of the base are made;
   one takes the disk's name, which is the point of no return; the other gets the new disk's; the base is hidden. Until
   then everything can be taken back, after it everything can be done again from the plan, as the children are empty. */
#include "backends/layouts/file_tree.h"
#include "backends/layouts/fork.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>

/* Passing a point fails as the step before it would. */
#define PASS(name, plan, f) (POINT(name) < 0 ? fault_errno(f, fork_code(plan), "at point " #name) : 0)

/* ------------------------------------------------------------------ may it be done */

static int check_depth(struct sr *sr, const struct plan *plan, const struct image_format *format,
                       const struct image_info *info, struct fault *f)
{
    struct lineage l;
    if (tree_lineage(sr->place.dir, &plan->vdi, format, info, &l, f) < 0)
        return -1;
    if (l.count + 2 <= IMAGE_CHAIN_LIMIT)
        return 0;
    return fault_set(f, FAULT_SnapshotChainTooLong,
                     "disk %s has %zu images in its chain already; there are never more than %d", plan->vdi.text,
                     l.count + 1, IMAGE_CHAIN_LIMIT);
}

static int check_source(struct sr *sr, const struct plan *plan, const struct image_file *file, struct fault *f)
{
    struct image_info info;
    if (!file->format->chains)
        return fault_set(f, FAULT_Unimplemented, "disk %s is a %s image, from which no other can be made",
                         plan->vdi.text, file->format->name);
    if (file->format->info(file->fd, &info, f) < 0)
        return fault_prefix(f, "disk %s", plan->vdi.text);
    if (info.hidden)
        return fault_set(f, fork_code(plan), "disk %s is hidden: it is the base of other disks", plan->vdi.text);
    if (check_depth(sr, plan, file->format, &info, f) < 0 || image_check_free(sr, &plan->base, f) < 0)
        return -1;
    return image_check_free(sr, &plan->made, f);
}

/* ------------------------------------------------------------------ steps */

/* An empty child of the base, complete and synced under its temporary name. child: whose. */
static int make_child(struct sr *sr, const struct plan *plan, const struct image_file *base, const struct uuid *child,
                      const struct uuid *id, uint64_t *inode, struct fault *f)
{
    char temp[TEMPORARY_NAME];
    struct stat st;
    temporary_name(temp, &plan->op, TEMPORARY_NEW, child);
    AUTO_FD int fd = io_open_beneath(sr->place.dir, temp, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fault_errno(f, fork_code(plan), "make %s", temp);
    *inode = st.st_ino;
    return base->format->make_child(fd, id, base->fd, &plan->base, f) < 0 ? -1 : file_sync(sr, fd, temp, f);
}

/* The new disk and its labels, which come before its name. */
static int make_second(struct sr *sr, const struct plan *plan, const struct image_file *base, const struct vdi *wanted,
                       struct fault *f)
{
    const struct vdi vdi = fork_made(plan, wanted);
    struct claim claim = {.op = plan->op};
    if (make_child(sr, plan, base, &plan->made, &plan->made, &claim.inode, f) < 0)
        return -1;
    return sidecar_write(sr, &vdi, &claim, f);
}

/* NFS may answer a repeated request with an error although it was done. */
static bool is_linked(struct sr *sr, const struct plan *plan, const struct image_file *leaf)
{
    char name[FILE_NAME];
    struct stat st;
    int saved = errno;
    bool linked = image_stand(sr->place.dir, &plan->base, name, &st) == 1 && st.st_ino == leaf->st.st_ino;
    errno = saved;
    return linked;
}

/* The base's labels are there before the base is. */
static int link_base(struct sr *sr, const struct plan *plan, const struct image_file *leaf, struct fault *f)
{
    char name[FILE_NAME];
    const struct vdi base = fork_base(plan);
    const struct claim claim = {.op = plan->op, .inode = leaf->st.st_ino};
    image_name(name, &plan->base, leaf->format);
    if (file_sync(sr, leaf->fd, leaf->name, f) < 0 || sidecar_write(sr, &base, &claim, f) < 0)
        return -1;
    if (linkat(sr->place.dir, leaf->name, sr->place.dir, name, 0) < 0 && !is_linked(sr, plan, leaf))
        return fault_errno(f, fork_code(plan), "link %s to %s", leaf->name, name);
    return file_sync(sr, sr->place.dir, sr->place.path, f) < 0 ? -1 : PASS(fork_linked, plan, f);
}

/* The child carries the operation as its identifier, by which settle knows it. */
static int make_children(struct sr *sr, const struct plan *plan, const struct image_file *leaf,
                         const struct vdi *wanted, struct fault *f)
{
    uint64_t inode;
    if (make_child(sr, plan, leaf, &plan->vdi, &plan->op, &inode, f) < 0 || make_second(sr, plan, leaf, wanted, f) < 0)
        return -1;
    return PASS(fork_child_made, plan, f);
}

static int publish_child(struct sr *sr, const struct plan *plan, const char *name, struct fault *f)
{
    char temp[TEMPORARY_NAME];
    temporary_name(temp, &plan->op, TEMPORARY_NEW, &plan->vdi);
    if (renameat(sr->place.dir, temp, sr->place.dir, name) < 0)
        return fault_errno(f, fork_code(plan), "rename %s to %s", temp, name);
    return file_sync(sr, sr->place.dir, sr->place.path, f) < 0 ? -1 : PASS(fork_published, plan, f);
}

/* What stands under the new disk's name was put there by this operation. */
static bool is_second_ours(struct sr *sr, const struct plan *plan, struct arena *a, const struct stat *st)
{
    struct vdi vdi = vdi_blank();
    struct claim claim;
    vdi.uuid = plan->made;
    return sidecar_read(sr->place.dir, a, &vdi, &claim) && uuid_equal(&claim.op, &plan->op) &&
           claim.inode == st->st_ino;
}

static int publish_second(struct sr *sr, const struct plan *plan, const struct image_file *base,
                          const struct vdi *wanted, struct arena *a, struct fault *f)
{
    char temp[TEMPORARY_NAME], name[FILE_NAME];
    struct stat st;
    int stands = image_stand(sr->place.dir, &plan->made, name, &st);
    if (stands < 0)
        return fault_errno(f, fork_code(plan), "look for disk %s", plan->made.text);
    if (stands)
        return is_second_ours(sr, plan, a, &st)
                   ? 0
                   : fault_set(f, FAULT_VDIExists, "SR %s holds %s already", sr->uuid.text, name);
    temporary_name(temp, &plan->op, TEMPORARY_NEW, &plan->made);
    image_name(name, &plan->made, base->format);
    if (faccessat(sr->place.dir, temp, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && make_second(sr, plan, base, wanted, f) < 0)
        return -1;
    if (image_publish(sr->place.dir, temp, name) < 0)
        return fault_errno(f, errno == EEXIST ? FAULT_VDIExists : fork_code(plan), "give %s its name", name);
    return file_sync(sr, sr->place.dir, sr->place.path, f) < 0 ? -1 : PASS(fork_second_made, plan, f);
}

/* ------------------------------------------------------------------ all of it */

int file_fork_finish(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                     struct vdi *made, struct vdi *base, struct fault *f)
{
    AUTO_IMAGE struct image_file file = {.fd = -1};
    if (image_open(sr, &plan->base, "", O_RDONLY, &file, f) < 0 || publish_second(sr, plan, &file, wanted, a, f) < 0 ||
        file_hide(sr, &plan->base, f) < 0 || PASS(fork_hidden, plan, f) < 0)
        return -1;
    const struct vdi new_disk = fork_made(plan, wanted), new_base = fork_base(plan);
    struct vdi made_now, base_now;
    if (image_describe_now(sr, &plan->made, &new_disk, false, a, &made_now, f) < 0 ||
        image_describe_now(sr, &plan->base, &new_base, false, a, &base_now, f) < 0)
        return -1;
    *made = made_now;
    *base = base_now;
    return 0;
}

int file_vdi_fork(struct sr *sr, const struct plan *plan, const struct vdi *wanted, const struct vdi *vdi,
                  struct arena *a, struct vdi *made, struct vdi *base, struct fault *f)
{
    AUTO_IMAGE struct image_file leaf = {.fd = -1};
    if (image_open(sr, &plan->vdi, vdi->format, O_RDONLY, &leaf, f) < 0 || check_source(sr, plan, &leaf, f) < 0 ||
        link_base(sr, plan, &leaf, f) < 0 || make_children(sr, plan, &leaf, wanted, f) < 0)
        return -1;
    image_close(&leaf);
    if (publish_child(sr, plan, leaf.name, f) < 0)
        return -1;
    return file_fork_finish(sr, plan, wanted, a, made, base, f);
}
