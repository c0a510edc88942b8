/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows of disks and their sm_config. */
#ifndef SMAPI_STORE_VDI_H
#define SMAPI_STORE_VDI_H

#include "server/base/model.h"
#include "store/store.h"

/* By uuid, or by location; 0 with *out NULL when there is none, whatever its state. */
int store_vdi_find(struct txn *t, const struct uuid *sr, const struct uuid *vdi, struct arena *a, struct vdi **out,
                   struct fault *f);
int store_vdi_find_location(struct txn *t, const struct uuid *sr, const char *location, struct arena *a,
                            struct vdi **out, struct fault *f);
/* Inserts or replaces, with its sm_config. A location that another disk of the SR has gives VDIExists, an SR without a
   row SRUnavailable. */
int store_vdi_put(struct txn *t, const struct uuid *sr, const struct vdi *vdi, struct fault *f);
/* VDIUnavailable when there is no such row. */
int store_vdi_set_state(struct txn *t, const struct uuid *sr, const struct uuid *vdi, enum vdi_state state,
                        struct fault *f);
/* With its sm_config, attachments and leases; 0 when it was not there. */
int store_vdi_remove(struct txn *t, const struct uuid *sr, const struct uuid *vdi, struct fault *f);
/* Disks whose uuid is greater than after, in order of uuid, at most limit (0: all). */
int store_vdi_list(struct txn *t, const struct uuid *sr, const struct uuid *after, size_t limit, struct arena *a,
                   struct vdi_list *out, struct fault *f);
/* Disks of an SR that are not hidden and not VDI_DELETING. */
int store_vdi_count(struct txn *t, const struct uuid *sr, uint64_t *out, struct fault *f);
/* Sum of the virtual sizes of an SR's disks that are not hidden: its virtual_allocation. */
int store_vdi_allocation(struct txn *t, const struct uuid *sr, uint64_t *out, struct fault *f);
/* How many disks a disk's chain has, itself and all its ancestors: 1 for a root; STORE_DEPTH_MAX when it does not end.
 */
#define STORE_DEPTH_MAX 64
int store_vdi_depth(struct txn *t, const struct uuid *sr, const struct uuid *vdi, uint64_t *out, struct fault *f);
/* Disks whose parent this is. */
int store_vdi_children(struct txn *t, const struct uuid *sr, const struct uuid *vdi, uint64_t *out, struct fault *f);

#endif
