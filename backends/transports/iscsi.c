/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iSCSI: an SR's place is the LUNs of a target, each by a link of its own in ISCSI_LINKS that always leads to the disk
   in this SR's session. Kernel state and open-iscsi's records are all there is; both carry the interface's name. */
#include "backends/transports/iscsi.h"

#include "backends/tools/blkid.h"
#include "backends/transports/transport.h"
#include "backends/types.h"
#include "server/base/point.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#define PROBE_PREFIX "smapi-probe-"

static const char *iface_of(const struct uuid *sr, struct arena *a)
{
    return arena_printf(a, "smapi-%s", sr->text);
}

/* LUNs are the disks of the layout, however many there are; others write on the one they are given. */
static bool takes_all(const struct layout *layout)
{
    return strcmp(layout->name, "lun") == 0;
}

/* What a layout that needs LUNs says without one; the reference's clients know 107, the specification's text 89. */
static enum fault_code lun_fault(const struct layout *layout, bool probing)
{
    if (takes_all(layout))
        return FAULT_NONE;
    return probing && strcmp(layout->name, "lvm") == 0 ? FAULT_ConfigSCSIid : FAULT_ConfigLUNIDMissing;
}

/* ------------------------------------------------------------------ probes that were killed */

/* The interface records of probes name the process that made them. */
static void sweep_probes(void)
{
    struct fault ignored;
    const char **names;
    size_t count;
    AUTO_ARENA struct arena *a = arena_new(4 << 20);
    iscsiadm_ifaces(PROBE_PREFIX, a, &names, &count);
    for (size_t i = 0; i < count; i++) {
        long pid = strtol(names[i] + sizeof PROBE_PREFIX - 1, NULL, 10);
        if (pid > 0 && kill((pid_t) pid, 0) < 0 && errno == ESRCH)
            iscsi_end(names[i], -1, &ignored);
    }
}

/* ------------------------------------------------------------------ links */

static const char *link_directory(const struct uuid *sr, struct arena *a)
{
    return arena_printf(a, ISCSI_LINKS "/%s", sr->text);
}

static bool in_place(const struct place *place, const char *path)
{
    for (size_t i = 0; i < place->device_count; i++)
        if (strcmp(place->devices[i], path) == 0)
            return true;
    return false;
}

/* Links that are not the place's. */
static void remove_links(const struct sr *sr, struct arena *a)
{
    const char *directory = link_directory(&sr->uuid, a);
    AUTO_DIR DIR *entries = opendir(directory);
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries)) {
        const char *path = arena_printf(a, "%s/%s", directory, e->d_name);
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && !in_place(&sr->place, path))
            unlink(path);
    }
    rmdir(directory);
    rmdir(ISCSI_LINKS);
}

/* The link of a disk, put in place at once; path in a. */
static int make_link(const struct uuid *sr, const struct scsi_disk *disk, struct arena *a, const char **out,
                     struct fault *f)
{
    const char *directory = link_directory(sr, a);
    const char *path = arena_printf(a, "%s/%s", directory, disk->id), *temp = arena_printf(a, "%s/.new", directory);
    unlink(temp);
    if ((mkdir(ISCSI_LINKS, 0755) < 0 && errno != EEXIST) || (mkdir(directory, 0755) < 0 && errno != EEXIST) ||
        symlink(arena_printf(a, "/dev/%s", disk->name), temp) < 0 || rename(temp, path) < 0)
        return fault_errno(f, FAULT_ISCSIDevice, "make link %s", path);
    *out = path;
    return 0;
}

/* Two SRs with one LUN would each think it theirs alone: sessions and links of another SR tell. */
static int refuse_if_shared(const struct sr *sr, const struct scsi_disk *disk, struct arena *a, struct fault *f)
{
    AUTO_DIR DIR *entries = opendir(ISCSI_LINKS);
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries)) {
        struct uuid other;
        struct iscsi_session *sessions;
        size_t count;
        if (!uuid_parse_text(e->d_name, &other) || uuid_equal(&other, &sr->uuid) ||
            access(arena_printf(a, ISCSI_LINKS "/%s/%s", other.text, disk->id), F_OK) < 0)
            continue;
        if (iscsi_sessions(iface_of(&other, a), a, &sessions, &count, f) < 0)
            return -1;
        if (count)
            return fault_set(f, FAULT_SRInUse, "LUN %s is in use by SR %s", disk->id, other.text);
    }
    return 0;
}

/* The place is these disks and no other. */
static int fill_place(struct sr *sr, const struct scsi_disk *disks, size_t count, struct arena *a, struct fault *f)
{
    struct place fresh = {.dir = sr->place.dir};
    const char *path;
    for (size_t i = 0; i < count; i++) {
        bool known = false;
        for (size_t j = 0; j < i && !known; j++)
            known = strcmp(disks[i].id, disks[j].id) == 0;
        if (!known && (refuse_if_shared(sr, &disks[i], a, f) < 0 || make_link(&sr->uuid, &disks[i], a, &path, f) < 0)) {
            place_free_devices(&fresh);
            return -1;
        }
        if (!known)
            place_add_device(&fresh, path);
    }
    place_free_devices(&sr->place);
    sr->place.devices = fresh.devices;
    sr->place.device_count = fresh.device_count;
    return 0;
}

/* ------------------------------------------------------------------ connect, disconnect */

static void lend_document(const struct sr *sr, struct fault *f)
{
    if (f->document)
        fault_document(f, sr->scratch ? arena_text(sr->scratch, f->document) : NULL);
}

static int open_place(struct sr *sr, struct iscsi_want *w, struct arena *a, struct fault *f)
{
    struct scsi_disk *disks;
    size_t count;
    w->who.hold = sr->hold;
    w->lun_missing = lun_fault(sr->type->layout, false);
    if (iscsi_connect(w, f) < 0)
        return -1;
    if (iscsi_disks(w, &disks, &count, f) < 0 || fill_place(sr, disks, count, a, f) < 0)
        return -1;
    if (!takes_all(sr->type->layout) && sr->place.device_count > 1)
        return fault_set(f, FAULT_LVMOneLUN, "%zu LUNs are named, and type %s takes one", sr->place.device_count,
                         sr->type->name);
    return 0;
}

static int iscsi_transport_disconnect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(8 << 20);
    place_free_devices(&sr->place);
    remove_links(sr, a);
    sweep_probes();
    return iscsi_end(iface_of(&sr->uuid, a), sr->hold, f);
}

static int iscsi_transport_connect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    struct iscsi_want w;
    struct fault why = {0}, ignored;
    if (sr->place.device_count)
        return 0;
    sweep_probes();
    if (iscsi_read(&sr->config, sr->secrets, iface_of(&sr->uuid, a), a, &w, f) < 0)
        return -1;
    if (open_place(sr, &w, a, &why) == 0)
        return 0;
    *f = why;
    lend_document(sr, f);
    place_free_devices(&sr->place);
    remove_links(sr, a);
    if (w.fresh) /* sessions that were there before may be in use */
        iscsi_end(w.who.iface, sr->hold, &ignored);
    return -1;
}

/* LUNs that came since, and those that are gone. */
static int iscsi_transport_refresh(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    struct iscsi_want w;
    if (iscsi_read(&sr->config, sr->secrets, iface_of(&sr->uuid, a), a, &w, f) < 0)
        return -1;
    struct scsi_disk *disks;
    size_t count;
    w.who.hold = sr->hold;
    if (!takes_all(sr->type->layout))
        return 0; /* the one LUN is the place; sr_attach looks for its size */
    if (iscsi_refresh(&w, f) < 0 || iscsi_disks(&w, &disks, &count, f) < 0)
        return -1;
    if (fill_place(sr, disks, count, a, f) < 0)
        return -1;
    remove_links(sr, a);
    return 0;
}

/* Nothing is ever put over what stands on a LUN. */
static int check_empty(const struct place *place, struct arena *a, struct fault *f)
{
    for (size_t i = 0; i < place->device_count; i++) {
        struct device d;
        if (device_look(place->devices[i], a, &d, f) < 0)
            return -1;
        if (strcmp(d.signature, "LVM2_member") == 0)
            return fault_set(f, FAULT_LVMPartInUse, "%s is a physical volume (%s) already", d.path, d.uuid);
        if (d.user || d.system)
            return fault_set(f, FAULT_SRInUse, "%s %s", d.path, d.user ? d.user : "holds the system");
        if (d.signature[0])
            return fault_set(f, FAULT_SRExists, "%s is not empty: it holds %s", d.path, d.signature);
    }
    return 0;
}

/* A target is made by whoever runs it, not by us; what a layout is to write on must be empty. */
static int iscsi_transport_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(8 << 20);
    (void) plan;
    if (takes_all(sr->type->layout))
        return 0;
    return iscsi_transport_connect(sr, f) < 0 ? -1 : check_empty(&sr->place, a, f);
}

/* What a connection that never came to be left. */
static int iscsi_transport_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) plan;
    return iscsi_transport_disconnect(sr, f);
}

/* ------------------------------------------------------------------ probe */

static int look_for_srs(const struct layout *layout, const struct scsi_disk *disks, size_t count, struct arena *a,
                        struct found_list *out)
{
    struct found_sr sr = {0};
    if (!layout->recognise || count == 0)
        return 0;
    char **paths = ARENA_ARRAY(a, char *, count);
    for (size_t i = 0; i < count; i++) {
        paths[i] = arena_printf(a, "/dev/%s", disks[i].name);
        sr.size += disks[i].size;
    }
    const struct place place = {.dir = -1, .devices = paths, .device_count = count};
    if (!layout->recognise(&place, &sr.uuid))
        return 0;
    sr.path = arena_text(a, disks[0].id);
    found_add(a, out, sr);
    return 0;
}

static int iscsi_transport_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                                 const struct backend_settings *settings, struct arena *a, struct found_list *out,
                                 struct fault *f)
{
    static atomic_uint number;
    (void) settings;
    struct iscsi_want w;
    struct scsi_disk *disks;
    size_t count;
    struct fault why = {0}, left = {0};
    const char *iface = arena_printf(a, PROBE_PREFIX "%d-%u", (int) getpid(), atomic_fetch_add(&number, 1));
    sweep_probes();
    if (iscsi_read(config, secrets, iface, a, &w, f) < 0)
        return -1;
    w.lun_missing = lun_fault(layout, true);
    int failed = iscsi_connect(&w, &why) < 0 || iscsi_disks(&w, &disks, &count, &why) < 0 ||
                 look_for_srs(layout, disks, count, a, out) < 0;
    if (iscsi_end(iface, -1, &left) < 0 && !failed) {
        *f = left;
        return -1;
    }
    if (failed)
        *f = why;
    return failed ? -1 : 0;
}

const struct transport transport_iscsi = {
    .name = "iscsi",
    .create = iscsi_transport_create,
    .destroy = iscsi_transport_destroy,
    .connect = iscsi_transport_connect,
    .disconnect = iscsi_transport_disconnect,
    .refresh = iscsi_transport_refresh,
    .probe = iscsi_transport_probe,
};
