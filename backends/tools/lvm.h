/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lvm2. Every command is confined to the devices it is given: it scans no other, keeps no archive, backup or hints, and
   takes no lock but LVM's own of the one volume group, so that repositories do not wait for one another. A host whose
   kernel has no device-mapper can make and change volumes, but not activate them.
   All return 0, or -1 with the fault: SRNoSpace when extents or the room for metadata ran out, else the code named. */
#ifndef SMAPI_BACKENDS_LVM_H
#define SMAPI_BACKENDS_LVM_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whom commands are for. */
struct lvm_scope {
    const char *const *devices;
    size_t device_count;
    int hold;           /* as in struct cmd */
    bool metadata_only; /* the kernel has no device-mapper (lvm_scope) */
};

struct lvm_scope lvm_scope(const char *const *devices, size_t count, int hold);

/* ---- what is there */

/* A stretch of a volume that lies in one piece on one device; all in extents. */
struct lvm_segment {
    size_t pv; /* in the group's pvs */
    uint64_t pv_start, lv_start, count;
};

struct lvm_lv {
    const char *name, *uuid, *tags; /* tags: with a comma between two */
    uint64_t size;                  /* bytes */
    bool read_only;
    bool linear; /* all its segments are plain stretches of devices, in order of lv_start, without a gap */
    struct lvm_segment *segments;
    size_t segment_count;
};

struct lvm_pv {
    const char *name, *uuid; /* name: the path given in the scope; as lvm has it when it is none of those */
    uint64_t pe_start;       /* bytes: where its first extent begins */
    uint64_t size;           /* bytes, of the device; 0 when it is missing */
    bool missing;
};

struct lvm_vg {
    const char *name, *uuid, *tags;
    uint64_t size, free, extent_size; /* bytes */
    struct lvm_pv *pvs;
    size_t pv_count;
    struct lvm_lv *lvs;
    size_t lv_count;
};

struct lvm_report {
    struct lvm_vg *vgs; /* two of one name are two */
    size_t vg_count;
    struct lvm_pv *orphans; /* physical volumes of no group */
    size_t orphan_count;
};

/* Everything on the devices, by one command. PVSfailed. */
int lvm_read(const struct lvm_scope *s, struct arena *a, struct lvm_report *out, struct fault *f);
/* Of what that command prints; pure. PVSfailed. */
int lvm_report_parse(const char *json, size_t length, struct arena *a, struct lvm_report *out, struct fault *f);

const struct lvm_lv *lvm_find(const struct lvm_vg *vg, const char *name); /* NULL when there is none */
bool lvm_has_tag(const char *tags, const char *tag);
/* What stands behind prefix in the first tag that begins so; NULL when none does. */
const char *lvm_tag_value(const char *tags, const char *prefix, struct arena *a);

/* ---- physical volumes and groups. A list of texts ends with NULL; NULL stands for an empty one. */

/* uuid: in LVM's form, or NULL for a random one. LVMPartCreate. */
int lvm_pv_create(const struct lvm_scope *s, const char *device, const char *uuid, struct fault *f);
int lvm_pv_resize(const struct lvm_scope *s, const char *device, struct fault *f); /* LVMResize */
/* LVMDelete. */
int lvm_pv_remove(const struct lvm_scope *s, const char *const *devices, struct fault *f);
/* Of all devices of the scope, and quiet. LVMGroupCreate. */
int lvm_vg_create(const struct lvm_scope *s, const char *vg, const char *const *tags, struct fault *f);
int lvm_vg_extend(const struct lvm_scope *s, const char *vg, const char *device, struct fault *f); /* LVMGroupCreate */
/* SRLog. */
int lvm_vg_tag(const struct lvm_scope *s, const char *vg, const char *const *add, const char *const *drop,
               struct fault *f);
/* From now on what activates the volumes of every device that appears leaves the group's alone. Being so is success.
 * SRLog.
 */
int lvm_vg_quiet(const struct lvm_scope *s, const char *vg, struct fault *f);
/* The same if the group has that tag, looked up under LVM's lock; without it nothing is changed, and that is success.
 */
struct lvm_retag {
    const char *const *add, *const *drop;
    const char *only_with;
};
int lvm_vg_retag(const struct lvm_scope *s, const char *vg, const struct lvm_retag *tags, struct fault *f); /* SRLog */
int lvm_vg_remove(const struct lvm_scope *s, const char *vg, struct fault *f); /* LVMDelete */

/* ---- volumes */

struct lvm_new {
    const char *name;
    uint64_t size; /* bytes, rounded up to extents by lvm; 0 stands for all that is free */
    const char *const *tags;
    bool active; /* and old signatures at its start wiped; else it is left inactive, with whatever bytes it has */
};
int lvm_lv_create(const struct lvm_scope *s, const char *vg, const struct lvm_new *wanted,
                  struct fault *f); /* LVMCreate */
/* To a size in bytes, rounded up to extents. Having that size already is success. LVMResize. */
int lvm_lv_resize(const struct lvm_scope *s, const char *vg, const char *lv, uint64_t size, struct fault *f);
int lvm_lv_rename(const struct lvm_scope *s, const char *vg, const char *lv, const char *name, enum fault_code code,
                  struct fault *f);
/* All of them or, after a crash or a fault, some. LVMDelete. */
int lvm_lv_remove(const struct lvm_scope *s, const char *vg, const char *const *lvs, struct fault *f);

enum lvm_access { LVM_ACCESS_KEEP, LVM_ACCESS_READ, LVM_ACCESS_WRITE };
/* Tags and access of one volume, in one step. Having that access already is success. */
int lvm_lv_change(const struct lvm_scope *s, const char *vg, const char *lv, enum lvm_access access,
                  const char *const *add, const char *const *drop, enum fault_code code, struct fault *f);

/* LVMMount. refresh also brings to life what a killed command left suspended. */
int lvm_lv_activate(const struct lvm_scope *s, const char *vg, const char *const *lvs, struct fault *f);
int lvm_lv_refresh(const struct lvm_scope *s, const char *vg, const char *const *lvs, struct fault *f);
int lvm_lv_deactivate(const struct lvm_scope *s, const char *vg, const char *const *lvs,
                      struct fault *f); /* LVMUnMount */

#endif
