/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/made.h"

#include "backends/directory.h"
#include "backends/temporary.h"
#include "server/base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

int made_open(int parent, const char *name)
{
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int made_first_entry(int dir, const char *spared, char out[NAME_MAX + 1])
{
    AUTO_DIR DIR *entries = directory_entries(dir);
    if (!entries)
        return -1;
    out[0] = '\0';
    errno = 0;
    for (const struct dirent *e = readdir(entries); e && !out[0]; e = readdir(entries))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && strcmp(e->d_name, "lost+found") &&
            strcmp(e->d_name, spared))
            snprintf(out, NAME_MAX + 1, "%s", e->d_name);
    return errno ? -1 : 0;
}

/* Gives a directory another name that nothing has. NFS cannot be asked not to replace: there an empty directory that
   appears under the name meanwhile is lost, and one that is not empty refuses. It may also answer that it failed when
   it was done, so what stands decides. */
static int rename_new(int parent, const char *from, const char *to)
{
    struct stat source, target;
    if (fstatat(parent, from, &source, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (renameat2(parent, from, parent, to, RENAME_NOREPLACE) == 0)
        return 0;
    int error = errno;
    if (error == EINVAL || error == ENOSYS) {
        if (fstatat(parent, to, &target, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT) {
            errno = EEXIST;
            return -1;
        }
        if (renameat(parent, from, parent, to) == 0)
            return 0;
        error = errno == ENOTEMPTY ? EEXIST : errno;
    }
    if (fstatat(parent, to, &target, AT_SYMLINK_NOFOLLOW) == 0 && target.st_ino == source.st_ino &&
        target.st_dev == source.st_dev)
        return 0;
    errno = error;
    return -1;
}

static int leave_note(int dir, const char *note)
{
    AUTO_FD int fd = io_open_beneath(dir, note, O_WRONLY | O_CREAT | O_EXCL, 0600);
    return fd < 0 || fsync(dir) < 0 ? -1 : 0;
}

int made_make(int parent, const char *name, const struct plan *plan)
{
    char temp[TEMPORARY_NAME], note[TEMPORARY_NAME];
    temporary_name(temp, &plan->op, TEMPORARY_NEW, &plan->sr);
    temporary_name(note, &plan->op, TEMPORARY_MADE, &plan->sr);
    if (mkdirat(parent, temp, 0700) < 0)
        return -1;
    AUTO_FD int dir = made_open(parent, temp);
    if (dir < 0 || leave_note(dir, note) < 0)
        return -1;
    return rename_new(parent, temp, name) < 0 ? -1 : fsync(parent);
}

/* Removes a directory that holds nothing, or nothing but the note. Success when it is not there. */
static int remove_directory(int parent, const char *name, const char *note)
{
    AUTO_FD int dir = made_open(parent, name);
    if (dir < 0)
        return errno == ENOENT ? 0 : -1;
    if (unlinkat(dir, note, 0) < 0 && errno != ENOENT)
        return -1;
    return unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -1 : 0;
}

/* The directory with the note in it, renamed first: once the note is gone nothing would tell that it may go. */
static int doom(int parent, const char *name, const struct plan *plan, const char *note)
{
    char entry[NAME_MAX + 1], temp[TEMPORARY_NAME];
    AUTO_FD int dir = made_open(parent, name);
    if (dir < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : -1;
    temporary_name(temp, &plan->op, TEMPORARY_DEL, &plan->sr);
    if (faccessat(dir, note, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -1;
    if (made_first_entry(dir, note, entry) < 0)
        return -1;
    /* What was swept out of it must not come back under the other name, where nothing would remove it. */
    if (!entry[0] && fsync(dir) < 0)
        return -1;
    if (!entry[0] && renameat(parent, name, parent, temp) == 0)
        return fsync(parent);
    if (!entry[0] && errno != EBUSY)
        return -1;
    return unlinkat(dir, note, 0); /* something came into it, or something is mounted on it: it stays */
}

int made_remove(int parent, const char *name, const struct plan *plan)
{
    char temp[TEMPORARY_NAME], note[TEMPORARY_NAME];
    temporary_name(note, &plan->op, TEMPORARY_MADE, &plan->sr);
    if (doom(parent, name, plan, note) < 0)
        return -1;
    temporary_name(temp, &plan->op, TEMPORARY_NEW, &plan->sr);
    if (remove_directory(parent, temp, note) < 0)
        return -1;
    temporary_name(temp, &plan->op, TEMPORARY_DEL, &plan->sr);
    return remove_directory(parent, temp, note) < 0 ? -1 : fsync(parent);
}
