/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/transports/volume.h"

#include "backends/lvm_claim.h"
#include "backends/tools/blkid.h"
#include "backends/tools/dm.h"
#include "backends/tools/ext.h"
#include "backends/tools/lvm.h"
#include "backends/tools/mounts.h"
#include "backends/transports/iscsi.h"
#include "backends/transports/mount.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define GROUP_PREFIX "XSLocalEXT-"
#define TAG_OP       "smapi_op_" /* of the group: the operation that made it */
#define WIPED        (UINT64_C(100) << 20)

enum { JOB_ARENA = 128 << 20, PIECE = 1 << 20 };

/* One SR's names, in an arena. */
struct names {
    const char *group, *volume; /* the volume's is the SR's uuid */
    const char *device;         /* of the volume, by LVM */
    const char *mapped;         /* the same as device-mapper and the kernel's list of mounts have it */
};

/* Passing a point fails as the step before it would. */
#define PASS(name, code, f) (POINT(name) < 0 ? fault_errno(f, code, "at point " #name) : 0)

/* ------------------------------------------------------------------ names */

/* device-mapper joins group and volume by a dash and doubles those that are in them. */
static const char *doubled(const char *name, struct arena *a)
{
    char *out = arena_alloc(a, 2 * strlen(name) + 1), *at = out;
    for (const char *c = name; *c; c++) {
        *at++ = *c;
        if (*c == '-')
            *at++ = '-';
    }
    return out;
}

static struct names names_of(const struct sr *sr, struct arena *a)
{
    struct names n = {.volume = sr->uuid.text};
    n.group = arena_printf(a, GROUP_PREFIX "%s", sr->uuid.text);
    n.device = arena_printf(a, "/dev/%s/%s", n.group, n.volume);
    n.mapped = arena_printf(a, "/dev/mapper/%s-%s", doubled(n.group, a), doubled(n.volume, a));
    return n;
}

/* The uuid, as LVM writes them, of the physical volume that is the SR's device number i: by it one is known again that
   is in no group yet or any more. */
static const char *physical_uuid(const struct sr *sr, size_t i, struct arena *a)
{
    char digits[UUID_TEXT + 3];
    size_t n = 0;
    for (const char *c = sr->uuid.text; *c; c++)
        if (*c != '-')
            digits[n++] = *c;
    snprintf(digits + 30, 3, "%02x", (unsigned) i & 0xff);
    return arena_printf(a, "%.6s-%.4s-%.4s-%.4s-%.4s-%.4s-%.6s", digits, digits + 6, digits + 10, digits + 14,
                        digits + 18, digits + 22, digits + 26);
}

struct volume_devices volume_devices(const char *list, struct arena *a)
{
    const char **paths = ARENA_ARRAY(a, const char *, strlen(list) / 2 + 2);
    size_t count = 0;
    for (const char *at = list; *at; at += strspn(at, ",")) {
        size_t length = strcspn(at, ",");
        paths[count++] = arena_copy(a, at, length);
        at += length;
    }
    return (struct volume_devices){.paths = paths, .count = count};
}

static struct lvm_scope scope_of(const struct volume_devices *d, int hold)
{
    return lvm_scope(d->paths, d->count, hold);
}

/* The SR's group; NULL when it is not there. VolNotFound for two of that name: one is a copy, and nobody can say which.
 */
static int find_group(const struct volume_devices *d, const char *name, int hold, struct arena *a, struct lvm_report *r,
                      const struct lvm_vg **out, struct fault *f)
{
    const struct lvm_scope scope = scope_of(d, hold);
    if (lvm_read(&scope, a, r, f) < 0)
        return -1;
    *out = NULL;
    for (size_t i = 0; i < r->vg_count; i++) {
        if (strcmp(r->vgs[i].name, name) != 0)
            continue;
        if (*out)
            return fault_set(f, FAULT_VolNotFound, "there are two volume groups %s (%s and %s)", name, (*out)->uuid,
                             r->vgs[i].uuid);
        *out = &r->vgs[i];
    }
    return 0;
}

/* ------------------------------------------------------------------ create */

static int check_device(const char *path, struct arena *a, struct fault *f)
{
    struct device d;
    if (device_look(path, a, &d, f) < 0)
        return -1;
    if (d.system)
        return fault_set(f, FAULT_Rootdev, "%s %s", path, d.user ? d.user : "holds the running system");
    if (strcmp(d.signature, "LVM2_member") == 0)
        return fault_set(f, FAULT_LVMPartInUse, "%s is a physical volume (%s) already", path, d.uuid);
    if (d.user)
        return fault_set(f, FAULT_SRInUse, "%s %s", path, d.user);
    if (d.signature[0])
        return fault_set(f, FAULT_SRExists, "%s is not empty: it holds %s%s%s", path, d.signature,
                         d.uuid[0] ? " with uuid " : "", d.uuid);
    return 0;
}

int volume_check(const struct volume_devices *d, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    for (size_t i = 0; i < d->count; i++)
        if (check_device(d->paths[i], a, f) < 0)
            return -1;
    return 0;
}

static int make_group(struct sr *sr, const struct plan *plan, const struct volume_devices *d, const struct names *n,
                      struct arena *a, struct fault *f)
{
    const struct lvm_scope scope = scope_of(d, sr->hold);
    const char *const made = arena_printf(a, TAG_OP "%s", plan->op.text), *const only[] = {made, NULL};
    const char *const *tags = d->owned ? lvm_claim_tags(sr, &plan->op, made, a) : only;
    for (size_t i = 0; i < d->count; i++)
        if (lvm_pv_create(&scope, d->paths[i], physical_uuid(sr, i, a), f) < 0)
            return -1;
    if (PASS(volume_devices_made, FAULT_LVMPartCreate, f) < 0 || lvm_vg_create(&scope, n->group, tags, f) < 0)
        return -1;
    return PASS(volume_group_made, FAULT_LVMGroupCreate, f);
}

static int make_volume(struct sr *sr, const struct plan *plan, const struct volume_devices *d, const struct names *n,
                       struct arena *a, struct fault *f)
{
    const struct lvm_scope scope = scope_of(d, sr->hold);
    const struct lvm_new wanted = {.name = n->volume, .active = true};
    const char *const volumes[] = {n->volume, NULL};
    if (lvm_lv_create(&scope, n->group, &wanted, f) < 0 || PASS(sr_create_made, FAULT_LVMCreate, f) < 0 ||
        ext_make(n->device, &plan->op, sr->hold, a, f) < 0 || PASS(volume_formatted, FAULT_LVMFilesystem, f) < 0)
        return -1;
    return lvm_lv_deactivate(&scope, n->group, volumes, f);
}

int volume_create(struct sr *sr, const struct plan *plan, const struct volume_devices *d, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    const struct names n = names_of(sr, a);
    if (volume_check(d, f) < 0)
        return -1;
    return make_group(sr, plan, d, &n, a, f) < 0 ? -1 : make_volume(sr, plan, d, &n, a, f);
}

/* ------------------------------------------------------------------ connect, disconnect */

/* The name under which device-mapper has it; "" when it is not there. */
static const char *mapping_of(const struct names *n, struct arena *a)
{
    struct stat st;
    char uuid[DM_UUID_SIZE] = "";
    if (stat(n->mapped, &st) < 0)
        return "";
    AUTO_FD int fd = open(arena_printf(a, "/sys/dev/block/%u:%u/dm/uuid", major(st.st_rdev), minor(st.st_rdev)),
                          O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, uuid, sizeof uuid - 1);
    return arena_copy(a, uuid, length > 0 ? strcspn(uuid, "\n") : 0);
}

/* By the kernel alone: the devices beneath may be gone. */
static int deactivate(const struct names *n, struct arena *a, struct fault *f)
{
    struct fault why;
    const char *uuid = mapping_of(n, a);
    if (!uuid[0] || dm_remove(uuid, &why) == 0)
        return 0;
    return fault_set(f, FAULT_LVMUnMount, "deactivate volume %s: %s", n->mapped, why.detail);
}

static int leave(struct sr *sr, const struct names *n, struct arena *a, struct fault *f)
{
    return mount_leave(sr, n->mapped, FAULT_LVMUnMount, f) < 0 ? -1 : deactivate(n, a, f);
}

/* The group is this server's. One without an owner was made by another manager, and is from now on. */
static int own(struct sr *sr, const struct volume_devices *d, const struct lvm_vg *group, struct arena *a,
               struct fault *f)
{
    const struct lvm_scope scope = scope_of(d, sr->hold);
    const struct owner owner = lvm_claim_of(group, a);
    const struct uuid op = uuid_random();
    if (uuid_is(&owner.server))
        return sr_check_owner(sr, &owner, f);
    return lvm_vg_quiet(&scope, group->name, f) < 0
               ? -1
               : lvm_vg_tag(&scope, group->name, lvm_claim_tags(sr, &op, NULL, a), NULL, f);
}

static int activate(struct sr *sr, const struct volume_devices *d, const struct names *n, struct arena *a,
                    struct fault *f)
{
    const struct lvm_scope scope = scope_of(d, sr->hold);
    const char *const volumes[] = {n->volume, NULL};
    const struct lvm_vg *group;
    struct lvm_report r;
    struct device device;
    for (size_t i = 0; i < d->count; i++)
        if (device_look(d->paths[i], a, &device, f) < 0)
            return -1;
    if (find_group(d, n->group, sr->hold, a, &r, &group, f) < 0)
        return -1;
    if (!group || !lvm_find(group, n->volume))
        return fault_set(f, FAULT_VolNotFound, "there is no volume %s in a group %s on the devices of SR %s", n->volume,
                         n->group, sr->uuid.text);
    if (d->owned && own(sr, d, group, a, f) < 0)
        return -1;
    return lvm_lv_activate(&scope, n->group, volumes, f);
}

/* An ext3 of years ago is mounted as the ext4 it can be taken for. */
static int mount_volume(struct sr *sr, const struct names *n, struct arena *a, struct fault *f)
{
    const char *path = mount_path(sr, a);
    if (PASS(volume_activated, FAULT_LVMMount, f) < 0 || ext_check(n->device, sr->hold, a, f) < 0 ||
        mounts_make_point(sr->settings->mount_base, path, FAULT_LVMMount, f) < 0 ||
        PASS(mount_point_made, FAULT_LVMMount, f) < 0 ||
        mounts_mount(n->mapped, path, "ext4", "nosuid,nodev,noexec,noatime", f) < 0)
        return -1;
    return PASS(mount_done, FAULT_LVMMount, f);
}

int volume_connect(struct sr *sr, const struct volume_devices *d, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    const struct names n = names_of(sr, a);
    struct fault ignored;
    bool there;
    if (sr->place.path)
        return 0;
    if (mount_is_there(sr, n.mapped, FAULT_LVMMount, a, &there, f) < 0)
        return -1;
    if ((there || (activate(sr, d, &n, a, f) == 0 && mount_volume(sr, &n, a, f) == 0)) && mount_take(sr, f) == 0)
        return 0;
    if (!there)
        leave(sr, &n, a, &ignored);
    return -1;
}

int volume_disconnect(struct sr *sr, const struct volume_devices *d, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    const struct names n = names_of(sr, a);
    (void) d;
    return leave(sr, &n, a, f);
}

/* ------------------------------------------------------------------ whose it is */

static int need_group(struct sr *sr, const struct volume_devices *d, struct arena *a, const struct lvm_vg **out,
                      struct fault *f)
{
    const struct names n = names_of(sr, a);
    struct lvm_report r;
    if (find_group(d, n.group, sr->hold, a, &r, out, f) < 0)
        return -1;
    return *out ? 0
                : fault_set(f, FAULT_VolNotFound, "there is no group %s on the devices of SR %s", n.group,
                            sr->uuid.text);
}

int volume_owner(struct sr *sr, const struct volume_devices *d, struct owner *out, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    const struct lvm_vg *group;
    if (need_group(sr, d, a, &group, f) < 0)
        return -1;
    *out = lvm_claim_of(group, a);
    return 0;
}

int volume_take(struct sr *sr, const struct volume_devices *d, const struct plan *plan, const struct owner *from,
                struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    const struct lvm_scope scope = scope_of(d, sr->hold);
    const struct lvm_vg *group;
    if (need_group(sr, d, a, &group, f) < 0)
        return -1;
    struct owner now = lvm_claim_of(group, a);
    bool stands = uuid_equal(&now.op, &from->op) && uuid_equal(&now.server, &from->server);
    if (stands && !uuid_equal(&now.op, &plan->op) &&
        (lvm_claim_move(sr, &scope, group, &plan->op, a, f) < 0 || volume_owner(sr, d, &now, f) < 0))
        return -1;
    return lvm_claim_check(sr, &now, &plan->op, f);
}

/* ------------------------------------------------------------------ destroy */

static int zero(int fd, uint64_t from, uint64_t to)
{
    AUTO_FREE unsigned char *piece = calloc(1, PIECE);
    if (!piece)
        abort();
    for (; from < to; from += PIECE) {
        size_t length = to - from < PIECE ? (size_t) (to - from) : PIECE;
        if (io_write_at(fd, piece, length, from) < 0)
            return -1;
    }
    return fsync(fd);
}

/* Zeros on a device from a byte on up to the 100 MiB that an SR's end wipes. */
static int wipe(const char *path, uint64_t from, uint64_t to, struct fault *f)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    if (size < 0 || zero(fd, from, to < (uint64_t) size ? to : (uint64_t) size) < 0)
        return fault_errno(f, FAULT_LVMWrite, "wipe the start of %s", path);
    return 0;
}

/* The data goes while the group still says whose it is; what is before it, when the group is gone. */
static int wipe_data(const struct lvm_vg *group, struct fault *f)
{
    for (size_t i = 0; i < group->pv_count; i++)
        if (wipe(group->pvs[i].name, group->pvs[i].pe_start, WIPED, f) < 0)
            return -1;
    return PASS(volume_wiped, FAULT_LVMWrite, f);
}

static int remove_devices(struct sr *sr, const struct volume_devices *d, const char *const *names, bool wiped,
                          struct fault *f)
{
    const struct lvm_scope scope = scope_of(d, sr->hold);
    if (names[0] && lvm_pv_remove(&scope, names, f) < 0)
        return -1;
    for (; wiped && *names; names++)
        if (wipe(*names, 0, PIECE, f) < 0)
            return -1;
    return 0;
}

static int remove_group(struct sr *sr, const struct volume_devices *d, const struct lvm_vg *group, bool wiped,
                        struct arena *a, struct fault *f)
{
    const struct lvm_scope scope = scope_of(d, sr->hold);
    const char **volumes = ARENA_ARRAY(a, const char *, group->lv_count + 1);
    const char **devices = ARENA_ARRAY(a, const char *, group->pv_count + 1);
    for (size_t i = 0; i < group->lv_count; i++)
        volumes[i] = group->lvs[i].name;
    for (size_t i = 0; i < group->pv_count; i++) {
        devices[i] = group->pvs[i].name;
        if (wiped && lvm_doom(sr, devices[i], f) < 0)
            return -1;
    }
    if ((wiped && wipe_data(group, f) < 0) || (group->lv_count && lvm_lv_remove(&scope, group->name, volumes, f) < 0) ||
        lvm_vg_remove(&scope, group->name, f) < 0 || PASS(volume_group_removed, FAULT_LVMDelete, f) < 0)
        return -1;
    return remove_devices(sr, d, devices, wiped, f);
}

static bool is_among(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* Physical volumes of no group that have the uuids this SR's have, or that its deletion has noted. */
static int remove_orphans(struct sr *sr, const struct volume_devices *d, const struct lvm_report *r, bool wiped,
                          struct arena *a, struct fault *f)
{
    const char **devices = ARENA_ARRAY(a, const char *, r->orphan_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < r->orphan_count; i++)
        for (size_t j = 0; j < d->count; j++)
            if (strcmp(r->orphans[i].uuid, physical_uuid(sr, j, a)) == 0)
                devices[count++] = r->orphans[i].name;
    for (size_t i = 0; i < r->orphan_count && wiped; i++)
        if (!is_among(r->orphans[i].name, devices, count) && lvm_is_doomed(sr, r->orphans[i].name))
            devices[count++] = r->orphans[i].name;
    return remove_devices(sr, d, devices, wiped, f);
}

/* The volume of the SR and nothing else may be in a group that goes. */
static int check_alone(const struct lvm_vg *group, const struct names *n, struct fault *f)
{
    for (size_t i = 0; i < group->lv_count; i++)
        if (strcmp(group->lvs[i].name, n->volume) != 0)
            return fault_set(f, FAULT_SRNotEmpty, "volume group %s holds volume %s, which is not ours", n->group,
                             group->lvs[i].name);
    return 0;
}

/* Those that are block devices: on what is none sr_create made nothing. */
static struct volume_devices only_devices(const struct volume_devices *d, struct arena *a)
{
    struct stat st;
    const char **paths = ARENA_ARRAY(a, const char *, d->count + 1);
    size_t count = 0;
    for (size_t i = 0; i < d->count; i++)
        if (stat(d->paths[i], &st) == 0 && S_ISBLK(st.st_mode))
            paths[count++] = d->paths[i];
    return (struct volume_devices){.paths = paths, .count = count, .owned = d->owned};
}

int volume_destroy(struct sr *sr, const struct plan *plan, const struct volume_devices *all, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    const struct names n = names_of(sr, a);
    const struct lvm_vg *group;
    struct lvm_report r;
    bool deleted = strcmp(plan->method, "sr_delete") == 0;
    const struct volume_devices some = only_devices(all, a), *d = deleted ? all : &some;
    if (d->count == 0)
        return 0;
    if (find_group(d, n.group, sr->hold, a, &r, &group, f) < 0)
        return -1;
    if (!group)
        return remove_orphans(sr, d, &r, deleted, a, f);
    if (!deleted && !lvm_has_tag(group->tags, arena_printf(a, TAG_OP "%s", plan->op.text)))
        return 0; /* an SR that was there before */
    if (leave(sr, &n, a, f) < 0 || check_alone(group, &n, f) < 0)
        return -1;
    return remove_group(sr, d, group, deleted, a, f);
}

/* ------------------------------------------------------------------ probe */

int volume_probe(const struct volume_devices *d, const char *list, struct arena *a, struct found_list *out,
                 struct fault *f)
{
    const struct lvm_scope scope = scope_of(d, -1);
    struct device device;
    struct lvm_report r;
    for (size_t i = 0; i < d->count; i++)
        if (device_look(d->paths[i], a, &device, f) < 0)
            return -1;
    if (lvm_read(&scope, a, &r, f) < 0)
        return -1;
    for (size_t i = 0; i < r.vg_count; i++) {
        struct uuid uuid;
        const char *name = r.vgs[i].name;
        if (strncmp(name, GROUP_PREFIX, strlen(GROUP_PREFIX)) == 0 &&
            uuid_parse_text(name + strlen(GROUP_PREFIX), &uuid))
            found_add(a, out, (struct found_sr){.uuid = uuid, .path = arena_text(a, list), .size = r.vgs[i].size});
    }
    return 0;
}

/* ------------------------------------------------------------------ find */

static const char *devices_text(const struct lvm_vg *vg, struct arena *a)
{
    const char *list = "";
    for (size_t i = 0; i < vg->pv_count; i++)
        list = arena_printf(a, "%s%s%s", list, i ? "," : "", vg->pvs[i].name);
    return list;
}

int volume_is_mounted(const struct uuid *uuid, const struct backend_settings *settings, struct arena *a, bool *there,
                      struct fault *f)
{
    const struct sr sr = {.uuid = *uuid, .settings = settings};
    struct mounted m;
    if (mounts_find(mount_path(&sr, a), a, &m, f) < 0)
        return -1;
    *there = m.there && strcmp(m.source, names_of(&sr, a).mapped) == 0;
    return 0;
}

/* The devices of one that is mounted, as device_config device; NULL for one that is not, or not on devices of this
   machine. */
static int find_mounted(const struct uuid *uuid, const struct backend_settings *settings, struct arena *a,
                        const char **out, struct fault *f)
{
    const struct sr sr = {.uuid = *uuid};
    const struct names n = names_of(&sr, a);
    struct volume_devices members = {0};
    struct lvm_report r;
    const struct lvm_vg *vg;
    bool there;
    size_t links;
    *out = NULL;
    if (volume_is_mounted(uuid, settings, a, &there, f) < 0)
        return -1;
    iscsi_links(uuid, a, &links);
    if (!there || links)
        return 0;
    members.paths = (const char *const *) device_list("LVM2_member", a, &members.count);
    if (find_group(&members, n.group, -1, a, &r, &vg, f) < 0)
        return -1;
    if (!vg)
        return fault_set(f, FAULT_VolNotFound, "%s is mounted, and its group %s is on no device", n.mapped, n.group);
    *out = devices_text(vg, a);
    return 0;
}

int volume_find(const struct backend_settings *settings, struct arena *a, struct trace_list *out, struct fault *f)
{
    AUTO_DIR DIR *entries = opendir(settings->mount_base);
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries)) {
        struct uuid uuid;
        const char *devices;
        if (!uuid_parse_text(e->d_name, &uuid))
            continue;
        if (find_mounted(&uuid, settings, a, &devices, f) < 0)
            return -1;
        const struct pair device = {"device", devices};
        if (devices)
            trace_add(a, out, &uuid, &device, 1);
    }
    return 0;
}
