/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whose a volume group is, by its tags: smapi_owner=<server>, and smapi_claim=<operation>:<seconds>, by which operation
   and since when. */
#ifndef SMAPI_BACKENDS_LVM_CLAIM_H
#define SMAPI_BACKENDS_LVM_CLAIM_H

#include "backends/driver.h"
#include "backends/tools/lvm.h"

struct owner lvm_claim_of(const struct lvm_vg *vg, struct arena *a);
/* The tags of a claim of the SR's server, and one more or NULL; NULL behind them. */
const char *const *lvm_claim_tags(const struct sr *sr, const struct uuid *op, const char *more, struct arena *a);
/* Puts a claim of the SR's server by this operation in the place of the one read, if that still stands; whether it did
   is to be read again, at once and after LVM_CLAIM_SECONDS: LVM changes the tags only if the old claim is among them,
   under its lock of the group, which keeps apart those on one host. Hosts that share the devices have no lock in
   common: the last to write wins. */
int lvm_claim_move(const struct sr *sr, const struct lvm_scope *scope, const struct lvm_vg *vg, const struct uuid *op,
                   struct arena *a, struct fault *f);
#define LVM_CLAIM_SECONDS 2 /* longer than LVM takes from reading a group to having written it */
/* 0 when the claim read is the operation's; SRUnavailable, or SRInUse, naming whose it is. */
int lvm_claim_check(const struct sr *sr, const struct owner *now, const struct uuid *op, struct fault *f);

/* Physical volumes that others made have uuids that do not tell whose they are once their group is gone: before that a
   note in the device's first sector, which LVM leaves alone, says that it goes with this SR. LVMWrite. */
int lvm_doom(const struct sr *sr, const char *device, struct fault *f);
bool lvm_is_doomed(const struct sr *sr, const char *device);
/* Takes the note away, if there is one. */
int lvm_undoom(const struct sr *sr, const char *device, struct fault *f);

#endif
