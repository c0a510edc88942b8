/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* here: the SR is a directory of this machine, device_config location. A symbolic link <mount_base>/<sr> leads to it,
   which needs no privilege; a bind mount put there by others serves as well and is left alone. A type whose
   device_config has no location (dummy) has nothing to reach. */
#include "backends/directory.h"
#include "backends/temporary.h"
#include "backends/transports/transport.h"
#include "backends/types.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { ANCESTORS_MAX = 256, PROBE_ENTRIES_MAX = 4096, PROBE_FOUND_MAX = 256 };

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

static int open_directory(int parent, const char *name)
{
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* ------------------------------------------------------------------ create, destroy */

/* The first entry of dir that is neither "lost+found" nor spared, "" when there is none. -1 with errno. */
static int first_entry(int dir, const char *spared, char out[NAME_MAX + 1])
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

/* A directory that is there already must be empty and writable. */
static int take_directory(const struct sr *sr, int dir, struct fault *f)
{
    char name[NAME_MAX + 1];
    if (first_entry(dir, "", name) < 0)
        return fault_errno(f, FAULT_FileSRCreate, "list %.300s", location_of(sr));
    if (name[0])
        return fault_set(f, FAULT_SRExists, "%.300s is not empty: it holds %s", location_of(sr), name);
    if (faccessat(dir, ".", W_OK | X_OK, AT_EACCESS) < 0)
        return fault_errno(f, FAULT_FileSRCreate, "%.300s cannot be written", location_of(sr));
    return 0;
}

/* An empty file in dir that says: this operation made the directory. */
static int leave_note(int dir, const struct uuid *op, const struct uuid *sr)
{
    char name[TEMPORARY_NAME];
    temporary_name(name, op, TEMPORARY_MADE, sr);
    AUTO_FD int fd = io_open_beneath(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    return fd < 0 || fsync(dir) < 0 ? -1 : 0;
}

/* The directory appears under its name at once with the note in it, so that a crash never leaves one of which nobody
   knows who made it. */
static int make_directory(const struct sr *sr, const struct plan *plan, const struct spot *spot, struct fault *f)
{
    char temp[TEMPORARY_NAME];
    temporary_name(temp, &plan->op, TEMPORARY_NEW, &sr->uuid);
    if (mkdirat(spot->parent, temp, 0700) < 0)
        return fault_errno(f, FAULT_FileSRCreate, "make %.300s", location_of(sr));
    AUTO_FD int dir = open_directory(spot->parent, temp);
    if (dir < 0 || leave_note(dir, &plan->op, &sr->uuid) < 0)
        return fault_errno(f, FAULT_FileSRCreate, "make %.300s", location_of(sr));
    if (renameat2(spot->parent, temp, spot->parent, spot->name, RENAME_NOREPLACE) < 0 || fsync(spot->parent) < 0)
        return fault_errno(f, FAULT_FileSRCreate, "give %.300s its name", location_of(sr));
    return 0;
}

static int here_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_SPOT struct spot spot = {-1, NULL};
    if (!location_of(sr))
        return 0;
    if (spot_open(sr, FAULT_FileSRCreate, &spot, f) < 0)
        return -1;
    AUTO_FD int dir = open_directory(spot.parent, spot.name);
    if (dir < 0 && errno != ENOENT)
        return fault_errno(f, FAULT_FileSRCreate, "open directory %.300s", location_of(sr));
    if ((dir < 0 ? make_directory(sr, plan, &spot, f) : take_directory(sr, dir, f)) < 0)
        return -1;
    return POINT(sr_create_made) < 0 ? fault_errno(f, FAULT_FileSRCreate, "make %.300s", location_of(sr)) : 0;
}

/* Removes a directory that holds nothing, or nothing but the operation's note. Success when it is not there. */
static int remove_directory(int parent, const char *name, const char *note)
{
    AUTO_FD int dir = open_directory(parent, name);
    if (dir < 0)
        return errno == ENOENT ? 0 : -1;
    if (unlinkat(dir, note, 0) < 0 && errno != ENOENT)
        return -1;
    return unlinkat(parent, name, AT_REMOVEDIR);
}

/* What this operation was about to publish, and what it had already doomed. */
static int remove_remains(const struct spot *spot, const struct plan *plan, const char *note)
{
    char temp[TEMPORARY_NAME];
    temporary_name(temp, &plan->op, TEMPORARY_NEW, &plan->sr);
    if (remove_directory(spot->parent, temp, note) < 0)
        return -1;
    temporary_name(temp, &plan->op, TEMPORARY_DEL, &plan->sr);
    return remove_directory(spot->parent, temp, note);
}

/* The directory with the note in it, renamed first: once the note is gone nothing would tell that it may go. */
static int doom_directory(const struct spot *spot, const struct plan *plan, int dir, const char *note)
{
    char name[NAME_MAX + 1], temp[TEMPORARY_NAME];
    temporary_name(temp, &plan->op, TEMPORARY_DEL, &plan->sr);
    if (faccessat(dir, note, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -1;
    if (first_entry(dir, note, name) < 0)
        return -1;
    if (!name[0] && renameat(spot->parent, spot->name, spot->parent, temp) == 0)
        return fsync(spot->parent);
    if (!name[0] && errno != EBUSY)
        return -1;
    return unlinkat(dir, note, 0); /* something came into it, or something is mounted on it: it stays */
}

static int here_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_SPOT struct spot spot = {-1, NULL};
    char note[TEMPORARY_NAME];
    struct uuid marked;
    if (!location_of(sr))
        return 0;
    if (spot_open(sr, FAULT_FileSRRmdir, &spot, f) < 0)
        return f->code == FAULT_InvalidArg || strcmp(plan->method, "sr_create") == 0 ? 0
                                                                                     : -1; /* create refused it too */
    temporary_name(note, &plan->op, TEMPORARY_MADE, &plan->sr);
    AUTO_FD int dir = open_directory(spot.parent, spot.name);
    if (dir < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
        return fault_errno(f, FAULT_FileSRRmdir, "open directory %.300s", location_of(sr));
    if (dir >= 0 && sr->type->layout->recognise(&(struct place){.dir = dir}, &marked) && uuid_equal(&marked, &sr->uuid))
        return fault_set(f, FAULT_FileSRRmdir, "%.300s still is marked as SR %s", location_of(sr), sr->uuid.text);
    if ((dir >= 0 && doom_directory(&spot, plan, dir, note) < 0) || remove_remains(&spot, plan, note) < 0 ||
        fsync(spot.parent) < 0)
        return fault_errno(f, FAULT_FileSRRmdir, "remove directory %.300s", location_of(sr));
    return 0;
}

/* ------------------------------------------------------------------ connect, disconnect */

static int link_make(const struct sr *sr, const char *path, struct fault *f)
{
    char temp[PATH_MAX], name[TEMPORARY_NAME];
    struct uuid once = uuid_random();
    temporary_name(name, &once, TEMPORARY_LINK, &sr->uuid);
    snprintf(temp, sizeof temp, "%s/%s", sr->settings->mount_base, name);
    if (mkdir(sr->settings->mount_base, 0755) < 0 && errno != EEXIST)
        return fault_errno(f, FAULT_SRUnavailable, "make %s", sr->settings->mount_base);
    if (symlink(location_of(sr), temp) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "make link %s", temp);
    if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    fault_errno(f, FAULT_SRUnavailable, "put link %s in place", path);
    unlink(temp);
    return -1;
}

/* path leads to the directory of that identity: it does already, or a link is made that does. */
static int link_lead(const struct sr *sr, const char *path, const struct stat *to, struct fault *f)
{
    struct stat now, own;
    if (lstat(path, &own) < 0)
        return errno == ENOENT ? link_make(sr, path, f) : fault_errno(f, FAULT_SRUnavailable, "look at %s", path);
    if (stat(path, &now) == 0 && now.st_dev == to->st_dev && now.st_ino == to->st_ino)
        return 0;
    return fault_set(f, FAULT_SRUnavailable,
                     "%s is there already and does not lead to location %.300s; remove it if nothing uses it", path,
                     location_of(sr));
}

static int here_connect(struct sr *sr, struct fault *f)
{
    AUTO_SPOT struct spot spot = {-1, NULL};
    struct stat st;
    if (!location_of(sr) || sr->place.path)
        return 0;
    if (spot_open(sr, FAULT_SRUnavailable, &spot, f) < 0)
        return -1;
    AUTO_FD int dir = open_directory(spot.parent, spot.name);
    if (dir < 0 || fstat(dir, &st) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "open directory %.300s", location_of(sr));
    AUTO_FREE char *path = NULL;
    if (asprintf(&path, "%s/%s", sr->settings->mount_base, sr->uuid.text) < 0)
        abort();
    if (link_lead(sr, path, &st, f) < 0)
        return -1;
    sr->place = (struct place){.dir = TAKE_FD(dir), .path = TAKE(path), .device = st.st_dev, .inode = st.st_ino};
    return 0;
}

/* Only a link that says what ours says is ours. */
static int here_disconnect(struct sr *sr, struct fault *f)
{
    char path[PATH_MAX], target[PATH_MAX];
    const char *location = location_of(sr);
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

/* ------------------------------------------------------------------ probe */

static void probe_directory(const struct layout *layout, int dir, const char *path, struct arena *a,
                            struct found_list *out)
{
    struct uuid uuid;
    struct statvfs fs;
    if (out->count >= PROBE_FOUND_MAX || !layout->recognise(&(struct place){.dir = dir}, &uuid))
        return;
    uint64_t size = fstatvfs(dir, &fs) == 0 ? (uint64_t) fs.f_blocks * fs.f_frsize : 0;
    found_add(a, out, (struct found_sr){.uuid = uuid, .path = arena_text(a, path), .size = size});
}

static int probe_below(const struct layout *layout, int top, const char *location, struct arena *a,
                       struct found_list *out)
{
    AUTO_DIR DIR *entries = directory_entries(top);
    if (!entries)
        return -1;
    int left = PROBE_ENTRIES_MAX;
    for (const struct dirent *e = readdir(entries); e && left > 0; e = readdir(entries), left--) {
        if (e->d_name[0] == '.' || (e->d_type != DT_DIR && e->d_type != DT_UNKNOWN))
            continue;
        AUTO_FD int dir = open_directory(top, e->d_name);
        if (dir >= 0)
            probe_directory(layout, dir, arena_printf(a, "%s/%s", strcmp(location, "/") ? location : "", e->d_name), a,
                            out);
    }
    return 0;
}

static int here_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                      const struct backend_settings *settings, struct arena *a, struct found_list *out, struct fault *f)
{
    (void) secrets, (void) settings;
    struct found_list found = {0};
    const char *location = pairs_get(config, "location");
    if (location) {
        AUTO_FD int top = open(location, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (top < 0)
            return fault_errno(f, FAULT_SRUnavailable, "open directory %.300s", location);
        probe_directory(layout, top, location, a, &found);
        if (probe_below(layout, top, location, a, &found) < 0)
            return fault_errno(f, FAULT_SRUnavailable, "list %.300s", location);
    }
    *out = found;
    return 0;
}

const struct transport transport_here = {
    .name = "here",
    .create = here_create,
    .destroy = here_destroy,
    .connect = here_connect,
    .disconnect = here_disconnect,
    .probe = here_probe,
};
