/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A LUN that several sessions show is one disk: by a map over all of them where multipathd makes one, else by the first
   session alone. One that multipathd takes by its own configuration is reached by its map too. */
#include "backends/tools/multipath.h"
#include "backends/transports/iscsi.h"
#include "server/base/clock.h"
#include "server/base/point.h"
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MAP_NS   (15 * INT64_C(1000000000))
#define LEARN_NS (3 * INT64_C(1000000000))

static bool same_lun(const struct scsi_disk *a, const struct scsi_disk *b)
{
    return strcmp(a->id, b->id) == 0;
}

static size_t paths_of(const struct scsi_disk *disks, size_t count, const struct scsi_disk *lun)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += same_lun(&disks[i], lun);
    return n;
}

/* The map over any of the LUN's paths; "" without. */
static const char *map_over(const struct scsi_disk *disks, size_t count, const struct scsi_disk *lun, struct arena *a)
{
    const char *map = "";
    for (size_t i = 0; i < count && !map[0]; i++)
        if (same_lun(&disks[i], lun))
            map = multipath_over(disks[i].name, a);
    return map;
}

/* A map is over all the LUN's paths. */
static bool is_mapped(const struct iscsi_want *w, const struct scsi_disk *disks, size_t count,
                      const struct scsi_disk *lun)
{
    bool all = true;
    for (size_t i = 0; i < count && all; i++)
        all = !same_lun(&disks[i], lun) || multipath_over(disks[i].name, w->arena)[0];
    return all;
}

/* udevd is done with all paths of the LUN, and has told those who listen. Where none runs there is nothing to wait for.
 */
static bool udev_knows(const struct iscsi_want *w, const struct scsi_disk *disks, size_t count,
                       const struct scsi_disk *lun)
{
    struct stat st;
    bool all = true, runs = access("/run/udev/control", F_OK) == 0;
    for (size_t i = 0; i < count && runs && all; i++)
        all = !same_lun(&disks[i], lun) || stat(arena_printf(w->arena, "/dev/%s", disks[i].name), &st) < 0 ||
              access(arena_printf(w->arena, "/run/udev/data/b%u:%u", major(st.st_rdev), minor(st.st_rdev)), F_OK) == 0;
    return all;
}

typedef int question(const char *what, int hold, struct fault *f);

/* multipathd learns of paths from udevd, in its own time: what it denies for some seconds longer it does not want. */
static bool affirms(const struct iscsi_want *w, const struct scsi_disk *disks, size_t count,
                    const struct scsi_disk *lun, int events, question *ask, const char *what)
{
    struct fault why;
    int64_t until = clock_boot_ns() + MAP_NS;
    while (ask(what, w->who.hold, &why) < 0) {
        int64_t now = clock_boot_ns();
        if (now >= until)
            return false;
        if (udev_knows(w, disks, count, lun) && until > now + LEARN_NS)
            until = now + LEARN_NS;
        scsi_events_wait(events, until);
    }
    return true;
}

/* All paths join within seconds; those that do not may come later. *refused: multipathd makes none. Of one path the
   configuration decides: a map's is given up sooner. */
static int make_map(const struct iscsi_want *w, const struct scsi_disk *disks, size_t count,
                    const struct scsi_disk *lun, bool *refused, struct fault *f)
{
    AUTO_FD int events = scsi_events_open();
    bool runs = multipath_runs();
    if (is_mapped(w, disks, count, lun))
        return 0;
    if (!w->who.multipath && paths_of(disks, count, lun) == 1) {
        if (runs)
            affirms(w, disks, count, lun, events, multipath_knows, lun->name);
        return 0;
    }
    if (runs && affirms(w, disks, count, lun, events, multipath_add, lun->id)) {
        int64_t until = clock_boot_ns() + MAP_NS;
        while (!is_mapped(w, disks, count, lun) && clock_boot_ns() < until)
            scsi_events_wait(events, until);
        if (POINT(multipath_mapped) < 0)
            return fault_errno(f, FAULT_ISCSIDevice, "make the map of LUN %s", lun->id);
    }
    *refused = !map_over(disks, count, lun, w->arena)[0];
    return 0;
}

static int make_maps(const struct iscsi_want *w, const struct scsi_disk *disks, size_t count, bool *refused,
                     struct fault *f)
{
    for (size_t i = 0; i < count && !*refused; i++)
        if (make_map(w, disks, count, &disks[i], refused, f) < 0)
            return -1;
    return 0;
}

/* Sizes are read again where a session was there before: the LUN may have grown since. */
static int renew_sizes(const struct iscsi_want *w, const struct scsi_disk *disks, size_t count, struct fault *f)
{
    for (size_t i = 0; i < count && !w->fresh; i++)
        if (scsi_rescan(disks[i].name, f) < 0)
            return -1;
    for (size_t i = 0; i < count && !w->fresh && w->paths; i++) {
        const char *map = multipath_over(disks[i].name, w->arena);
        if (map[0] && multipath_resize(map, disks[i].name, w->who.hold, f) < 0)
            return -1;
    }
    return 0;
}

size_t iscsi_each_lun_once(struct scsi_disk *disks, size_t count, struct arena *a)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (paths_of(disks, n, &disks[i]))
            continue;
        const char *map = map_over(disks + i, count - i, &disks[i], a);
        disks[n] = disks[i];
        if (map[0])
            disks[n].name = map;
        n++;
    }
    return n;
}

const char *iscsi_linked_map(const char *link, struct arena *a)
{
    char path[64] = "";
    const char *map = path + strlen(ISCSI_DEV);
    if (readlink(link, path, sizeof path - 1) < 0 || strncmp(path, ISCSI_DEV, strlen(ISCSI_DEV)) != 0)
        return "";
    return multipath_is(map, strrchr(link, '/') + 1, a) ? arena_text(a, map) : "";
}

int iscsi_gather(struct iscsi_want *w, struct scsi_disk **out, size_t *count, struct fault *f)
{
    bool refused = false;
    if (iscsi_disks(w, out, count, f) < 0 || (w->paths && make_maps(w, *out, *count, &refused, f) < 0))
        return -1;
    if (refused && (iscsi_keep_one(w, f) < 0 || iscsi_disks(w, out, count, f) < 0))
        return -1;
    if (renew_sizes(w, *out, *count, f) < 0)
        return -1;
    if (w->paths)
        *count = iscsi_each_lun_once(*out, *count, w->arena);
    return 0;
}
