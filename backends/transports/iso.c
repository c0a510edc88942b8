/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iso: a directory of discs that others look after, and that is never made nor removed here. device_config says where:
   legacy_mode=true      location is a directory of this machine, and <mount_base>/<sr> a link to it;
   type=cifs             location is \\server\share (or with slashes), mounted on <mount_base>/<sr>;
   type=nfs_iso or none  location is server:/path, mounted there.
   iso_path, if given, is a directory beneath, and the place. No probe: a location is an SR by being named as one. */
#include "backends/kinds.h"
#include "backends/tools/mounts.h"
#include "backends/tools/nfs.h"
#include "backends/tools/smb.h"
#include "backends/transports/link.h"
#include "backends/transports/mount.h"
#include "backends/transports/transport.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { JOB_ARENA = 64 << 20 };

enum reach { BY_LINK, BY_NFS, BY_SMB };

/* A location understood. */
struct library {
    enum reach reach;
    const char *source; /* as the kernel's list of mounts has it; BY_LINK: the directory */
    struct nfs_source nfs;
    struct smb_source smb;
};

static const char *value_of(const struct sr *sr, const char *key)
{
    const char *value = pairs_get(&sr->config, key);
    return value ? value : "";
}

/* ------------------------------------------------------------------ what a location means */

static int wrong_location(const struct sr *sr, const char *form, struct fault *f)
{
    return fault_set(f, FAULT_ISOLocationStringError, "location \"%.200s\" is not of the form %s",
                     value_of(sr, "location"), form);
}

static bool is_kind(const char *kind, const char *text)
{
    return text[0] && !config_kind_find(kind)->bad(text);
}

/* "server:/path", with brackets around an address of IPv6. */
static int understand_nfs(const struct sr *sr, struct arena *a, struct library *out, struct fault *f)
{
    const char *location = value_of(sr, "location"), *path = strstr(location, ":/");
    const char *version = value_of(sr, "nfsversion");
    if (!path)
        return wrong_location(sr, "SERVER:PATH", f);
    bool bracketed = location[0] == '[' && path > location && path[-1] == ']';
    const char *server = bracketed ? arena_copy(a, location + 1, (size_t) (path - location) - 2)
                                   : arena_copy(a, location, (size_t) (path - location));
    if (!is_kind("host", server) || !is_kind("export", path + 1))
        return wrong_location(sr, "SERVER:PATH", f);
    out->nfs = (struct nfs_source){.server = server,
                                   .path = path + 1,
                                   .version = version[0] ? version : "3",
                                   .options = value_of(sr, "options"),
                                   .hold = sr->hold};
    out->source = nfs_source_text(&out->nfs, a);
    return 0;
}

static struct secret password_of(const struct sr *sr)
{
    for (size_t i = 0; sr->secrets && i < sr->secrets->count; i++)
        if (strcmp(sr->secrets->items[i].key, "cifspassword") == 0)
            return sr->secrets->items[i].value;
    return (struct secret){NULL};
}

/* "//server/share" and more: at least two components, none of them "." or "..", and no comma, which mount.cifs takes
   for the end of an option. */
static bool is_share(const char *share)
{
    const char *second = share[0] == '/' ? strchr(share + 2, '/') : NULL;
    char server[256];
    if (!second || !second[1] || (size_t) (second - share - 2) >= sizeof server || strchr(share, ','))
        return false;
    snprintf(server, sizeof server, "%.*s", (int) (second - share - 2), share + 2);
    return is_kind("host", server) && is_kind("path", share + 1);
}

static int understand_smb(const struct sr *sr, struct arena *a, struct library *out, struct fault *f)
{
    const char *version = value_of(sr, "vers");
    char *share = arena_text(a, value_of(sr, "location"));
    for (char *c = share; *c; c++)
        *c = *c == '\\' ? '/' : *c;
    if (strncmp(share, "//", 2) != 0 || !is_share(share))
        return wrong_location(sr, "\\\\SERVER\\PATH", f);
    out->smb = (struct smb_source){.share = share,
                                   .version = version[0] ? version : "3.0",
                                   .user = value_of(sr, "username"),
                                   .password = password_of(sr),
                                   .options = value_of(sr, "options"),
                                   .hold = sr->hold};
    out->source = share;
    return 0;
}

static int understand(const struct sr *sr, struct arena *a, struct library *out, struct fault *f)
{
    struct library l = {.source = value_of(sr, "location")};
    if (strcmp(value_of(sr, "legacy_mode"), "true") == 0) {
        l.reach = BY_LINK;
        if (!is_kind("path", l.source))
            return fault_set(f, FAULT_ISOLocalPath, "location \"%.200s\" is no path of a directory", l.source);
    } else if (strcmp(value_of(sr, "type"), "cifs") == 0) {
        l.reach = BY_SMB;
        if (understand_smb(sr, a, &l, f) < 0)
            return -1;
    } else {
        l.reach = BY_NFS;
        if (understand_nfs(sr, a, &l, f) < 0)
            return -1;
    }
    *out = l;
    return 0;
}

/* ------------------------------------------------------------------ connect */

/* Codes of nfs stand for an SR of that type; here the same failures have others. */
static int mount_nfs(const struct library *l, const char *path, struct arena *a, struct fault *f)
{
    if (nfs_reach(l->nfs.server, f) == 0 && nfs_mount(&l->nfs, path, a, f) == 0)
        return 0;
    if (f->code == FAULT_ConfigServerPathBad)
        f->code = FAULT_ISOSharenameFailure;
    else if (f->code == FAULT_NFSMount || f->code == FAULT_NFSTarget || f->code == FAULT_NFSVersion)
        f->code = FAULT_ISOMountFailure;
    return -1;
}

static int mount_library(struct sr *sr, const struct library *l, struct arena *a, struct fault *f)
{
    const char *path = mount_path(sr, a);
    if (mounts_make_point(sr->settings->mount_base, path, FAULT_ISOMountFailure, f) < 0)
        return -1;
    if (POINT(mount_point_made) < 0)
        return fault_errno(f, FAULT_ISOMountFailure, "mount %s", path);
    if ((l->reach == BY_NFS ? mount_nfs(l, path, a, f) : smb_mount(&l->smb, path, a, f)) < 0)
        return -1;
    return POINT(mount_done) < 0 ? fault_errno(f, FAULT_ISOMountFailure, "mount %s", path) : 0;
}

/* iso_path, a directory beneath the one that is connected, becomes the place. */
static int descend(struct sr *sr, bool local, struct fault *f)
{
    const char *below = value_of(sr, "iso_path") + strspn(value_of(sr, "iso_path"), "/");
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    struct stat st;
    if (!below[0])
        return 0;
    AUTO_FD int dir = (int) syscall(SYS_openat2, sr->place.dir, below, &how, sizeof how);
    if (dir < 0 || fstat(dir, &st) < 0)
        return fault_errno(f, local ? FAULT_ISOLocalPath : FAULT_ISOSharenameFailure, "open iso_path %.200s", below);
    AUTO_FREE char *path = NULL;
    if (asprintf(&path, "%s/%s", sr->place.path, below) < 0)
        abort();
    close(sr->place.dir);
    free(sr->place.path);
    sr->place = (struct place){.dir = TAKE_FD(dir), .path = TAKE(path), .device = st.st_dev, .inode = st.st_ino};
    return 0;
}

static int connect_local(struct sr *sr, const char *location, struct fault *f)
{
    AUTO_FD int dir = open(location, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return fault_errno(f, FAULT_ISOLocalPath, "open directory %.300s", location);
    return link_take(sr, location, TAKE_FD(dir), f);
}

static int leave(struct sr *sr, const struct library *l, struct fault *f)
{
    return l->reach == BY_LINK ? link_leave(sr, l->source, f) : mount_leave(sr, l->source, FAULT_ISOUnmountFailure, f);
}

static int connect_library(struct sr *sr, const struct library *l, struct arena *a, struct fault *f)
{
    bool there;
    if (l->reach == BY_LINK)
        return connect_local(sr, l->source, f);
    if (mount_is_there(sr, l->source, FAULT_ISOMountFailure, a, &there, f) < 0)
        return -1;
    return there || mount_library(sr, l, a, f) == 0 ? mount_take(sr, f) : -1;
}

static int iso_connect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    struct library l;
    struct fault ignored;
    if (sr->place.path)
        return 0;
    if (understand(sr, a, &l, f) < 0)
        return -1;
    if (connect_library(sr, &l, a, f) == 0 && descend(sr, l.reach == BY_LINK, f) == 0)
        return 0;
    leave(sr, &l, &ignored);
    return -1;
}

/* A location that nothing can be understood of was never connected. */
static int iso_disconnect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    struct library l;
    struct fault ignored;
    return understand(sr, a, &l, &ignored) < 0 ? 0 : leave(sr, &l, f);
}

/* ------------------------------------------------------------------ create, destroy */

static int iso_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) sr, (void) plan, (void) f; /* it has to be there: connecting it, which comes next, is the proof */
    return 0;
}

static int iso_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) sr, (void) plan, (void) f; /* it was there before, and stays */
    return 0;
}

const struct transport transport_iso = {
    .name = "iso",
    .remote = true,
    .shared = true,
    .create = iso_create,
    .destroy = iso_destroy,
    .connect = iso_connect,
    .disconnect = iso_disconnect,
};
