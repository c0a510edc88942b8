/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/tools/blkid.h"

#include <blkid/blkid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define SYS    "/sys"
#define MOUNTS "/proc/self/mountinfo"
#define DEEP   16 /* devices on top of one another */

/* ------------------------------------------------------------------ how devices stand on one another */

static bool read_number(const char *path, dev_t *out)
{
    unsigned major_number, minor_number;
    AUTO_FILE FILE *file = fopen(path, "re");
    if (!file || fscanf(file, "%u:%u", &major_number, &minor_number) != 2)
        return false;
    *out = makedev(major_number, minor_number);
    return true;
}

static void node_path(char out[PATH_MAX], const char *sys, dev_t number, const char *below)
{
    snprintf(out, PATH_MAX, "%s/dev/block/%u:%u%s", sys, major(number), minor(number), below);
}

/* The disk of which the device is a partition. */
static bool whole_of(const char *sys, dev_t number, dev_t *out)
{
    char path[PATH_MAX];
    node_path(path, sys, number, "/partition");
    struct stat st;
    if (stat(path, &st) < 0)
        return false;
    node_path(path, sys, number, "/../dev");
    return read_number(path, out);
}

/* top is the device, or stands on it: as a partition, or through device-mapper, md and the like. */
static bool stands_on(const char *sys, dev_t top, dev_t device, int depth)
{
    char path[PATH_MAX];
    dev_t below;
    if (top == device)
        return true;
    if (depth == 0)
        return false;
    if (whole_of(sys, top, &below) && stands_on(sys, below, device, depth - 1))
        return true;
    node_path(path, sys, top, "/slaves");
    AUTO_DIR DIR *slaves = opendir(path);
    for (const struct dirent *e = slaves ? readdir(slaves) : NULL; e; e = readdir(slaves)) {
        char name[PATH_MAX + NAME_MAX + 8];
        snprintf(name, sizeof name, "%s/%s/dev", path, e->d_name);
        if (e->d_name[0] != '.' && read_number(name, &below) && stands_on(sys, below, device, depth - 1))
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------ mounts */

struct mount {
    dev_t number;
    char point[PATH_MAX];
};

/* The next line of mountinfo: id, parent, major:minor, root, mount point, … - type source options. A file system with a
   number of its own (btrfs, overlay) is known by its source, where that is a device. */
static bool next_mount(FILE *file, struct mount *out)
{
    char line[3 * PATH_MAX], source[PATH_MAX];
    unsigned major_number, minor_number;
    struct stat st;
    if (!fgets(line, sizeof line, file))
        return false;
    *out = (struct mount){.number = 0};
    if (sscanf(line, "%*u %*u %u:%u %*s %4095s", &major_number, &minor_number, out->point) != 3)
        return true;
    out->number = makedev(major_number, minor_number);
    const char *after = strstr(line, " - ");
    if (major_number == 0 && after && sscanf(after, " - %*s %4095s", source) == 1 && source[0] == '/' &&
        stat(source, &st) == 0 && S_ISBLK(st.st_mode))
        out->number = st.st_rdev;
    return true;
}

bool device_is_system(const char *sys, const char *mounts, dev_t number)
{
    struct mount m;
    AUTO_FILE FILE *file = fopen(mounts, "re");
    while (file && next_mount(file, &m))
        if ((strcmp(m.point, "/") == 0 || strcmp(m.point, "/boot") == 0 || strcmp(m.point, "/usr") == 0) &&
            stands_on(sys, m.number, number, DEEP))
            return true;
    return false;
}

static const char *holder(const char *sys, dev_t number, struct arena *a)
{
    char path[PATH_MAX];
    node_path(path, sys, number, "/holders");
    AUTO_DIR DIR *holders = opendir(path);
    for (const struct dirent *e = holders ? readdir(holders) : NULL; e; e = readdir(holders))
        if (e->d_name[0] != '.')
            return arena_printf(a, "is held by %s", e->d_name);
    return NULL;
}

const char *device_user(const char *sys, const char *mounts, dev_t number, struct arena *a)
{
    struct mount m;
    AUTO_FILE FILE *file = fopen(mounts, "re");
    while (file && next_mount(file, &m))
        if (stands_on(sys, m.number, number, DEEP))
            return arena_printf(a, "is mounted on %s", m.point);
    return holder(sys, number, a);
}

/* ------------------------------------------------------------------ signatures */

static const char *value_of(blkid_probe probe, const char *name, struct arena *a)
{
    const char *value = NULL;
    return blkid_probe_lookup_value(probe, name, &value, NULL) == 0 ? arena_text(a, value) : "";
}

static int probe_signature(blkid_probe probe, int fd, struct arena *a, struct device *out)
{
    if (blkid_probe_set_device(probe, fd, 0, 0) < 0)
        return -1;
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_UUID | BLKID_SUBLKS_BADCSUM);
    blkid_probe_enable_partitions(probe, 1);
    int r = blkid_do_safeprobe(probe);
    if (r == -1)
        return -1;
    out->signature = r == 0 ? value_of(probe, "TYPE", a) : r == 1 ? "" : "several";
    if (r == 0 && !out->signature[0])
        out->signature = value_of(probe, "PTTYPE", a);
    if (r == 0 && !out->signature[0])
        out->signature = "several";
    out->uuid = r == 0 ? value_of(probe, "UUID", a) : "";
    return 0;
}

static int read_signature(const char *path, int fd, struct arena *a, struct device *out, struct fault *f)
{
    errno = 0;
    blkid_probe probe = blkid_new_probe();
    int r = probe ? probe_signature(probe, fd, a, out) : -1;
    if (probe)
        blkid_free_probe(probe);
    return r < 0 ? fault_errno(f, FAULT_EIO, "read what stands on %s", path) : 0;
}

/* Whoever has it open for himself says so, whatever he is. */
static const char *exclusive_user(const char *path)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
    return fd < 0 && errno == EBUSY ? "is in use" : NULL;
}

/* What only the device itself can tell. */
static int open_and_look(const char *path, struct arena *a, struct device *d, struct fault *f)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fault_errno(f, errno == ENXIO || errno == ENODEV ? FAULT_InvalidDev : FAULT_EIO, "open device %.300s",
                           path);
    if (ioctl(fd, BLKGETSIZE64, &d->size) < 0)
        return fault_errno(f, FAULT_EIO, "read the size of %.300s", path);
    return read_signature(path, fd, a, d, f);
}

int device_look(const char *path, struct arena *a, struct device *out, struct fault *f)
{
    struct stat st;
    struct device d = {.path = arena_text(a, path), .signature = "", .uuid = ""};
    if (stat(path, &st) < 0)
        return fault_errno(f, errno == ENOENT ? FAULT_InvalidDev : FAULT_ConfigDeviceInvalid, "look for device %.300s",
                           path);
    if (!S_ISBLK(st.st_mode))
        return fault_set(f, FAULT_ConfigDeviceInvalid, "%.300s is no block device", path);
    d.number = st.st_rdev;
    d.system = device_is_system(SYS, MOUNTS, d.number);
    if (!d.system && open_and_look(path, a, &d, f) < 0)
        return -1;
    d.user = d.system ? "holds the running system" : device_user(SYS, MOUNTS, d.number, a);
    if (!d.user)
        d.user = exclusive_user(path);
    *out = d;
    return 0;
}

enum { DEVICES_MAX = 4096 };

/* Whether the device of this name bears the signature; path is filled then. */
static bool bears(const char *name, const char *signature, struct arena *a, char **path)
{
    struct stat st;
    struct fault ignored;
    struct device d = {.signature = ""};
    *path = arena_printf(a, "/dev/%s", name);
    for (char *c = *path; *c; c++)
        if (*c == '!') /* as sysfs writes a slash */
            *c = '/';
    if (stat(*path, &st) < 0 || !S_ISBLK(st.st_mode) || device_is_system(SYS, MOUNTS, st.st_rdev) ||
        open_and_look(*path, a, &d, &ignored) < 0)
        return false;
    return strcmp(d.signature, signature) == 0;
}

char **device_list(const char *signature, struct arena *a, size_t *count)
{
    AUTO_DIR DIR *entries = opendir(SYS "/class/block");
    char **list = ARENA_ARRAY(a, char *, DEVICES_MAX), *path;
    size_t n = 0;
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e && n < DEVICES_MAX; e = readdir(entries))
        if (e->d_name[0] != '.' && bears(e->d_name, signature, a, &path))
            list[n++] = path;
    *count = n;
    return list;
}
