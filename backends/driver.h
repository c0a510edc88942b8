/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The contract of a driver. An SR type is a row of types.def: a layout (how disks live inside a place) on a transport
   (how this process reaches the place). Both are const and sparse: an empty slot is a call the type does not offer.
   Drivers know no XML, SQL or HTTP, never log above debug, and are called by guard.c alone, which has taken care that:
     - the SR is connected (place filled, state made) in every slot but probe, create, connect;
     - the lock of the method's row is held, so WHOLE slots run alone in their SR and SERIAL ones one at a time;
     - vdi is a disk of the SR whose state is VDI_LIVE, unless the slot says otherwise;
     - for slots with a plan, the plan is committed in the journal.
   A slot returns 0, or -1 with the fault filled by the place that knows most. After -1 from a slot with a plan the
   layout's settle is called, as after a crash: slots need not clean up after themselves.
   Outputs are written on success only and live in the arena given. */
#ifndef SMAPI_BACKENDS_DRIVER_H
#define SMAPI_BACKENDS_DRIVER_H

#include "server/base/fault.h"
#include "server/base/finding.h"
#include "server/base/model.h"
#include "server/base/secret.h"
#include "server/base/text.h"
#include <stdatomic.h>
#include <sys/types.h>

/* What drivers need of the daemon's configuration. Lives as long as the process. */
struct backend_settings {
    const char *mount_base; /* "/run/sr-mount" */
    struct uuid server;     /* of this daemon, what is written into owner claims */
};

/* Where an SR's content stands once its transport has connected it: a directory, or block devices. */
struct place {
    int dir;      /* open directory, or -1 */
    char *path;   /* by which programs on this host reach it: <mount_base>/<sr>; malloc'd; NULL without a directory */
    dev_t device; /* identity of the directory: what is not this is not the SR */
    ino_t inode;
    char **devices; /* paths of block devices that stay the same over a reboot; each malloc'd, the array too */
    size_t device_count;
};

/* Adds a copy of the path. */
void place_add_device(struct place *place, const char *path);
void place_free_devices(struct place *place);

/* Whose an SR is, by the claim on its medium. */
struct owner {
    struct uuid server; /* none: nobody has claimed it */
    struct uuid op;     /* which operation wrote the claim: every claim has another; none for one that does not tell */
    int64_t since;      /* wall clock; 0 when it does not tell */
};

/* What keeps a host that has lost its lease from writing on. Shown in sr_contents and driver_info. */
enum fencing {
    FENCING_NONE,     /* nothing is written (iso), or nothing can be promised */
    FENCING_ADVISORY, /* the data path does not know leases: a break needs evidence that the host is dead */
    FENCING_SR,       /* one server connects the SR: who is not it cannot write at all */
    FENCING_HOST,     /* a host can be shut out of the whole SR */
    FENCING_VDI       /* the data path itself refuses what an older epoch writes to the disk */
};

struct sr_type;

/* An SR in this process. Made by the registry of the handlers, which alone frees it. */
struct sr {
    struct uuid uuid;
    const struct sr_type *type;
    const struct backend_settings *settings;
    struct arena *arena; /* lives as long as the SR */
    struct pairs config; /* device_config, checked by backend_config_check; secret values show SECRET_SHOWN */
    /* What those hide, while a call runs that brought them (sr_create, sr_attach, probe); NULL otherwise, after a
       restart too: they are kept nowhere. */
    const struct secrets *secrets;
    /* Where the document of a fault of connect goes, while a call runs that may connect the SR; NULL otherwise: then
       nobody would read it. */
    struct arena *scratch;
    struct pulse *pulse; /* of a place on another machine, while it is connected; sr.c alone touches it */
    int hold; /* to be inherited by every child that works for the SR (struct cmd): recovery waits for them; -1: none */
    bool connected;
    _Atomic bool unfenced; /* found by the layout's attach: the medium has no means to do what the type promises */
    /* Said by the transport's create when it failed before its first change: there is nothing to settle, which could
       be asked of a server that may never have existed. */
    bool untouched;
    /* Said by the transport's connect when it failed for want of a password that only a call can bring: what is there
       cannot be told, and is not settled until then. */
    bool keyless;
    struct place place;
    void *state; /* the layout's, made by its attach slot, freed by its detach slot */
    /* Why nothing may be done here until it is attached again; NULL while all is well. malloc'd, freed by guard.c. */
    char *_Atomic poison;
};

/* Said by a layout when the medium could not keep what it was told to (a failed fsync: what is durable is no longer
   known): guard.c answers SRUnavailable with the reason until the SR is attached again. errno is the reason. Any
   thread; the first reason stays. Returns -1 with EIO in f, or SRNoSpace when that was the reason: a sync that found no
   room has lost what was written all the same. */
int sr_poison(struct sr *sr, struct fault *f, const char *fmt, ...) PRINTF(3, 4);

/* SRUnavailable, or SRInUse where no other host can reach the place, naming whose it is when it is not this server's.
 */
int sr_check_owner(const struct sr *sr, const struct owner *owner, struct fault *f);

/* Begins or ends (dir -1) to watch whether the place of this SR still answers. -1 with SRUnavailable. */
int sr_watch(struct sr *sr, int dir, struct fault *f);
/* SRUnavailable, where it is known with how long it has been so, when the place does not answer. sr_answers waits for
   an answer of now, a few seconds at most; sr_known_silent never waits, and is for any thread as long as the SR is in
   this process. */
int sr_answers(const struct sr *sr, struct fault *f);
int sr_known_silent(struct sr *sr, struct fault *f);

/* What a probe found. */
struct found_sr {
    struct uuid uuid;
    const char *path;
    uint64_t size; /* bytes, 0 when it cannot be told */
    /* What its own metadata says; label NULL when it was not asked for, or there is none. pool_metadata: of its disks
       one holds the database of a pool. */
    const char *label, *description;
    bool pool_metadata;
};
struct found_list {
    struct found_sr *items;
    size_t count, room;
    bool metadata; /* is asked for */
};
void found_add(struct arena *a, struct found_list *l, struct found_sr item);

/* An SR that a host shows to a store which has lost its row. */
struct sr_trace {
    struct uuid uuid;
    struct pairs config;
};
struct trace_list {
    struct sr_trace *items;
    size_t count, room;
};
/* Adds one with count pairs of key and value, those without a value left out. */
void trace_add(struct arena *a, struct trace_list *l, const struct uuid *uuid, const struct pair *pairs, size_t count);

struct disk_write {
    uint64_t epoch;
    const char *data;
};

struct layout {
    const char *name;
    bool thin;     /* space is taken as it is written: THIN_PROVISIONING */
    bool unmarked; /* an SR is whatever its place shows: it bears no mark, and one without a row can be attached */
    /* Image format of a disk for which nothing but a size was asked, as the specification's callers do; NULL: the one
       of all others. */
    const char *plain_format;
    bool masters; /* a pool's master alone may change it: LVMMaster for the others */

    /* The uuid of an SR of this layout in the place, if there is one; false otherwise. Changes nothing. */
    bool (*recognise)(const struct place *place, struct uuid *out);
    /* The same of an SR that bears the mark of this server. Filled where other machines' SRs may stand beside. */
    bool (*recognise_own)(const struct place *place, const struct uuid *server, struct uuid *out);

    /* Fills in what the metadata of the SR in the place says of it, as far as it can be read. Changes nothing. NULL
       where a layout keeps none. */
    void (*sr_describe)(const struct place *place, const struct uuid *sr, struct arena *a, struct found_sr *out);

    /* SR. create: the place is empty; leaves a marker. attach: checks marker and owner, adopts what the rules allow,
       fills sr->state. detach frees it. delete: no disks are left; SRNotEmpty naming the first foreign name. */
    int (*sr_create)(struct sr *sr, const struct plan *plan, struct fault *f);
    int (*sr_delete)(struct sr *sr, const struct plan *plan, struct fault *f);
    int (*sr_attach)(struct sr *sr, struct fault *f);
    void (*sr_detach)(struct sr *sr);
    /* The claim that stands. The place is there, sr->state need not be. SRUnavailable when the SR is not in it. */
    int (*sr_owner)(struct sr *sr, struct owner *out, struct fault *f);
    /* Puts a claim of this server, by this plan, in the place of that one, if it still stands: of several that try only
       one gets it, SRUnavailable naming the owner for the others. Its own claim, perhaps half written, is completed. */
    int (*sr_take)(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f);
    /* The marker is what attach read. Cheap: asked before every operation. Any thread. */
    int (*sr_check)(struct sr *sr, struct fault *f);
    /* After a restart, and with none before the place is left: these disks are attached. What this host's kernel has of
       others is taken down, unless somebody uses it; with none also where the place does not answer, or sr->state is
       NULL. */
    int (*sr_hold)(struct sr *sr, const struct uuid *vdis, size_t count, struct fault *f);
    /* Everything on the medium, hidden and damaged ones too. known: the rows, for layouts that have no medium of their
       own and for what the medium cannot hold; texts of out may be those of known. Deletes nothing. */
    int (*sr_scan)(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                   struct sr_totals *totals, struct fault *f);
    int (*sr_totals)(struct sr *sr, struct sr_totals *out, struct fault *f); /* physical_* only */
    /* sr_attach for eyes only: fills sr->state when the place is marked as it must be, and changes nothing on it. */
    int (*sr_look)(struct sr *sr, struct fault *f);
    /* What a scan does not tell: names that no operation answers for any more, images under two names. Changes nothing.
       Runs alone in its SR. */
    int (*sr_judge)(struct sr *sr, struct findings *out, struct fault *f);

    /* For disks that are there before they are asked for (LUNs): which of the rows a vdi_create (wanted->size is not 0)
       or vdi_introduce (location and sm_config name it) takes into use. Looks at the rows alone: called in a
       transaction. Such disks are never made nor removed: managed tells which are in use. */
    int (*vdi_choose)(const struct vdi_list *known, const struct vdi *wanted, struct uuid *out, struct fault *f);
    /* Disks. create: wanted has uuid, location, size, format ("" for the default), labels; out is what stands. */
    int (*vdi_create)(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                      struct vdi *out, struct fault *f);
    /* Fills device and inode of a plan that is yet to be committed, 0 when the image is gone, and in name the disk's
       ancestors. Reads only. */
    int (*vdi_locate)(struct sr *sr, const struct vdi *vdi, struct arena *a, struct plan *plan, struct fault *f);
    /* The image goes only if it is the plan's inode (0: any); one that is gone is success. One that others are made
       from is hidden instead (VDIDelete when its format cannot tell, and nothing was changed). With a disk go those of
       the plan's ancestors that are hidden and that nothing is made from any more; deleted names all of them that are
       gone. */
    int (*vdi_delete)(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                      struct deletion *deleted, struct fault *f);
    int (*vdi_introduce)(struct sr *sr, const struct plan *plan, const char *location, struct arena *a, struct vdi *out,
                         struct fault *f);
    int (*vdi_update)(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                      struct fault *f);
    int (*vdi_resize)(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                      struct fault *f);
    /* Out of the disk and everything it was made from: all bytes the guest sees, to out_fd from where it stands; zeros
       are left out where that is the end of a regular file. Any thread; nobody writes to the disk meanwhile. */
    int (*vdi_read)(struct sr *sr, const struct vdi *vdi, int out_fd, struct fault *f);
    /* The disk's own image holds together to its last block; -1 with VDILoad saying what does not. Nobody writes to it
       meanwhile. */
    int (*vdi_verify)(struct sr *sr, const struct vdi *vdi, struct fault *f);
    /* The disk becomes what it was made from: an empty child of its parent, of its own size. Unimplemented when it has
       no parent. */
    int (*vdi_reset)(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                     struct fault *f);
    /* The disk becomes a child of parent, which is plan->base and gets hidden; what the disk holds itself stays.
       VDIType for a disk without a parent, VDISize for a parent that is larger, VDIInUse for a disk with children. */
    int (*vdi_compose)(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                       struct arena *a, struct vdi *out, struct vdi *base, struct fault *f);
    /* wanted: the new disk, plan->made, read-only for a snapshot; made: as it stands; base: the image plan->base names,
       with uuid none when none was left behind. */
    int (*vdi_snapshot)(struct sr *sr, const struct plan *plan, const struct vdi *wanted, const struct vdi *vdi,
                        struct arena *a, struct vdi *made, struct vdi *base, struct fault *f);
    int (*vdi_clone)(struct sr *sr, const struct plan *plan, const struct vdi *wanted, const struct vdi *vdi,
                     struct arena *a, struct vdi *made, struct vdi *base, struct fault *f);
    /* Where the disk's content is reached on this host. Idempotent; makes only kernel state. */
    int (*vdi_attach)(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                      struct fault *f);
    int (*vdi_detach)(struct sr *sr, const struct vdi *vdi, struct fault *f);
    /* After the lease's commit: from now on nothing of an older epoch may be written. deactivate: before the release's
       commit: nothing of this epoch is under way any more. */
    int (*vdi_activate)(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f);
    /* After a restart: as vdi_activate for a lease that was held before; looks at no medium. */
    int (*vdi_restore)(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f);
    int (*vdi_deactivate)(struct sr *sr, const struct vdi *vdi, struct fault *f);
    /* Shuts the holder of a lease out, alive or not: from its return on nothing of this epoch or an older one is
       written to the disk, and that was read back from where it is refused. -1 leaves it unknown; the lease is
       quarantined then. A disk in any state; may be repeated. Filled by types whose fencing is VDI or HOST, and by no
       other. */
    int (*vdi_fence)(struct sr *sr, const struct vdi *vdi, const char *holder, uint64_t epoch, struct fault *f);
    /* The highest epoch that anything in the SR's data paths still knows (keys of reservations, names of exports), 0
       for none: epochs granted from now on are above it. Asked once the SR is attached, before anything is granted. */
    int (*epoch_seen)(struct sr *sr, uint64_t *out, struct fault *f);

    /* The data path of layouts that are their own disk (dummy). */
    int (*disk_write)(struct sr *sr, const struct vdi *vdi, uint64_t epoch, const char *data, struct fault *f);
    int (*disk_log)(struct sr *sr, const struct vdi *vdi, struct arena *a, struct disk_write **out, size_t *count,
                    struct fault *f);

    /* Brings the medium to an end of the operation: whole when it is past its point of no return (or plan->keep allows
       to go on), undone otherwise. Looks at the medium only, may be repeated, never removes what is not the plan's.
       SETTLED_DONE of an operation with a result fills vdi (resize, create, update, introduce, reset: the disk;
       snapshot, clone: made and base; compose: the disk and base) and deleted as its slot would have. */
    int (*settle)(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, enum settled *how,
                  struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f);
};

struct transport {
    const char *name;
    bool remote; /* the place is on another machine, whose end must not keep this one: it is watched while connected */
    bool shared; /* other hosts may reach the place at the same time; its owner may be any of them */
    bool ends;   /* destroy disconnects too: what was connected is needed until the last mark is gone */
    /* Makes a place that did not exist, empty; SRExists when it holds something. For sr_create. */
    int (*create)(struct sr *sr, const struct plan *plan, struct fault *f);
    /* Removes what create made, if it is empty. For sr_delete, and to undo sr_create. */
    int (*destroy)(struct sr *sr, const struct plan *plan, struct fault *f);
    /* As sr_owner and sr_take of a layout, for places that bear a claim of their own which is looked at before they are
       connected. The layout's follows it. take also ends what keeps this host out. */
    int (*owner)(struct sr *sr, struct owner *out, struct fault *f);
    int (*take)(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f);
    /* Fills sr->place. Idempotent. disconnect undoes it. */
    int (*connect)(struct sr *sr, struct fault *f);
    int (*disconnect)(struct sr *sr, struct fault *f);
    /* SRUnavailable when the other end of a connected place has not answered for some seconds; asked before every
       operation, so that none waits in the kernel. Any thread. NULL where nothing is beyond this machine, or a pulse
       watches. */
    int (*answers)(const struct sr *sr, struct fault *f);
    /* Before a place is left that may stand on an other end which has gone: nothing waits for that any more, whatever
       becomes of what was not written. Idempotent. NULL where disconnect does not wait. */
    int (*give_up)(struct sr *sr, struct fault *f);
    /* The layout stands on the place, which disks in use may depend on from now on. NULL where that changes nothing. */
    int (*attached)(struct sr *sr, struct fault *f);
    /* What came to a place since it was connected, and what went. For sr_scan; NULL when a place does not change. */
    int (*refresh)(struct sr *sr, struct fault *f);
    /* SRs of this layout of which this host shows that they are this server's and how they are reached: what stands in
       the mount base, what bears the server's mark. For a store that has lost its rows. Adds to out; changes nothing.
     */
    int (*find)(const struct layout *layout, const struct backend_settings *settings, struct arena *a,
                struct trace_list *out, struct fault *f);
    /* Adds to out the SRs of this layout that can be reached with config. */
    int (*probe)(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                 const struct backend_settings *settings, struct arena *a, struct found_list *out, struct fault *f);
};

#endif
