/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/probe.h"

#include "backends/directory.h"
#include "backends/made.h"
#include <string.h>
#include <sys/statvfs.h>

enum { ENTRIES_MAX = 4096, FOUND_MAX = 256 };

static uint64_t size_of(int dir)
{
    struct statvfs fs;
    return fstatvfs(dir, &fs) == 0 ? (uint64_t) fs.f_blocks * fs.f_frsize : 0;
}

void probe_place(const struct layout *layout, const struct place *place, const char *path, uint64_t size,
                 struct arena *a, struct found_list *out)
{
    struct found_sr sr = {.size = size};
    if (!layout->recognise || !layout->recognise(place, &sr.uuid))
        return;
    sr.path = arena_text(a, path);
    if (place->dir >= 0)
        sr.size = size_of(place->dir);
    if (out->metadata && layout->sr_describe)
        layout->sr_describe(place, &sr.uuid, a, &sr);
    found_add(a, out, sr);
}

void probe_directory(const struct layout *layout, int dir, const char *path, struct arena *a, struct found_list *out)
{
    if (out->count < FOUND_MAX)
        probe_place(layout, &(struct place){.dir = dir}, path, 0, a, out);
}

int probe_below(const struct layout *layout, int top, const char *path, struct arena *a, struct found_list *out)
{
    AUTO_DIR DIR *entries = directory_entries(top);
    if (!entries)
        return -1;
    int left = ENTRIES_MAX;
    for (const struct dirent *e = readdir(entries); e && left > 0; e = readdir(entries), left--) {
        if (e->d_name[0] == '.' || (e->d_type != DT_DIR && e->d_type != DT_UNKNOWN))
            continue;
        AUTO_FD int dir = made_open(top, e->d_name);
        if (dir >= 0)
            probe_directory(layout, dir, arena_printf(a, "%s/%s", strcmp(path, "/") ? path : "", e->d_name), a, out);
    }
    return 0;
}
