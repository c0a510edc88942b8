/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/tools/multipath.h"

#include "backends/scsi/sysfs.h"
#include "backends/tools/dm.h"
#include "server/base/cmd.h"
#include "server/base/own.h"
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MULTIPATHD "/sbin/multipathd"
#define MULTIPATH  "/sbin/multipath"
#define PREFIX     "mpath-" /* of the uuids its maps have */

enum { SECONDS = 30, PATHS_MAX = 256 };

/* Its socket, in the abstract namespace. */
static const char socket_name[] = "\0/org/kernel/linux/storage/multipathd";

bool multipath_runs(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_name, sizeof socket_name - 1);
    socklen_t length = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + sizeof socket_name - 1);
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && access(MULTIPATHD, X_OK) == 0 && connect(fd, (const struct sockaddr *) &address, length) == 0;
}

/* ------------------------------------------------------------------ sysfs */

/* "mpath-…" of a map; "" of any other device. */
static const char *map_uuid(const char *name, struct arena *a)
{
    const char *uuid = sysfs_text(a, arena_printf(a, "%s/class/block/%s/dm/uuid", scsi_sysfs, name));
    return strncmp(uuid, PREFIX, strlen(PREFIX)) == 0 ? uuid : "";
}

const char *multipath_over(const char *path, struct arena *a)
{
    AUTO_DIR DIR *holders = opendir(arena_printf(a, "%s/class/block/%s/holders", scsi_sysfs, path));
    for (const struct dirent *e = holders ? readdir(holders) : NULL; e; e = readdir(holders))
        if (e->d_name[0] != '.' && map_uuid(e->d_name, a)[0])
            return arena_text(a, e->d_name);
    return "";
}

size_t multipath_paths(const char *map, struct arena *a, const char ***out)
{
    const char **names = ARENA_ARRAY(a, const char *, PATHS_MAX);
    size_t count = 0;
    AUTO_DIR DIR *slaves = opendir(arena_printf(a, "%s/class/block/%s/slaves", scsi_sysfs, map));
    for (const struct dirent *e = slaves ? readdir(slaves) : NULL; e && count < PATHS_MAX; e = readdir(slaves))
        if (e->d_name[0] != '.' && access(arena_printf(a, "%s/class/block/%s", scsi_sysfs, e->d_name), F_OK) == 0)
            names[count++] = arena_text(a, e->d_name);
    *out = names;
    return count;
}

bool multipath_is(const char *map, const char *id, struct arena *a)
{
    return strcmp(map_uuid(map, a), arena_printf(a, PREFIX "%s", id)) == 0;
}

static uint64_t sectors(const char *name)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    return sysfs_number(a, arena_printf(a, "%s/class/block/%s/size", scsi_sysfs, name));
}

/* ------------------------------------------------------------------ commands */

/* What it says tells whether it did; that may come with any status. */
static int ask(const char *const *argv, const char *wanted, int hold, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(32 << 20);
    struct cmd_result r = {0};
    const struct cmd cmd = {.argv = argv, .seconds = SECONDS, .hold = hold};
    if (cmd_run(&cmd, a, &r, f) < 0)
        return -1;
    if (r.status == 0 && !r.timed_out && strncmp(r.out, wanted, strlen(wanted)) == 0)
        return 0;
    return fault_set(f, FAULT_ISCSIDevice, "multipathd does not %s %s %s: %s", argv[1], argv[2], argv[3],
                     cmd_failure(&cmd, &r, a));
}

int multipath_knows(const char *path, int hold, struct fault *f)
{
    return ask((const char *const[]){MULTIPATHD, "show", "path", path, NULL}, "running", hold, f);
}

int multipath_add(const char *id, int hold, struct fault *f)
{
    return ask((const char *const[]){MULTIPATHD, "add", "map", id, NULL}, "ok", hold, f);
}

int multipath_resize(const char *map, const char *path, int hold, struct fault *f)
{
    return sectors(map) == sectors(path)
               ? 0
               : ask((const char *const[]){MULTIPATHD, "resize", "map", map, NULL}, "ok", hold, f);
}

int multipath_drop_path(const char *path, int hold, struct fault *f)
{
    return ask((const char *const[]){MULTIPATHD, "remove", "path", path, NULL}, "ok", hold, f);
}

/* The kernel fails at once what finds no path, however long multipathd is to have it kept. */
static void fail_pathless(const char *uuid)
{
    struct fault ignored;
    if (uuid[0])
        dm_tell(uuid, "fail_if_no_path", &ignored);
}

void multipath_fail(const char *map, int hold)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    struct fault ignored;
    fail_pathless(map_uuid(map, a));
    if (multipath_runs()) /* which would have it kept again as soon as a path goes */
        ask((const char *const[]){MULTIPATHD, "disablequeueing", "map", map, NULL}, "ok", hold, &ignored);
}

/* multipath notes disks that have a map, so that their paths are taken for paths as soon as they appear. */
static void forget(const char *id, int hold)
{
    AUTO_ARENA struct arena *a = arena_new(32 << 20);
    struct cmd_result ignored = {0};
    struct fault why;
    const char *const argv[] = {MULTIPATH, "-w", id, NULL};
    const struct cmd cmd = {.argv = argv, .seconds = SECONDS, .hold = hold};
    cmd_run(&cmd, a, &ignored, &why); /* a note too many is harmless */
}

int multipath_remove(const char *map, const char *id, int hold, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    struct fault why;
    const char *uuid = map_uuid(map, a);
    forget(id, hold);    /* first: without the map nobody would know that there is a note */
    fail_pathless(uuid); /* else who looks at a map without paths keeps it open */
    if (uuid[0] && dm_remove(uuid, &why) < 0)
        return fault_set(f, FAULT_SRInUse, "map %s of disk %s does not go: %s", map, id, why.detail);
    return 0;
}
