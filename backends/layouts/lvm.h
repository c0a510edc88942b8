/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inside of the lvm layout: a volume group VG_XenStorage-<sr> that holds
     VHD-<vdi>                 a VHD, its footer in the volume's last sector, its BAT made for the largest disk
     LV-<vdi>                  a raw disk; hidden when the volume has the tag "hidden"
     MGT                       labels and the like (lvm_mgt.c)
     tmp_<op8>_<name>          what an operation will give that name, with the tag smapi_op=<op8>
   and is left alone in everything else. The group's tags say whose it is (lvm_claim.h).
   A volume that is not active is read and written where its extents lie, past the kernel's device-mapper, so that only
   disks that a host has attached are ever active. */
#ifndef SMAPI_BACKENDS_LVM_LAYOUT_H
#define SMAPI_BACKENDS_LVM_LAYOUT_H

#include "backends/images/image.h"
#include "backends/layouts/layout.h"
#include "backends/tools/lvm.h"
#include <pthread.h>

#define LVM_NAME       128
#define LVM_VG_PREFIX  "VG_XenStorage-"
#define LVM_RAW_PREFIX "LV-"
#define LVM_VHD_PREFIX "VHD-"
#define LVM_TEMP       "tmp_"
#define LVM_MGT        "MGT"
#define LVM_TAG_OP     "smapi_op="
#define LVM_TAG_FORK   "smapi_snap="  /* <disk>:<base>:<new disk>, on the volume that will be the disk */
#define LVM_TAG_ZERO   "smapi_zero="  /* bytes: what lies behind them was not zeroed yet */
#define LVM_TAG_RESET  "smapi_reset=" /* <op8>: the disk's BAT is being emptied */
#define LVM_TAG_LINK   "smapi_link="  /* <disk>:<parent>, on a whole log of what gives the disk that parent */
#define LVM_TAG_HIDDEN "hidden"

/* ---- lvm_sr.c: the group */

/* sr->state. */
struct lvm_sr {
    char vg_uuid[64];     /* of the group that was attached */
    pthread_mutex_t lock; /* guards the next three */
    struct arena *cache;  /* of vg */
    struct lvm_vg *vg;    /* as it was when its devices had these heads; NULL when it must be read */
    unsigned char *heads;
    uint64_t sequence;       /* number of that state of the group; 0 when it cannot be told */
    pthread_mutex_t chains;  /* held by who activates or deactivates volumes */
    pthread_mutex_t records; /* held by who uses MGT */
};

void lvm_vg_name(char out[LVM_NAME], const struct uuid *sr);
struct lvm_scope lvm_sr_scope(const struct sr *sr);
/* The group as it stands, checked to be the one attached and this server's. SRUnavailable when it is not. Any thread.
 */
int lvm_group(struct sr *sr, struct arena *a, struct lvm_vg **out, struct fault *f);
/* The group as it was last read, for a host that must let go of a medium that is gone; NULL when it is not known. */
struct lvm_vg *lvm_group_last(struct sr *sr, struct arena *a);
/* As the functions of lvm.h without the scope, for commands after which the group need not be read again. */
int lvm_rename(struct sr *sr, const char *lv, const char *name, enum fault_code code, struct fault *f);
int lvm_change(struct sr *sr, const char *lv, enum lvm_access access, const char *add, const char *drop,
               enum fault_code code, struct fault *f);
bool lvm_is_thin(const struct sr *sr);

bool lvm_recognise(const struct place *place, struct uuid *out);
bool lvm_recognise_own(const struct place *place, const struct uuid *server, struct uuid *out);
void lvm_sr_describe(const struct place *place, const struct uuid *sr, struct arena *a, struct found_sr *out);
int lvm_sr_create(struct sr *sr, const struct plan *plan, struct fault *f);
int lvm_sr_delete(struct sr *sr, const struct plan *plan, struct fault *f);
int lvm_sr_attach(struct sr *sr, struct fault *f);
void lvm_sr_detach(struct sr *sr);
int lvm_sr_check(struct sr *sr, struct fault *f);
int lvm_sr_look(struct sr *sr, struct fault *f);
int lvm_sr_owner(struct sr *sr, struct owner *out, struct fault *f);
int lvm_sr_take(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f);
/* Undoes an sr_create of this plan; sr_delete from wherever it stopped, *empty false when the SR still holds something.
 */
int lvm_sr_undo(struct sr *sr, const struct plan *plan, struct fault *f);
int lvm_sr_clear(struct sr *sr, const struct plan *plan, bool *empty, struct fault *f);

/* ---- lvm_volume.c: the bytes of one volume */

struct volume {
    const struct lvm_vg *vg;
    const struct lvm_lv *lv;
    bool active; /* reached through the kernel */
    int *fds;    /* active: one; else of each physical volume, -1 for those it does not lie on */
    size_t fd_count;
    unsigned sector; /* the largest unit its devices are written in */
};

/* LVMNoVolume for a volume that can be reached in neither way, EIO. Close with volume_close. */
int volume_open(const struct lvm_vg *vg, const struct lvm_lv *lv, bool writable, struct volume *out, struct fault *f);
void volume_close(const struct volume *v);
#define AUTO_VOLUME __attribute__((cleanup(volume_close))) /* begin with {0} */

/* Within the volume. -1 with errno. */
int volume_read(const struct volume *v, void *out, size_t length, uint64_t at);
int volume_write(const struct volume *v, const void *data, size_t length, uint64_t at);
int volume_zero(const struct volume *v, uint64_t at, uint64_t length);
int volume_sync(const struct volume *v);
/* The same with the fault; EIO poisons the SR. */
int lvm_sync(struct sr *sr, const struct volume *v, struct fault *f);

/* ---- lvm_image.c: what a volume holds */

/* A disk's volume by its name. */
bool lvm_name_parse(const char *name, bool *raw, struct uuid *uuid);
void lvm_name(char out[LVM_NAME], bool raw, const struct uuid *uuid);
void lvm_temp_name(char out[LVM_NAME], const struct uuid *op, const char *name);
/* The disk's volume, of either kind; NULL when there is none. */
const struct lvm_lv *lvm_find_disk(const struct lvm_vg *vg, const struct uuid *uuid, bool *raw);
bool lvm_is_of(const struct lvm_lv *lv, const struct uuid *op); /* has the operation's tag */

/* A VHD's metadata in a file of the volume's length, for the slots of image_vhd that only look at it. Where footer and
   its copy differ, the copy counts. table: with the BAT. VDILoad. *fd: close it. */
int lvm_image_window(const struct volume *v, bool table, int *fd, struct fault *f);
/* What the volume says of the disk in it. */
int lvm_image_info(const struct volume *v, bool raw, struct image_info *out, struct fault *f);
int lvm_info(const struct lvm_vg *vg, const struct lvm_lv *lv, bool raw, struct image_info *out, struct fault *f);
/* Writes an empty image over a volume, synced. parent NULL: none. */
struct lvm_parent {
    struct uuid uuid;
    bool raw;
    struct image_info info;
};
int lvm_image_make(struct sr *sr, const struct volume *v, const struct uuid *id, uint64_t size,
                   const struct lvm_parent *parent, struct fault *f);
/* Both footers again, for a volume that is length bytes long, or will be: with that size and hidden mark. Synced. */
int lvm_image_footers(struct sr *sr, const struct volume *v, uint64_t length, uint64_t size, bool hidden,
                      struct fault *f);
/* The shortest volume that holds what the image in it holds now, in bytes before rounding. */
int lvm_image_least(const struct volume *v, uint64_t *out, struct fault *f);
/* Makes a VHD's volume as short as it can be; its footers are moved first. */
int lvm_shorten(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, struct fault *f);
/* The volume's size for a VHD of that virtual size that is to be written in full, or that holds nothing yet. */
uint64_t lvm_thick_size(const struct lvm_vg *vg, uint64_t size);
uint64_t lvm_empty_size(const struct lvm_vg *vg);
uint64_t lvm_round(const struct lvm_vg *vg, uint64_t size); /* up to whole extents */

/* The disk as it stands; known is where its labels are taken from, NULL for MGT. */
void lvm_describe(struct sr *sr, const struct uuid *uuid, bool raw, const struct lvm_lv *lv,
                  const struct image_info *info, const struct vdi *known, struct arena *a, struct vdi *out);
int lvm_describe_now(struct sr *sr, const struct uuid *uuid, const struct vdi *known, struct arena *a, struct vdi *out,
                     struct fault *f);

/* ---- lvm_tree.c: how disks hang together */

struct lvm_disk {
    struct uuid uuid;
    const struct lvm_lv *lv;
    bool raw;
    struct image_info info;
    const char *damage; /* NULL for a sound one */
    size_t children, depth;
    bool counted; /* among its parent's children */
};
struct lvm_disks {
    struct lvm_disk *items; /* by uuid */
    size_t count;
};
/* All of the group, each looked at. */
int lvm_disks_read(const struct lvm_vg *vg, struct arena *a, struct lvm_disks *out, struct fault *f);
struct lvm_disk *lvm_disks_find(const struct lvm_disks *d, const struct uuid *uuid); /* NULL when there is none */

/* A disk and what it was made from, itself first. VDIUnavailable for a parent that is missing, VDILoad for one that is
   another, SnapshotChainTooLong. out holds what was found also then. */
struct lvm_chain {
    const struct lvm_lv *lvs[IMAGE_CHAIN_LIMIT];
    struct uuid uuids[IMAGE_CHAIN_LIMIT];
    size_t count;
    bool raw; /* the disk itself */
    struct image_info info;
};
int lvm_chain_read(const struct lvm_vg *vg, const struct uuid *uuid, struct lvm_chain *out, struct fault *f);

int lvm_sr_scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                struct sr_totals *totals, struct fault *f);
int lvm_sr_totals(struct sr *sr, struct sr_totals *out, struct fault *f);

/* ---- lvm_judge.c: what should not be in the group */

int lvm_sr_judge(struct sr *sr, struct findings *out, struct fault *f);
int lvm_vdi_verify(struct sr *sr, const struct vdi *vdi, struct fault *f);

/* ---- lvm_mgt.c: labels and the like, for a server without this one's store */

/* Makes the volume, where the group has room for it and none yet. */
int lvm_mgt_make(struct sr *sr, struct fault *f);
int lvm_mgt_put(struct sr *sr, const struct vdi *vdi, struct fault *f);
int lvm_mgt_drop(struct sr *sr, const struct uuid *uuid, struct fault *f); /* none is success */
/* Reads into out what is kept of the disk; false when there is nothing. */
bool lvm_mgt_read(struct sr *sr, const struct uuid *uuid, struct arena *a, struct vdi *out);
/* The SR's label and description, and whether a disk holds the database of a pool, of a group that nobody attached. -1
   when there is nothing or it cannot be read. */
int lvm_mgt_describe(const struct lvm_vg *vg, const struct uuid *sr, struct arena *a, struct found_sr *out);

/* ---- lvm_vdi.c */

int lvm_vdi_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, struct vdi *out,
                   struct fault *f);
int lvm_vdi_introduce(struct sr *sr, const struct plan *plan, const char *location, struct arena *a, struct vdi *out,
                      struct fault *f);
int lvm_vdi_update(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                   struct fault *f);
int lvm_vdi_resize(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                   struct fault *f);
/* From wherever an earlier try stopped; nothing when the volume is not larger than old_size. */
int lvm_resize_finish(struct sr *sr, const struct uuid *vdi, uint64_t size, struct fault *f);

/* ---- lvm_delete.c */

int lvm_vdi_locate(struct sr *sr, const struct vdi *vdi, struct arena *a, struct plan *plan, struct fault *f);
int lvm_vdi_delete(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct deletion *out,
                   struct fault *f);
/* Says that others are made from it. Synced; done before is success. code: for what fails. */
int lvm_hide(struct sr *sr, const struct uuid *vdi, enum fault_code code, struct fault *f);

/* ---- lvm_use.c: what is active on this host */

int lvm_vdi_attach(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                   struct fault *f);
int lvm_vdi_detach(struct sr *sr, const struct vdi *vdi, struct fault *f);
int lvm_vdi_activate(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f);
int lvm_vdi_deactivate(struct sr *sr, const struct vdi *vdi, struct fault *f);
int lvm_vdi_read(struct sr *sr, const struct vdi *vdi, int out_fd, struct fault *f);
/* Whether the volume is active here. -1 with the fault. */
int lvm_is_active(const struct lvm_vg *vg, const struct lvm_lv *lv, struct fault *f);
/* Brings the kernel in line: nothing suspended, and nothing active but those disks and what they are made from. */
int lvm_sr_hold(struct sr *sr, const struct uuid *vdis, size_t count, struct fault *f);

/* ---- lvm_fork.c */

int lvm_vdi_fork(struct sr *sr, const struct plan *plan, const struct vdi *wanted, const struct vdi *vdi,
                 struct arena *a, struct vdi *made, struct vdi *base, struct fault *f);
struct lvm_fork {
    struct uuid op, disk, base, made;
    bool read_only;
};
/* Where a fork stands on the medium. */
enum lvm_fork_state { LVM_FORK_NONE, LVM_FORK_PREPARED, LVM_FORK_BEGUN, LVM_FORK_STRANGE };
enum lvm_fork_state lvm_fork_state(const struct lvm_vg *vg, const struct lvm_fork *fork);
/* All that is left to do once the disk's volume has the base's name. */
int lvm_fork_finish(struct sr *sr, const struct lvm_fork *fork, enum fault_code code, struct fault *f);
/* The new disk and the base, as they stand then. */
int lvm_fork_describe(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                      struct vdi *made, struct vdi *base, struct fault *f);

/* ---- lvm_relink.c */

int lvm_vdi_reset(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                  struct fault *f);
/* All that is left to do of a reset that has begun; nothing without its tag. */
int lvm_reset_finish(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, struct fault *f);
/* It is an empty child. */
bool lvm_is_reset(const struct lvm_vg *vg, const struct lvm_lv *lv);
int lvm_vdi_compose(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                    struct arena *a, struct vdi *out, struct vdi *base, struct fault *f);
/* The log of a compose, NULL when there is none; whose parent becomes which, false when it was not begun; all that is
   left to do of one that was. */
const struct lvm_lv *lvm_link_find(const struct lvm_vg *vg, const struct plan *plan);
bool lvm_link_parse(const struct lvm_lv *log, struct uuid *disk, struct uuid *parent, struct arena *a);
int lvm_link_finish(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *log, struct fault *f);
/* Child and parent as they stand then. */
int lvm_link_describe(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                      struct arena *a, struct vdi *out, struct vdi *base, struct fault *f);

/* ---- lvm_settle.c */

int lvm_settle(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, enum settled *how,
               struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f);
/* What operations left that no journal knows any more: forks that have begun are finished, the rest goes. */
int lvm_settle_strays(struct sr *sr, struct fault *f);
/* Removes volumes of the operation that have not got their names. */
int lvm_sweep(struct sr *sr, const struct uuid *op, struct fault *f);

#endif
