/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/tools/mounts.h"

#include "server/base/cmd.h"
#include <errno.h>
#include <libmount/libmount.h>
#include <string.h>
#include <sys/stat.h>

enum { UNMOUNT_SECONDS = 20, FORCE_SECONDS = 10 };

static void own_table(struct libmnt_table **t)
{
    mnt_unref_table(*t);
}
#define AUTO_TABLE __attribute__((cleanup(own_table)))

static void own_context(struct libmnt_context **c)
{
    mnt_free_context(*c);
}
#define AUTO_CONTEXT __attribute__((cleanup(own_context)))

/* ------------------------------------------------------------------ the kernel's list */

static int read_table(struct libmnt_table **out, struct fault *f)
{
    *out = mnt_new_table_from_file("/proc/self/mountinfo");
    return *out ? 0 : fault_errno(f, FAULT_EIO, "read /proc/self/mountinfo");
}

int mounts_find(const char *path, struct arena *a, struct mounted *out, struct fault *f)
{
    AUTO_TABLE struct libmnt_table *table = NULL;
    struct libmnt_iter *backward = mnt_new_iter(MNT_ITER_BACKWARD);
    struct libmnt_fs *fs;
    struct mounted found = {.there = false};
    if (!backward)
        abort();
    int failed = read_table(&table, f);
    while (!failed && !found.there && mnt_table_next_fs(table, backward, &fs) == 0) {
        const char *target = mnt_fs_get_target(fs);
        if (target && strcmp(target, path) == 0) {
            const char *source = mnt_fs_get_srcpath(fs) ? mnt_fs_get_srcpath(fs) : mnt_fs_get_source(fs);
            const char *type = mnt_fs_get_fstype(fs);
            const char *options = mnt_fs_get_options(fs);
            found = (struct mounted){true, arena_text(a, source ? source : ""), arena_text(a, type ? type : ""),
                                     arena_text(a, options ? options : "")};
        }
    }
    mnt_free_iter(backward);
    if (!failed)
        *out = found;
    return failed;
}

const char *mounts_option(const struct mounted *m, const char *name, struct arena *a)
{
    char *value = NULL;
    size_t length = 0;
    if (mnt_optstr_get_option(m->options, name, &value, &length) != 0)
        return NULL;
    return value ? arena_copy(a, value, length) : "";
}

int mounts_find_device(dev_t device, struct arena *a, const char **out, struct fault *f)
{
    AUTO_TABLE struct libmnt_table *table = NULL;
    if (read_table(&table, f) < 0)
        return -1;
    struct libmnt_fs *fs = mnt_table_find_devno(table, device, MNT_ITER_BACKWARD);
    *out = fs ? arena_text(a, mnt_fs_get_target(fs)) : NULL;
    return 0;
}

/* ------------------------------------------------------------------ a local device */

/* Neither helpers nor /run/mount/utab: the mount is what the kernel says it is. */
int mounts_mount(const char *device, const char *path, const char *type, const char *options, struct fault *f)
{
    AUTO_CONTEXT struct libmnt_context *c = mnt_new_context();
    char why[256] = "";
    if (!c)
        abort();
    mnt_context_disable_helpers(c, 1);
    mnt_context_disable_mtab(c, 1);
    if (mnt_context_set_source(c, device) || mnt_context_set_target(c, path) || mnt_context_set_fstype(c, type) ||
        mnt_context_set_options(c, options))
        return fault_set(f, FAULT_LVMMount, "mount %s: libmount takes no such arguments", device);
    int r = mnt_context_mount(c);
    if (mnt_context_get_excode(c, r, why, sizeof why) == MNT_EX_SUCCESS)
        return 0;
    return fault_set(f, FAULT_LVMMount, "mount %s on %s: %s", device, path, why[0] ? why : strerror(-r));
}

/* ------------------------------------------------------------------ unmount */

static int run_umount(const char *const *argv, unsigned seconds, int hold, struct arena *a, struct cmd_result *r,
                      const char **said, struct fault *f)
{
    const struct cmd cmd = {.argv = argv, .seconds = seconds, .hold = hold};
    if (cmd_run(&cmd, a, r, f) < 0)
        return -1;
    *said = r->status ? cmd_failure(&cmd, r, a) : "";
    return 0;
}

/* umount is told to ask nobody: not the target (--no-canonicalize), not a helper (--internal-only). It is a child
   because the system call may wait for a server, and a child can be left behind. */
int mounts_unmount(const char *path, int hold, enum fault_code code, struct arena *a, struct fault *f)
{
    const char *const plain[] = {"/bin/umount", "--internal-only", "--no-canonicalize", path, NULL};
    const char *const force[] = {"/bin/umount", "--internal-only", "--no-canonicalize", "--force", "--lazy", path,
                                 NULL};
    struct cmd_result r;
    struct mounted left;
    const char *said;
    if (run_umount(plain, UNMOUNT_SECONDS, hold, a, &r, &said, f) < 0)
        return -1;
    if (r.status == 0)
        return 0;
    if (!r.timed_out)
        return fault_set(f, code, "%.500s", said);
    if (run_umount(force, FORCE_SECONDS, hold, a, &r, &said, f) < 0 || mounts_find(path, a, &left, f) < 0)
        return -1;
    return left.there ? fault_set(f, code, "%.500s", said) : 0;
}

/* ------------------------------------------------------------------ mount points */

int mounts_make_point(const char *mount_base, const char *path, enum fault_code code, struct fault *f)
{
    struct stat st;
    if (mkdir(mount_base, 0755) < 0 && errno != EEXIST)
        return fault_errno(f, code, "make %s", mount_base);
    if (mkdir(path, 0700) == 0)
        return 0;
    if (errno != EEXIST || lstat(path, &st) < 0)
        return fault_errno(f, code, "make %s", path);
    if (S_ISDIR(st.st_mode))
        return 0;
    return fault_set(f, code, "%s is there already and is no directory; remove it if nothing uses it", path);
}

int mounts_remove_point(const char *path, enum fault_code code, struct fault *f)
{
    if (rmdir(path) == 0 || errno == ENOENT || errno == ENOTDIR || errno == ENOTEMPTY || errno == EEXIST)
        return 0;
    return fault_errno(f, code, "remove mount point %s", path);
}
