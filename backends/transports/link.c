/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/transports/link.h"

#include "backends/temporary.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

static int link_make(const struct sr *sr, const char *location, const char *path, struct fault *f)
{
    char temp[PATH_MAX], name[TEMPORARY_NAME];
    struct uuid once = uuid_random();
    temporary_name(name, &once, TEMPORARY_LINK, &sr->uuid);
    snprintf(temp, sizeof temp, "%s/%s", sr->settings->mount_base, name);
    if (mkdir(sr->settings->mount_base, 0755) < 0 && errno != EEXIST)
        return fault_errno(f, FAULT_SRUnavailable, "make %s", sr->settings->mount_base);
    if (symlink(location, temp) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "make link %s", temp);
    if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    fault_errno(f, FAULT_SRUnavailable, "put link %s in place", path);
    unlink(temp);
    return -1;
}

/* path leads to the directory of that identity: it does already, or a link is made that does. */
static int link_lead(const struct sr *sr, const char *location, const char *path, const struct stat *to,
                     struct fault *f)
{
    struct stat now, own;
    if (lstat(path, &own) < 0)
        return errno == ENOENT ? link_make(sr, location, path, f)
                               : fault_errno(f, FAULT_SRUnavailable, "look at %s", path);
    if (stat(path, &now) == 0 && now.st_dev == to->st_dev && now.st_ino == to->st_ino)
        return 0;
    return fault_set(f, FAULT_SRUnavailable,
                     "%s is there already and does not lead to location %.300s; remove it if nothing uses it", path,
                     location);
}

int link_take(struct sr *sr, const char *location, int dir, struct fault *f)
{
    struct stat st;
    AUTO_FD int taken = dir;
    AUTO_FREE char *path = NULL;
    if (fstat(taken, &st) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "look at directory %.300s", location);
    if (asprintf(&path, "%s/%s", sr->settings->mount_base, sr->uuid.text) < 0)
        abort();
    if (link_lead(sr, location, path, &st, f) < 0)
        return -1;
    sr->place = (struct place){.dir = TAKE_FD(taken), .path = TAKE(path), .device = st.st_dev, .inode = st.st_ino};
    return 0;
}

int link_leave(struct sr *sr, const char *location, struct fault *f)
{
    char path[PATH_MAX], target[PATH_MAX];
    if (sr->place.path)
        own_fd(&sr->place.dir);
    free(sr->place.path);
    sr->place = (struct place){.dir = -1};
    snprintf(path, sizeof path, "%s/%s", sr->settings->mount_base, sr->uuid.text);
    ssize_t length = location ? readlink(path, target, sizeof target) : -1;
    if (length < 0 || (size_t) length != strlen(location) || memcmp(target, location, (size_t) length) != 0)
        return 0;
    return unlink(path) < 0 && errno != ENOENT ? fault_errno(f, FAULT_SRInUse, "remove link %s", path) : 0;
}
