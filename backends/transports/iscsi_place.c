/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An SR's place: the LUNs of a target, each by a link of its own in ISCSI_LINKS that always leads to the disk in this
   SR's session. Kernel state and open-iscsi's records are all there is; both carry the interface's name. */
#include "backends/tools/multipath.h"
#include "backends/transports/iscsi.h"
#include "backends/types.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

const char *iscsi_iface(const struct uuid *sr, struct arena *a)
{
    return arena_printf(a, "smapi-%s", sr->text);
}

bool iscsi_takes_all(const struct layout *layout)
{
    return strcmp(layout->name, "lun") == 0;
}

/* What a layout that needs LUNs says without one; the reference's clients know 107, the specification's text 89. */
static enum fault_code lun_fault(const struct layout *layout, bool probing)
{
    if (iscsi_takes_all(layout))
        return FAULT_NONE;
    return probing && strcmp(layout->name, "lvm") == 0 ? FAULT_ConfigSCSIid : FAULT_ConfigLUNIDMissing;
}

/* A volume group may stand on several LUNs when they are named by number, as the specification has it; those who name
   them by identity have one. */
static int check_count(const struct layout *layout, const struct iscsi_want *w, struct fault *f)
{
    bool several = strcmp(layout->name, "lvm") == 0;
    if (iscsi_takes_all(layout) || (w->id_count <= 1 && (several || w->lun_count <= 1)))
        return 0;
    return fault_set(f, FAULT_LVMOneLUN, "device_config %s names %zu LUNs, where one may be",
                     w->id_count > 1 ? "SCSIid" : "LUNid", w->id_count > 1 ? w->id_count : w->lun_count);
}

static int read_config(const struct sr *sr, struct arena *a, struct iscsi_want *out, struct fault *f)
{
    if (iscsi_read(&sr->config, sr->secrets, iscsi_iface(&sr->uuid, a), a, out, f) < 0)
        return -1;
    out->who.hold = sr->hold;
    out->lun_missing = lun_fault(sr->type->layout, false);
    out->paths = !iscsi_takes_all(sr->type->layout);
    return check_count(sr->type->layout, out, f);
}

/* ------------------------------------------------------------------ probes that were killed */

/* The interface records of probes name the process that made them. */
static void sweep_probes(void)
{
    struct fault ignored;
    const char **names;
    size_t count;
    AUTO_ARENA struct arena *a = arena_new(4 << 20);
    iscsiadm_ifaces(ISCSI_PROBE, a, &names, &count);
    for (size_t i = 0; i < count; i++) {
        long pid = strtol(names[i] + sizeof ISCSI_PROBE - 1, NULL, 10);
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
        symlink(arena_printf(a, ISCSI_DEV "%s", disk->name), temp) < 0 || rename(temp, path) < 0)
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
        if (iscsi_sessions(iscsi_iface(&other, a), a, &sessions, &count, f) < 0)
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
    if (iscsi_connect(w, f) < 0 || iscsi_gather(w, &disks, &count, f) < 0)
        return -1;
    return fill_place(sr, disks, count, a, f);
}

/* Maps of the SR whose sessions have ended already: only its links tell whose they were. */
static int remove_orphans(const struct sr *sr, struct arena *a, struct fault *f)
{
    size_t count;
    const char **links = iscsi_links(&sr->uuid, a, &count), **ignored;
    for (size_t i = 0; i < count; i++) {
        const char *map = iscsi_linked_map(links[i], a);
        if (map[0] && multipath_paths(map, a, &ignored) == 0 &&
            multipath_remove(map, strrchr(links[i], '/') + 1, sr->hold, f) < 0)
            return -1;
    }
    return 0;
}

int iscsi_close(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(8 << 20);
    place_free_devices(&sr->place);
    if (remove_orphans(sr, a, f) < 0)
        return -1;
    remove_links(sr, a);
    sweep_probes();
    return iscsi_end(iscsi_iface(&sr->uuid, a), sr->hold, f);
}

int iscsi_open(struct sr *sr, bool *fresh, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    struct iscsi_want w;
    struct fault why = {0}, ignored;
    *fresh = false;
    if (sr->place.device_count)
        return 0;
    sweep_probes();
    if (read_config(sr, a, &w, f) < 0)
        return -1;
    if (open_place(sr, &w, a, &why) == 0) {
        *fresh = w.fresh;
        return 0;
    }
    *f = why;
    sr->keyless = w.keyless && !iscsi_takes_all(sr->type->layout); /* on those of the others nothing is ever made */
    lend_document(sr, f);
    place_free_devices(&sr->place);
    remove_links(sr, a);
    if (w.fresh) /* sessions that were there before may be in use */
        iscsi_end(w.who.iface, sr->hold, &ignored);
    return -1;
}

/* LUNs that came since, and those that are gone. */
int iscsi_reopen(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    struct iscsi_want w;
    struct scsi_disk *disks;
    size_t count;
    if (!iscsi_takes_all(sr->type->layout))
        return 0; /* the LUNs that were named are the place; sr_attach looks for their size */
    if (read_config(sr, a, &w, f) < 0)
        return -1;
    if (iscsi_refresh(&w, f) < 0 || iscsi_disks(&w, &disks, &count, f) < 0)
        return -1;
    if (fill_place(sr, disks, count, a, f) < 0)
        return -1;
    remove_links(sr, a);
    return 0;
}

const char **iscsi_links(const struct uuid *sr, struct arena *a, size_t *count)
{
    const char *directory = link_directory(sr, a), **paths = ARENA_ARRAY(a, const char *, ISCSI_LUNS_MAX);
    AUTO_DIR DIR *entries = opendir(directory);
    *count = 0;
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e && *count < ISCSI_LUNS_MAX; e = readdir(entries))
        if (e->d_name[0] != '.')
            paths[(*count)++] = arena_printf(a, "%s/%s", directory, e->d_name);
    return paths;
}

/* ------------------------------------------------------------------ probe */

static struct iscsi_found found_of(const struct scsi_disk *disks, size_t count, struct arena *a)
{
    struct iscsi_found found = {.devices = ARENA_ARRAY(a, char *, count + 1), .count = count, .id = disks[0].id};
    for (size_t i = 0; i < count; i++) {
        found.devices[i] = arena_printf(a, "/dev/%s", disks[i].name);
        found.size += disks[i].size;
    }
    return found;
}

static int look_at(struct iscsi_want *w, const struct layout *layout, iscsi_looker *look, struct found_list *out,
                   struct fault *f)
{
    struct scsi_disk *disks;
    size_t count;
    if (iscsi_connect(w, f) < 0 || iscsi_disks(w, &disks, &count, f) < 0)
        return -1;
    if (count == 0)
        return 0;
    if (!iscsi_takes_all(layout)) /* multipathd puts this session and those of an attached SR into one map */
        count = iscsi_each_lun_once(disks, count, w->arena);
    const struct iscsi_found found = found_of(disks, count, w->arena);
    return look(layout, &found, w->arena, out, f);
}

int iscsi_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                iscsi_looker *look, struct arena *a, struct found_list *out, struct fault *f)
{
    static atomic_uint number;
    struct iscsi_want w;
    struct fault why = {0}, left = {0};
    const char *iface = arena_printf(a, ISCSI_PROBE "%d-%u", (int) getpid(), atomic_fetch_add(&number, 1));
    sweep_probes();
    if (iscsi_read(config, secrets, iface, a, &w, f) < 0)
        return -1;
    w.lun_missing = lun_fault(layout, true);
    if (check_count(layout, &w, f) < 0)
        return -1;
    int failed = look_at(&w, layout, look, out, &why) < 0;
    if (iscsi_end(iface, -1, &left) < 0 && !failed) {
        *f = left;
        return -1;
    }
    if (failed)
        *f = why;
    return failed ? -1 : 0;
}

/* ------------------------------------------------------------------ traces */

enum { TRACES_MAX = 256 };

/* One LUN by its identity, several by their numbers: as a device_config may name them. */
static struct pair lun_key(const struct iscsi_trace *t, struct arena *a)
{
    const char *list = "";
    struct scsi_disk disk;
    if (t->link_count == 1)
        return (struct pair){"SCSIid", strrchr(t->links[0], '/') + 1};
    for (size_t i = 0; i < t->link_count; i++)
        if (scsi_disk_at(t->links[i], a, &disk))
            list = arena_printf(a, "%s%s%llu", list, list[0] ? "," : "", (unsigned long long) disk.lun);
    return (struct pair){"LUNid", list};
}

/* False when it has no session any more. */
static int trace_one(const struct uuid *sr, const struct layout *layout, struct arena *a, struct iscsi_trace *out,
                     bool *there, struct fault *f)
{
    struct iscsi_session *s;
    size_t sessions;
    struct iscsi_trace t = {0};
    char portal[PORTAL_TEXT];
    struct trace_list one = {0};
    const char **links = iscsi_links(sr, a, &t.link_count);
    if (iscsi_sessions(iscsi_iface(sr, a), a, &s, &sessions, f) < 0)
        return -1;
    *there = sessions > 0 && t.link_count > 0;
    if (!*there)
        return 0;
    t.links = ARENA_ARRAY(a, char *, t.link_count);
    for (size_t i = 0; i < t.link_count; i++)
        t.links[i] = arena_text(a, links[i]);
    portal_text(&s[0].portal, portal);
    const struct pair config[] = {{"target", arena_text(a, portal)},
                                  {"targetIQN", s[0].target},
                                  {"localIQN", s[0].initiator},
                                  iscsi_takes_all(layout) ? (struct pair){"SCSIid", NULL} : lun_key(&t, a)};
    trace_add(a, &one, sr, config, COUNT_OF(config));
    t.trace = one.items[0];
    *out = t;
    return 0;
}

int iscsi_traces(const struct layout *layout, struct arena *a, struct iscsi_trace **out, size_t *count, struct fault *f)
{
    AUTO_DIR DIR *entries = opendir(ISCSI_LINKS);
    struct iscsi_trace *list = ARENA_ARRAY(a, struct iscsi_trace, TRACES_MAX);
    size_t n = 0;
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e && n < TRACES_MAX; e = readdir(entries)) {
        struct uuid sr;
        bool there;
        if (!uuid_parse_text(e->d_name, &sr))
            continue;
        if (trace_one(&sr, layout, a, &list[n], &there, f) < 0)
            return -1;
        n += there;
    }
    *out = list;
    *count = n;
    return 0;
}
