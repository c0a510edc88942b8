/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* here: the SR is a directory of this machine, device_config location. A symbolic link <mount_base>/<sr> leads to it,
   which needs no privilege; a bind mount put there by others serves as well and is left alone. A type whose
   device_config has no location (dummy) has nothing to reach. */
#include "backends/made.h"
#include "backends/probe.h"
#include "backends/temporary.h"
#include "backends/transports/link.h"
#include "backends/transports/transport.h"
#include "backends/types.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { ANCESTORS_MAX = 256 };

static const char *location_of(const struct sr *sr)
{
    return pairs_get(&sr->config, "location");
}

/* ------------------------------------------------------------------ where an SR may stand */

/* A location taken apart: its parent, opened, and its last component. */
struct spot {
    int parent;
    const char *name;
};

static void own_spot(const struct spot *s)
{
    own_fd(&s->parent);
}
#define AUTO_SPOT __attribute__((cleanup(own_spot)))

static bool is_beneath(const char *path, const char *tree)
{
    size_t length = strlen(tree);
    return strncmp(path, tree, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static int refuse_system(const struct sr *sr, const char *path, struct fault *f)
{
    static const char *const trees[] = {"/proc", "/sys", "/dev",  "/etc", "/boot",
                                        "/usr",  "/bin", "/sbin", "/lib", "/lib64"};
    for (size_t i = 0; i < COUNT_OF(trees); i++)
        if (is_beneath(path, trees[i]))
            return fault_set(f, FAULT_InvalidArg, "location %.300s is in %s, which belongs to the system", path,
                             trees[i]);
    if (is_beneath(path, sr->settings->mount_base))
        return fault_set(f, FAULT_InvalidArg, "location %.300s is in %s, where SRs are connected", path,
                         sr->settings->mount_base);
    return 0;
}

/* No directory from dir upwards is an SR itself. */
static int refuse_nested(const struct sr *sr, int dir, struct fault *f)
{
    AUTO_FD int at = fcntl(dir, F_DUPFD_CLOEXEC, 0);
    for (int i = 0; i < ANCESTORS_MAX; i++) {
        struct uuid outer;
        struct stat here, above;
        if (sr->type->layout->recognise(&(struct place){.dir = at}, &outer))
            return fault_set(f, FAULT_InvalidArg, "location %.300s is inside SR %s", location_of(sr), outer.text);
        int up = openat(at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (up < 0 || fstat(at, &here) < 0 || fstat(up, &above) < 0) {
            own_fd(&up);
            return fault_errno(f, FAULT_InvalidArg, "look at what is above location %.300s", location_of(sr));
        }
        close(at);
        at = up;
        if (here.st_ino == above.st_ino && here.st_dev == above.st_dev)
            return 0;
    }
    return fault_set(f, FAULT_InvalidArg, "location %.300s is too deep", location_of(sr));
}

/* Opens the parent (links in it are followed: the administrator chose the path) and checks where it really is. */
static int spot_open(const struct sr *sr, enum fault_code missing, struct spot *out, struct fault *f)
{
    const char *location = location_of(sr), *slash = strrchr(location, '/');
    char parent[PATH_MAX], real[PATH_MAX + NAME_MAX + 2];
    if (!slash[1])
        return fault_set(f, FAULT_InvalidArg, "location is /, the root of the system");
    snprintf(parent, sizeof parent, "%.*s", slash == location ? 1 : (int) (slash - location), location);
    AUTO_FD int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || !realpath(parent, real))
        return fault_errno(f, missing, "open %.300s, where location %s should be", parent, slash + 1);
    snprintf(real + strlen(real), sizeof real - strlen(real), "%s%s", strcmp(real, "/") ? "/" : "", slash + 1);
    if (refuse_system(sr, real, f) < 0 || refuse_nested(sr, fd, f) < 0)
        return -1;
    *out = (struct spot){.parent = TAKE_FD(fd), .name = slash + 1};
    return 0;
}

/* ------------------------------------------------------------------ create, destroy */

/* A directory that is there already must be empty and writable. */
static int take_directory(const struct sr *sr, int dir, struct fault *f)
{
    char name[NAME_MAX + 1];
    if (made_first_entry(dir, "", name) < 0)
        return fault_errno(f, FAULT_FileSRCreate, "list %.300s", location_of(sr));
    if (name[0])
        return fault_set(f, FAULT_SRExists, "%.300s is not empty: it holds %s", location_of(sr), name);
    if (faccessat(dir, ".", W_OK | X_OK, AT_EACCESS) < 0)
        return fault_errno(f, FAULT_FileSRCreate, "%.300s cannot be written", location_of(sr));
    return 0;
}

static int here_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_SPOT struct spot spot = {-1, NULL};
    if (!location_of(sr))
        return 0;
    if (spot_open(sr, FAULT_FileSRCreate, &spot, f) < 0)
        return -1;
    AUTO_FD int dir = made_open(spot.parent, spot.name);
    if (dir < 0 && errno != ENOENT)
        return fault_errno(f, FAULT_FileSRCreate, "open directory %.300s", location_of(sr));
    if (dir < 0 && made_make(spot.parent, spot.name, plan) < 0)
        return fault_errno(f, FAULT_FileSRCreate, "make %.300s", location_of(sr));
    if (dir >= 0 && take_directory(sr, dir, f) < 0)
        return -1;
    return POINT(sr_create_made) < 0 ? fault_errno(f, FAULT_FileSRCreate, "make %.300s", location_of(sr)) : 0;
}

static int here_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_SPOT struct spot spot = {-1, NULL};
    struct uuid marked;
    if (!location_of(sr))
        return 0;
    if (spot_open(sr, FAULT_FileSRRmdir, &spot, f) < 0)
        return f->code == FAULT_InvalidArg || strcmp(plan->method, "sr_create") == 0 ? 0
                                                                                     : -1; /* create refused it too */
    AUTO_FD int dir = made_open(spot.parent, spot.name);
    if (dir >= 0 && sr->type->layout->recognise(&(struct place){.dir = dir}, &marked) && uuid_equal(&marked, &sr->uuid))
        return fault_set(f, FAULT_FileSRRmdir, "%.300s still is marked as SR %s", location_of(sr), sr->uuid.text);
    if (made_remove(spot.parent, spot.name, plan) < 0)
        return fault_errno(f, FAULT_FileSRRmdir, "remove directory %.300s", location_of(sr));
    return 0;
}

/* ------------------------------------------------------------------ connect, disconnect */

static int here_connect(struct sr *sr, struct fault *f)
{
    AUTO_SPOT struct spot spot = {-1, NULL};
    if (!location_of(sr) || sr->place.path)
        return 0;
    if (spot_open(sr, FAULT_SRUnavailable, &spot, f) < 0)
        return -1;
    AUTO_FD int dir = made_open(spot.parent, spot.name);
    if (dir < 0)
        return fault_errno(f, FAULT_SRUnavailable, "open directory %.300s", location_of(sr));
    return link_take(sr, location_of(sr), TAKE_FD(dir), f);
}

static int here_disconnect(struct sr *sr, struct fault *f)
{
    return link_leave(sr, location_of(sr), f);
}

/* ------------------------------------------------------------------ probe */

static int here_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                      const struct backend_settings *settings, struct arena *a, struct found_list *out, struct fault *f)
{
    (void) secrets, (void) settings;
    const char *location = pairs_get(config, "location");
    if (location) {
        AUTO_FD int top = open(location, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (top < 0)
            return fault_errno(f, FAULT_SRUnavailable, "open directory %.300s", location);
        probe_directory(layout, top, location, a, out);
        if (probe_below(layout, top, location, a, out) < 0)
            return fault_errno(f, FAULT_SRUnavailable, "list %.300s", location);
    }
    return 0;
}

/* ------------------------------------------------------------------ find */

/* Where a daemon had connected a directory, a link still leads there. */
static int here_find(const struct layout *layout, const struct backend_settings *settings, struct arena *a,
                     struct trace_list *out, struct fault *f)
{
    AUTO_DIR DIR *entries = opendir(settings->mount_base);
    char target[PATH_MAX];
    struct uuid uuid;
    (void) layout, (void) f;
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries)) {
        ssize_t length = readlinkat(dirfd(entries), e->d_name, target, sizeof target);
        if (length <= 0 || length == (ssize_t) sizeof target || !uuid_parse_text(e->d_name, &uuid))
            continue;
        const struct pair location = {"location", arena_copy(a, target, (size_t) length)};
        trace_add(a, out, &uuid, &location, 1);
    }
    return 0;
}

const struct transport transport_here = {
    .name = "here",
    .create = here_create,
    .destroy = here_destroy,
    .connect = here_connect,
    .disconnect = here_disconnect,
    .find = here_find,
    .probe = here_probe,
};
