/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The only caller of drivers. Each function refuses with Unimplemented what the SR's type does not offer, checks what
   the driver may assume (a disk that is damaged or quarantined gives VDIUnavailable, an SR that is not connected
   SRUnavailable), and checks what it promised (a broken promise aborts: it is a bug). Parameters as in driver.h. */
#ifndef SMAPI_BACKENDS_GUARD_H
#define SMAPI_BACKENDS_GUARD_H

#include "backends/types.h"

/* Capabilities as methods.def names them: slots of the layout or transport. */
enum capability {
    CAP_NONE, /* every type */
    CAP_sr_create,
    CAP_sr_delete,
    CAP_sr_attach,
    CAP_sr_probe,
    CAP_sr_scan,
    CAP_vdi_create,
    CAP_vdi_delete,
    CAP_vdi_introduce,
    CAP_vdi_resize,
    CAP_vdi_snapshot,
    CAP_vdi_clone,
    CAP_vdi_read,
    CAP_vdi_reset,
    CAP_vdi_compose,
    CAP_sr_take,
    CAP_vdi_generate_config, /* a disk can be reached again from its SR's device_config alone */
    CAP_vdi_attach,
    CAP_vdi_activate,
    CAP_vdi_fence, /* leases are granted and ended in two steps, with the data path fenced between them */
    CAP_disk_write,
    CAP_disk_log
};

bool backend_offers(const struct sr_type *type, enum capability cap);
/* -1 with Unimplemented: the type does not offer what cap names. */
int backend_refuse(const struct sr_type *type, enum capability cap, struct fault *f);
/* The same for a capability as xapi names it ("VDI_CREATE"); false for a name that is none of ours. */
bool backend_offers_named(const struct sr_type *type, const char *name);
/* SRs of this type can be told apart, by their medium or by where it is, so that one without a row can be taken over.
 */
bool backend_recognises(const struct sr_type *type);

/* SRs of this type that this host shows to a store without their rows (driver.h, find). */
int backend_find(const struct sr_type *type, const struct backend_settings *settings, struct arena *a,
                 struct trace_list *out, struct fault *f);

/* Disks of the type are chosen among those that are there, not made (driver.h, vdi_choose). */
bool backend_chooses(const struct sr_type *type);
int backend_vdi_choose(const struct sr_type *type, const struct vdi_list *known, const struct vdi *wanted,
                       struct uuid *out, struct fault *f);
/* What keeps a host that lost its lease from writing to this SR, as found when it was attached. */
enum fencing backend_fencing(const struct sr *sr);

/* A place made and marked, left disconnected. */
int backend_sr_create(struct sr *sr, const struct plan *plan, struct fault *f);
/* A connected SR emptied of our own files and unmarked, then disconnected and its place removed if we made it. */
int backend_sr_delete(struct sr *sr, const struct plan *plan, struct fault *f);
/* Transport connected, layout attached; idempotent. */
int backend_sr_attach(struct sr *sr, struct fault *f);
/* The claim on the medium of an SR, connected or not, and a claim of this server in its place (driver.h, sr_take); an
   SR that was connected has to be attached again then. */
int backend_sr_owner(struct sr *sr, struct owner *out, struct fault *f);
int backend_sr_take(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f);
/* Others can keep this host out of an SR of the type although it is this server's: it can be taken back. */
bool backend_takes_back(const struct sr_type *type);
/* After a restart, on a connected SR: these disks are attached. */
int backend_sr_hold(struct sr *sr, const struct uuid *vdis, size_t count, struct fault *f);
/* The format of a disk for which nothing but a size was asked; "" where that is the format of all others. */
const char *backend_plain_format(const struct sr_type *type);
/* The other way, from wherever a process that died may have left it; idempotent. */
int backend_sr_detach(struct sr *sr, struct fault *f);
/* Frees what an SR holds in this process and leaves the place as it is, for a daemon that ends. Idempotent. */
void backend_sr_release(struct sr *sr);
/* The SR still is where it was connected: marker in place, place not replaced, not poisoned. SRUnavailable otherwise.
   The functions below that touch the medium ask it themselves. */
int backend_sr_check(struct sr *sr, struct fault *f);
int backend_sr_scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                    struct sr_totals *totals, struct fault *f);
/* physical_size and physical_utilisation as they are now; virtual_allocation is 0. */
int backend_sr_totals(struct sr *sr, struct sr_totals *out, struct fault *f);
/* Connected for looking only, in a process that serves nobody; backend_sr_release ends it. Unimplemented where the type
   cannot be looked at without changing something. */
int backend_sr_look(struct sr *sr, struct fault *f);
/* What is wrong on the medium beyond what a scan tells. */
int backend_sr_judge(struct sr *sr, struct findings *out, struct fault *f);
/* uuids of the names in the mount base. */
int backend_places(const struct backend_settings *settings, struct arena *a, struct uuid **out, size_t *count,
                   struct fault *f);
/* Replaces what is in out but for what it asks for. */
int backend_sr_probe(const struct sr_type *type, const struct pairs *config, const struct secrets *secrets,
                     const struct backend_settings *settings, struct arena *a, struct found_list *out, struct fault *f);

int backend_vdi_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                       struct vdi *out, struct fault *f);
/* What vdi_delete puts into its plan before it is committed: device and inode of the image, and in name, in the arena,
   its ancestors. */
int backend_vdi_locate(struct sr *sr, const struct vdi *vdi, struct arena *a, struct plan *plan, struct fault *f);
int backend_vdi_delete(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                       struct deletion *deleted, struct fault *f);
int backend_vdi_introduce(struct sr *sr, const struct plan *plan, const char *location, struct arena *a,
                          struct vdi *out, struct fault *f);
/* Types without a vdi_update slot succeed: xapi calls it whatever the capabilities say. */
int backend_vdi_update(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                       struct fault *f);
int backend_vdi_resize(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                       struct fault *f);
/* A snapshot when plan->read_only, else a clone; wanted is the new disk. */
int backend_vdi_fork(struct sr *sr, const struct plan *plan, const struct vdi *wanted, const struct vdi *vdi,
                     struct arena *a, struct vdi *made, struct vdi *base, struct fault *f);
/* plan->vdi is the disk, plan->op the operation. */
int backend_vdi_reset(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                      struct fault *f);
/* plan->vdi becomes a child of plan->base, which is parent; out and base: the two as they stand then. */
int backend_vdi_compose(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                        struct arena *a, struct vdi *out, struct vdi *base, struct fault *f);
/* The image of a disk, hidden or not, holds together to its last block; types without a way to tell succeed. */
int backend_vdi_verify(struct sr *sr, const struct vdi *vdi, struct fault *f);
/* All bytes of a disk, hidden or not, to out_fd. */
int backend_vdi_read(struct sr *sr, const struct vdi *vdi, int out_fd, struct fault *f);
/* The same of the image of that disk in a directory of images, without an SR: for rescue. */
int backend_image_read(int dir, const struct uuid *vdi, int out_fd, struct fault *f);
int backend_vdi_attach(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                       struct fault *f);
/* detach and deactivate take a disk in any state, on an SR in any state: what was taken can always be given back. */
int backend_vdi_detach(struct sr *sr, const struct vdi *vdi, struct fault *f);
int backend_vdi_activate(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f);
/* After a restart: a lease that was held before is still held. Looks at nothing. */
int backend_vdi_restore(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f);
int backend_vdi_deactivate(struct sr *sr, const struct vdi *vdi, struct fault *f);
/* Its data paths can be shut to an epoch: leases are granted and ended in two steps, with the fence between them. */
bool backend_fences(const struct sr *sr);
/* SRUnavailable when the SR is not connected: what cannot be asked is not fenced. */
int backend_vdi_fence(struct sr *sr, const struct vdi *vdi, const char *holder, uint64_t epoch, struct fault *f);
/* 0 for types that keep no epoch in their data path. */
int backend_epoch_seen(struct sr *sr, uint64_t *out, struct fault *f);
int backend_disk_write(struct sr *sr, const struct vdi *vdi, uint64_t epoch, const char *data, struct fault *f);
int backend_disk_log(struct sr *sr, const struct vdi *vdi, struct arena *a, struct disk_write **out, size_t *count,
                     struct fault *f);

/* After a failed slot or a crash: driver.h's settle. sr_create and sr_delete are settled here through both halves:
   an interrupted sr_create is undone, an sr_delete past its point of no return finished. */
int backend_settle(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, enum settled *how,
                   struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f);

#endif
