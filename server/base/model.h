/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a disk, an SR's totals and an operation's plan are: plain data that store, drivers and handlers share.
   All text in them lives in the arena the filling function was given. */
#ifndef SMAPI_BASE_MODEL_H
#define SMAPI_BASE_MODEL_H

#include "server/base/arena.h"
#include "server/base/uuid.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pair {
    const char *key, *value;
};

/* device_config, sm_config: keys are unique, order is kept. */
struct pairs {
    struct pair *items;
    size_t count;
};

const char *pairs_get(const struct pairs *p, const char *key); /* NULL when absent */
struct pairs pairs_copy(struct arena *a, const struct pairs *p);
/* Sets or adds; the array is copied into the arena when it must grow. */
void pairs_set(struct arena *a, struct pairs *p, const char *key, const char *value);

enum vdi_state {
    VDI_CREATING, /* intent committed, result not: not served */
    VDI_LIVE,
    VDI_DELETING,    /* past the point of no return: not served */
    VDI_DAMAGED,     /* on the medium, but its image cannot be used; damage says why; calls answer 46 */
    VDI_QUARANTINED, /* recovery could not explain what it found; calls answer 46 */
    VDI_STATE_COUNT
};

/* A virtual disk: what the medium says of it, and what is kept for it. Specification table 1.2. */
struct vdi {
    struct uuid uuid;
    const char *location; /* unique in its SR; never NULL for a disk of the store */
    enum vdi_state state;
    const char *format;              /* row of the image table: "raw", "vhd"; "" where there are no images */
    uint64_t size, utilisation;      /* bytes the guest sees; bytes allocated on the medium */
    const char *label, *description; /* never NULL */
    const char *type;                /* "user", "system", …; never NULL */
    bool read_only, shareable, hidden, managed, is_a_snapshot;
    const char *snapshot_time, *snapshot_of, *metadata_of_pool; /* as given; "" when not */
    struct uuid parent;                                         /* none for a root */
    const char *damage;                                         /* why it is VDI_DAMAGED; "" otherwise */
    struct pairs sm_config;
};

/* A disk with every text "" and managed set; fill in the rest. */
struct vdi vdi_blank(void);

/* The most bytes of text one disk may have: location, labels, sm_config and all; lists of 100,000 must fit memory. */
#define VDI_TEXT_MAX 8192U
size_t vdi_text_bytes(const struct vdi *vdi);

struct vdi_list {
    struct vdi *items;
    size_t count, room;
};

/* A blank disk (vdi_blank) at the end of the list, valid until the next call. */
struct vdi *vdi_list_add(struct arena *a, struct vdi_list *l);

/* Specification table 1.1; bytes. */
struct sr_totals {
    uint64_t physical_size, physical_utilisation, virtual_allocation;
};

/* What an operation means to do, committed before its first side effect and enough to settle it after a crash,
   together with what is on the medium. */
struct plan {
    struct uuid op;     /* this operation; its first 8 digits are in the names it makes */
    const char *method; /* wire name of its row */
    struct uuid sr, vdi;
    struct uuid made, base; /* the new disk of a snapshot or clone; the base it leaves behind */
    uint64_t size;          /* wanted virtual size; resize: with old_size before it */
    uint64_t old_size;
    const char *format;     /* image format, "" when none */
    const char *name;       /* what else must be touched, as the driver wrote it down: introduce: the file name on the
                               medium; delete: the disk's ancestors; "" when none */
    uint64_t device, inode; /* of the image it is about, 0 when none: what is deleted must still be this */
    bool read_only;         /* the disk made is not to be written */
    bool keep;              /* has an operation id: finish it if it is past its point of no return */
};

/* What a vdi_delete came to. */
struct deletion {
    bool kept;         /* other disks are made from it: it is still there, hidden */
    bool freed;        /* it is still there, and for the next who asks for one: no longer managed */
    struct uuid *gone; /* hidden bases that nothing was made from any more, and that went with it */
    size_t gone_count;
};

/* How an operation was settled. */
enum settled {
    SETTLED_DONE,   /* it is whole on the medium */
    SETTLED_UNDONE, /* nothing of it is left */
    SETTLED_STUCK   /* the medium cannot be explained or reached: left as it is */
};

#endif
