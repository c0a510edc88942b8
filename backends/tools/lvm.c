/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/tools/lvm.h"

#include "backends/tools/dm.h"
#include "server/base/cmd.h"
#include <string.h>
#include <sys/stat.h>

#define PROGRAM       "/sbin/lvm"
#define SECONDS       120U
#define WORDS_CEILING 4096U
#define METADATA_AREA "10M" /* of each device: thousands of volumes with their tags */

/* What the host's own configuration may not decide. */
#define CONFIG                                                                                                         \
    "devices{use_devicesfile=0 multipath_wwids_file=\"\" hints=\"none\" scan_lvs=0 filter=[\"a|.*|\"] "                \
    "global_filter=[\"a|.*|\"]} "                                                                                      \
    "backup{backup=0 archive=0} "                                                                                      \
    "global{metadata_read_only=0 use_lvmlockd=0 use_lvmpolld=0 event_activation=0 system_id_source=\"none\"} "         \
    "activation{monitoring=0} log{syslog=0}"

struct lvm_scope lvm_scope(const char *const *devices, size_t count, int hold)
{
    return (struct lvm_scope){
        .devices = devices, .device_count = count, .hold = hold, .metadata_only = !dm_available()};
}

/* ------------------------------------------------------------------ argv */

struct words {
    struct arena *arena;
    const char **items;
    size_t count, room;
};

static void word(struct words *w, const char *text)
{
    if (w->count + 1 >= w->room) {
        size_t room = w->room ? w->room * 2 : 64;
        const char **items = ARENA_ARRAY(w->arena, const char *, room);
        if (w->count)
            memcpy(items, w->items, w->count * sizeof *items);
        w->items = items;
        w->room = room;
    }
    w->items[w->count++] = text;
}

static void option(struct words *w, const char *name, const char *value)
{
    word(w, name);
    word(w, value);
}

static void options(struct words *w, const char *name, const char *const *values)
{
    for (; values && *values; values++)
        option(w, name, *values);
}

/* Operands <vg>/<lv>. */
static void volumes(struct words *w, const char *vg, const char *const *lvs)
{
    for (; *lvs; lvs++)
        word(w, arena_printf(w->arena, "%s/%s", vg, *lvs));
}

static const char *device_list(const struct lvm_scope *s, struct arena *a)
{
    size_t length = 1;
    for (size_t i = 0; i < s->device_count; i++)
        length += strlen(s->devices[i]) + 1;
    char *list = arena_alloc(a, length), *at = list;
    for (size_t i = 0; i < s->device_count; i++) {
        at = stpcpy(at, i ? "," : "");
        at = stpcpy(at, s->devices[i]);
    }
    return list;
}

static struct words begin(const struct lvm_scope *s, const char *command, struct arena *a)
{
    struct words w = {.arena = a};
    word(&w, PROGRAM);
    word(&w, command);
    option(&w, "--config", CONFIG);
    option(&w, "--devices", device_list(s, a));
    if (s->metadata_only)
        option(&w, "--driverloaded", "n");
    return w;
}

/* For commands on volumes of our own group. Those on devices are not told yes: what would wipe somebody's signature
   asks first, reads nothing, and gives up. */
static struct words begin_change(const struct lvm_scope *s, const char *command, struct arena *a)
{
    struct words w = begin(s, command, a);
    word(&w, "-y");
    return w;
}

/* ------------------------------------------------------------------ running */

/* What lvm says besides what went wrong. */
static bool is_chatter(const char *line)
{
    return strncmp(line, "WARNING: ", 9) == 0 || strncmp(line, "Rounding ", 9) == 0;
}

/* The line that says why: the first that is no chatter, else the first. */
static const char *reason(const char *err, struct arena *a)
{
    const char *first = "";
    for (const char *at = err; *at;) {
        at += strspn(at, " \t\n");
        size_t length = strcspn(at, "\n");
        const char *line = arena_copy(a, at, length);
        if (length && !is_chatter(line))
            return line;
        if (length && !*first)
            first = line;
        at += length;
    }
    return first;
}

static bool says(const char *err, const char *const *sentences)
{
    for (; *sentences; sentences++)
        if (strcasestr(err, *sentences))
            return true;
    return false;
}

static int failed(const struct cmd *cmd, const struct cmd_result *r, struct arena *a, enum fault_code code,
                  struct fault *f)
{
    static const char *const no_room[] = {"insufficient free space", "insufficient suitable", "metadata too large",
                                          "too big for", NULL};
    const char *command = cmd->argv[1];
    if (r->timed_out)
        return fault_set(f, code, "%s did not end within %u s and was killed", command, cmd->seconds);
    if (says(r->err, no_room))
        code = FAULT_SRNoSpace;
    return fault_set(f, code, "%s exited with %d: %.500s", command, r->status, reason(r->err, a));
}

/* Already being as asked is success too. */
static bool is_already(const char *err)
{
    static const char *const sentences[] = {"matches existing size", "is already read only", "is already writable",
                                            "autoactivation is already", NULL};
    return says(err, sentences);
}

static int run(const struct lvm_scope *s, struct words *w, enum fault_code code, struct cmd_result *out,
               struct fault *f)
{
    word(w, NULL);
    const struct cmd cmd = {.argv = w->items, .seconds = SECONDS, .hold = s->hold};
    if (cmd_run(&cmd, w->arena, out, f) < 0)
        return -1;
    if ((out->status == 0 || is_already(out->err)) && !out->timed_out)
        return 0;
    return failed(&cmd, out, w->arena, code, f);
}

static int change(const struct lvm_scope *s, struct words *w, enum fault_code code, struct fault *f)
{
    struct cmd_result ignored;
    return run(s, w, code, &ignored, f);
}

/* Memory of one command. */
#define COMMAND_ARENA AUTO_ARENA struct arena *a = arena_new(64U << 20)

/* ------------------------------------------------------------------ physical volumes and groups */

int lvm_pv_create(const struct lvm_scope *s, const char *device, const char *uuid, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin(s, "pvcreate", a);
    option(&w, "--metadatasize", METADATA_AREA);
    if (uuid) {
        option(&w, "--uuid", uuid);
        word(&w, "--norestorefile");
    }
    word(&w, device);
    return change(s, &w, FAULT_LVMPartCreate, f);
}

int lvm_pv_resize(const struct lvm_scope *s, const char *device, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin(s, "pvresize", a);
    word(&w, device);
    return change(s, &w, FAULT_LVMResize, f);
}

int lvm_pv_remove(const struct lvm_scope *s, const char *const *devices, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin(s, "pvremove", a);
    for (; *devices; devices++)
        word(&w, *devices);
    return change(s, &w, FAULT_LVMDelete, f);
}

int lvm_vg_create(const struct lvm_scope *s, const char *vg, const char *const *tags, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin(s, "vgcreate", a);
    option(&w, "--metadatasize", METADATA_AREA);
    option(&w, "--setautoactivation", "n");
    options(&w, "--addtag", tags);
    word(&w, vg);
    for (size_t i = 0; i < s->device_count; i++)
        word(&w, s->devices[i]);
    return change(s, &w, FAULT_LVMGroupCreate, f);
}

int lvm_vg_extend(const struct lvm_scope *s, const char *vg, const char *device, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin(s, "vgextend", a);
    option(&w, "--metadatasize", METADATA_AREA);
    word(&w, vg);
    word(&w, device);
    return change(s, &w, FAULT_LVMGroupCreate, f);
}

int lvm_vg_tag(const struct lvm_scope *s, const char *vg, const char *const *add, const char *const *drop,
               struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin_change(s, "vgchange", a);
    options(&w, "--deltag", drop);
    options(&w, "--addtag", add);
    word(&w, vg);
    return change(s, &w, FAULT_SRLog, f);
}

int lvm_vg_quiet(const struct lvm_scope *s, const char *vg, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin_change(s, "vgchange", a);
    option(&w, "--setautoactivation", "n");
    word(&w, vg);
    return change(s, &w, FAULT_SRLog, f);
}

int lvm_vg_retag(const struct lvm_scope *s, const char *vg, const struct lvm_retag *tags, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin_change(s, "vgchange", a);
    options(&w, "--deltag", tags->drop);
    options(&w, "--addtag", tags->add);
    option(&w, "--select", arena_printf(a, "vg_tags={\"%s\"}", tags->only_with));
    word(&w, vg);
    return change(s, &w, FAULT_SRLog, f);
}

int lvm_vg_remove(const struct lvm_scope *s, const char *vg, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin(s, "vgremove", a);
    word(&w, vg);
    return change(s, &w, FAULT_LVMDelete, f);
}

/* ------------------------------------------------------------------ volumes */

/* lvm refuses parts of a sector. */
static const char *in_bytes(struct arena *a, uint64_t size)
{
    return arena_printf(a, "%llub", (unsigned long long) ((size + 511) / 512 * 512));
}

int lvm_lv_create(const struct lvm_scope *s, const char *vg, const struct lvm_new *wanted, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin_change(s, "lvcreate", a);
    const char *yes_no = wanted->active ? "y" : "n";
    option(&w, "--activate", yes_no);
    option(&w, "--zero", yes_no);
    option(&w, "--wipesignatures", yes_no);
    option(&w, "--name", wanted->name);
    if (wanted->size)
        option(&w, "--size", in_bytes(a, wanted->size));
    else
        option(&w, "--extents", "100%FREE");
    options(&w, "--addtag", wanted->tags);
    word(&w, vg);
    return change(s, &w, FAULT_LVMCreate, f);
}

int lvm_lv_resize(const struct lvm_scope *s, const char *vg, const char *lv, uint64_t size, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin_change(s, "lvresize", a);
    word(&w, "--force");
    option(&w, "--size", in_bytes(a, size));
    volumes(&w, vg, (const char *const[]){lv, NULL});
    return change(s, &w, FAULT_LVMResize, f);
}

int lvm_lv_rename(const struct lvm_scope *s, const char *vg, const char *lv, const char *name, enum fault_code code,
                  struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin_change(s, "lvrename", a);
    word(&w, vg);
    word(&w, lv);
    word(&w, name);
    return change(s, &w, code, f);
}

int lvm_lv_remove(const struct lvm_scope *s, const char *vg, const char *const *lvs, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin_change(s, "lvremove", a);
    word(&w, "--force");
    volumes(&w, vg, lvs);
    return change(s, &w, FAULT_LVMDelete, f);
}

int lvm_lv_change(const struct lvm_scope *s, const char *vg, const char *lv, enum lvm_access access,
                  const char *const *add, const char *const *drop, enum fault_code code, struct fault *f)
{
    COMMAND_ARENA;
    struct words w = begin_change(s, "lvchange", a);
    if (access != LVM_ACCESS_KEEP)
        option(&w, "--permission", access == LVM_ACCESS_READ ? "r" : "rw");
    options(&w, "--deltag", drop);
    options(&w, "--addtag", add);
    volumes(&w, vg, (const char *const[]){lv, NULL});
    return change(s, &w, code, f);
}

/* lvchange of some volumes, for which the kernel is needed. */
static int kernel_change(const struct lvm_scope *s, const char *vg, const char *const *lvs, const char *const *how,
                         enum fault_code code, struct fault *f)
{
    COMMAND_ARENA;
    if (s->metadata_only)
        return fault_set(f, code, "the kernel of this host has no device-mapper: no volume can be activated");
    struct words w = begin_change(s, "lvchange", a);
    for (; *how; how++)
        word(&w, *how);
    volumes(&w, vg, lvs);
    return change(s, &w, code, f);
}

int lvm_lv_activate(const struct lvm_scope *s, const char *vg, const char *const *lvs, struct fault *f)
{
    static const char *const how[] = {"--activate", "y", "--ignoreactivationskip", NULL};
    return kernel_change(s, vg, lvs, how, FAULT_LVMMount, f);
}

int lvm_lv_refresh(const struct lvm_scope *s, const char *vg, const char *const *lvs, struct fault *f)
{
    static const char *const how[] = {"--refresh", NULL};
    return kernel_change(s, vg, lvs, how, FAULT_LVMMount, f);
}

int lvm_lv_deactivate(const struct lvm_scope *s, const char *vg, const char *const *lvs, struct fault *f)
{
    static const char *const how[] = {"--activate", "n", NULL};
    return kernel_change(s, vg, lvs, how, FAULT_LVMUnMount, f);
}

/* ------------------------------------------------------------------ the report */

static bool block_number(const char *path, dev_t *out)
{
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode))
        return false;
    *out = st.st_rdev;
    return true;
}

/* Of the names a device has, the one that was given: lvm takes the shortest, which may be another device's tomorrow. */
static void name_as_given(const struct lvm_scope *s, struct lvm_pv *pv, struct arena *a)
{
    dev_t number, given;
    if (!block_number(pv->name, &number))
        return;
    for (size_t i = 0; i < s->device_count; i++)
        if (block_number(s->devices[i], &given) && given == number) {
            pv->name = arena_text(a, s->devices[i]);
            return;
        }
}

static void names_as_given(const struct lvm_scope *s, struct lvm_report *r, struct arena *a)
{
    for (size_t i = 0; i < r->orphan_count; i++)
        name_as_given(s, &r->orphans[i], a);
    for (size_t i = 0; i < r->vg_count; i++)
        for (size_t p = 0; p < r->vgs[i].pv_count; p++)
            name_as_given(s, &r->vgs[i].pvs[p], a);
}

int lvm_read(const struct lvm_scope *s, struct arena *a, struct lvm_report *out, struct fault *f)
{
    AUTO_ARENA struct arena *own = arena_new(64U << 20);
    struct cmd_result r;
    struct words w = begin(s, "pvs", own);
    word(&w, "--segments");
    option(&w, "--reportformat", "json");
    option(&w, "--units", "b");
    word(&w, "--nosuffix");
    option(&w, "--options",
           "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_tags,pv_name,pv_uuid,pe_start,dev_size,pv_missing,"
           "pvseg_start,pvseg_size,lv_name,lv_uuid,lv_size,lv_tags,lv_attr,seg_start_pe,segtype,stripes");
    if (run(s, &w, FAULT_PVSfailed, &r, f) < 0)
        return -1;
    if (lvm_report_parse(r.out, r.out_length, a, out, f) < 0)
        return -1;
    names_as_given(s, out, a);
    return 0;
}
