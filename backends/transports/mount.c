/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/transports/mount.h"

#include "backends/pulse.h"
#include "backends/tools/mounts.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { LEAVE_ARENA = 64 << 20, MOUNTS_MAX = 1024 };

const char *mount_path(const struct sr *sr, struct arena *a)
{
    char real[PATH_MAX];
    const char *base = realpath(sr->settings->mount_base, real) ? real : sr->settings->mount_base;
    return arena_printf(a, "%s/%s", base, sr->uuid.text);
}

int mount_is_there(const struct sr *sr, const char *source, enum fault_code code, struct arena *a, bool *there,
                   struct fault *f)
{
    struct mounted m;
    const char *path = mount_path(sr, a);
    if (mounts_find(path, a, &m, f) < 0)
        return -1;
    if (m.there && strcmp(m.source, source) != 0)
        return fault_set(f, code, "%s is mounted on %s, where %.200s belongs", m.source, path, source);
    *there = m.there;
    return 0;
}

int mount_take(struct sr *sr, struct fault *f)
{
    struct stat st;
    AUTO_FREE char *path = NULL;
    if (asprintf(&path, "%s/%s", sr->settings->mount_base, sr->uuid.text) < 0)
        abort();
    AUTO_FD int dir = pulse_open_directory(path);
    if (dir < 0 || fstat(dir, &st) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "open directory %s", path);
    sr->place = (struct place){.dir = TAKE_FD(dir), .path = TAKE(path), .device = st.st_dev, .inode = st.st_ino};
    return 0;
}

static void place_close(struct sr *sr)
{
    if (sr->place.path)
        own_fd(&sr->place.dir);
    free(sr->place.path);
    sr->place = (struct place){.dir = -1};
}

int mount_leave(struct sr *sr, const char *source, enum fault_code code, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(LEAVE_ARENA);
    const char *path = mount_path(sr, a);
    struct mounted m;
    place_close(sr);
    if (mounts_find(path, a, &m, f) < 0)
        return -1;
    if (m.there && strcmp(m.source, source) != 0)
        return 0; /* not ours */
    if (m.there && mounts_unmount(path, sr->hold, code, a, f) < 0)
        return -1;
    return mounts_remove_point(path, code, f);
}

int mount_list(const struct backend_settings *settings, struct arena *a, struct mount_trace **out, size_t *count,
               struct fault *f)
{
    AUTO_DIR DIR *entries = opendir(settings->mount_base);
    struct mount_trace *list = ARENA_ARRAY(a, struct mount_trace, MOUNTS_MAX);
    size_t n = 0;
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e && n < MOUNTS_MAX; e = readdir(entries)) {
        struct sr sr = {.settings = settings};
        struct mount_trace *one = &list[n];
        if (!uuid_parse_text(e->d_name, &sr.uuid))
            continue;
        one->sr = sr.uuid;
        if (mounts_find(mount_path(&sr, a), a, &one->mounted, f) < 0)
            return -1;
        n += one->mounted.there;
    }
    *out = list;
    *count = n;
    return 0;
}
