/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/file.h"
#include "server/base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>

void image_name(char out[FILE_NAME], const struct uuid *vdi, const struct image_format *format)
{
    snprintf(out, FILE_NAME, "%s%s", vdi->text, format->suffix);
}

const char *image_wrong(const struct stat *st)
{
    if (S_ISLNK(st->st_mode))
        return "a symbolic link stands in its image's place";
    if (S_ISDIR(st->st_mode))
        return "a directory stands in its image's place";
    if (!S_ISREG(st->st_mode))
        return "its image is no plain file";
    return st->st_nlink == 1 ? NULL : "its image has more than one name (hard links)";
}

int image_stand(int dir, const struct uuid *vdi, char name[FILE_NAME], struct stat *out)
{
    size_t count;
    const struct image_format *const *formats = image_formats(&count);
    for (size_t i = 0; i < count; i++) {
        image_name(name, vdi, formats[i]);
        if (fstatat(dir, name, out, AT_SYMLINK_NOFOLLOW) == 0)
            return 1;
        if (errno != ENOENT)
            return -1;
    }
    return 0;
}

static int open_one(int dir, const struct uuid *vdi, const struct image_format *format, int flags,
                    struct image_file *out, struct fault *f)
{
    struct image_file file = {.format = format, .fd = -1};
    image_name(file.name, vdi, format);
    if (fstatat(dir, file.name, &file.st, AT_SYMLINK_NOFOLLOW) < 0)
        return fault_errno(f, FAULT_VDIUnavailable, "look at image %s", file.name);
    const char *wrong = image_wrong(&file.st);
    if (wrong)
        return fault_set(f, FAULT_VDIUnavailable, "disk %s: %s", vdi->text, wrong);
    AUTO_FD int fd = io_open_beneath(dir, file.name, flags, 0);
    if (fd < 0 || fstat(fd, &file.st) < 0)
        return fault_errno(f, errno == ENOENT ? FAULT_VDIUnavailable : FAULT_VDILoad, "open image %s", file.name);
    wrong = image_wrong(&file.st);
    if (wrong)
        return fault_set(f, FAULT_VDIUnavailable, "disk %s: %s", vdi->text, wrong);
    file.fd = TAKE_FD(fd);
    *out = file;
    return 0;
}

/* The one format whose name for this disk is taken. */
static int format_standing(int dir, const struct uuid *vdi, const struct image_format **out, struct fault *f)
{
    size_t count, taken = 0;
    const struct image_format *const *formats = image_formats(&count);
    for (size_t i = 0; i < count; i++) {
        char name[FILE_NAME];
        image_name(name, vdi, formats[i]);
        if (faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
            *out = formats[i];
            taken++;
        }
    }
    if (taken == 1)
        return 0;
    return fault_set(f, FAULT_VDIUnavailable, "disk %s has %s", vdi->text,
                     taken ? "images of more than one format" : "no image");
}

int image_open_in(int dir, const struct uuid *vdi, const char *format, int flags, struct image_file *out,
                  struct fault *f)
{
    const struct image_format *row = image_format_find(format);
    if (!row && format_standing(dir, vdi, &row, f) < 0)
        return -1;
    return open_one(dir, vdi, row, flags, out, f);
}

int image_open(struct sr *sr, const struct uuid *vdi, const char *format, int flags, struct image_file *out,
               struct fault *f)
{
    return image_open_in(sr->place.dir, vdi, format, flags, out, f);
}

int image_publish(int dir, const char *temp, const char *name)
{
    struct stat from, to;
    if (fstatat(dir, temp, &from, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (renameat2(dir, temp, dir, name, RENAME_NOREPLACE) == 0)
        return 0;
    /* NFS knows no such flag, but link does not replace either. */
    bool linked = (errno == EINVAL || errno == ENOSYS) && linkat(dir, temp, dir, name, 0) == 0;
    int saved = errno;
    if (linked ||
        (fstatat(dir, name, &to, AT_SYMLINK_NOFOLLOW) == 0 && to.st_ino == from.st_ino && to.st_dev == from.st_dev))
        return file_remove(dir, temp);
    errno = saved;
    return -1;
}

/* xapi's view of an image is in sm_config too. The pairs are copied before they are changed. */
static void config_set(struct arena *a, struct vdi *vdi, const char *key, const char *value)
{
    const char *now = pairs_get(&vdi->sm_config, key);
    if (now && strcmp(now, value) == 0)
        return;
    vdi->sm_config = pairs_copy(a, &vdi->sm_config);
    pairs_set(a, &vdi->sm_config, key, value);
}

void image_describe(int dir, const struct uuid *uuid, const struct image_format *format, const struct image_info *info,
                    const struct vdi *known, struct arena *a, struct vdi *out)
{
    struct claim claim;
    struct vdi vdi = known ? *known : vdi_blank();
    vdi.uuid = *uuid;
    if (!known) {
        vdi.location = arena_copy(a, uuid->text, UUID_TEXT);
        vdi.managed = !info->hidden;
        sidecar_read(dir, a, &vdi, &claim);
    } else if (!vdi.location || !vdi.location[0]) {
        vdi.location = arena_copy(a, uuid->text, UUID_TEXT);
    }
    if (vdi.state != VDI_QUARANTINED) {
        vdi.state = VDI_LIVE;
        vdi.damage = "";
    }
    vdi.format = format->name;
    vdi.size = info->size;
    vdi.utilisation = info->utilisation;
    if (info->hidden || (known && known->hidden))
        vdi.managed = !info->hidden;
    vdi.hidden = info->hidden;
    vdi.parent = info->parent;
    if (!format->chains)
        config_set(a, &vdi, "type", format->name);
    if (uuid_is(&info->parent))
        config_set(a, &vdi, "vhd-parent", info->parent.text);
    *out = vdi;
}

int image_describe_now(struct sr *sr, const struct uuid *uuid, const struct vdi *known, bool hidden, struct arena *a,
                       struct vdi *out, struct fault *f)
{
    struct image_file file;
    struct image_info info;
    struct vdi kept;
    if (image_open(sr, uuid, "", O_RDONLY, &file, f) < 0)
        return -1;
    AUTO_FD int fd = file.fd;
    if (file.format->info(fd, &info, f) < 0)
        return fault_prefix(f, "disk %s", uuid->text);
    info.hidden = info.hidden || hidden;
    if (known)
        kept = layout_copy(a, known);
    image_describe(sr->place.dir, uuid, file.format, &info, known ? &kept : NULL, a, out);
    return 0;
}

int image_check_free(struct sr *sr, const struct uuid *vdi, struct fault *f)
{
    char name[FILE_NAME];
    struct stat st;
    struct statvfs fs;
    int stands = image_stand(sr->place.dir, vdi, name, &st);
    if (stands < 0)
        return fault_errno(f, FAULT_EIO, "look for disk %s", vdi->text);
    if (stands)
        return fault_set(f, FAULT_VDIExists, "SR %s holds %s already", sr->uuid.text, name);
    if (fstatvfs(sr->place.dir, &fs) < 0)
        return fault_errno(f, FAULT_EIO, "read the free space of %s", sr->place.path);
    if (fs.f_blocks > 0 && fs.f_bavail == 0)
        return fault_set(f, FAULT_SRNoSpace, "%s has no free block", sr->place.path);
    return 0;
}

int image_format_wanted(const char *name, const struct image_format **out, struct fault *f)
{
    size_t count;
    const struct image_format *const *formats = image_formats(&count);
    const struct image_format *format = name && name[0] ? image_format_find(name) : formats[0];
    if (!format)
        return fault_set(f, FAULT_VDIType, "there is no image format \"%.64s\"", name);
    *out = format;
    return 0;
}

int file_sync(struct sr *sr, int fd, const char *what, struct fault *f)
{
    return fsync(fd) == 0 ? 0 : sr_poison(sr, f, "sync %s", what);
}

int file_remove(int dir, const char *name)
{
    return unlinkat(dir, name, 0) < 0 && errno != ENOENT ? -1 : 0;
}
