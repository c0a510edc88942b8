/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows of SRs and their device_config. */
#ifndef SMAPI_STORE_SR_H
#define SMAPI_STORE_SR_H

#include "server/base/model.h"
#include "store/store.h"

enum sr_state { SR_CREATING, SR_LIVE, SR_DELETING };

struct sr_row {
    struct uuid uuid;
    const char *type; /* row of types.def */
    enum sr_state state;
    const char *label, *description; /* never NULL */
    struct sr_totals totals;         /* as last scanned */
    int64_t scanned;                 /* wall clock, 0 for never */
    struct pairs config;             /* device_config without secrets */
};

/* 0 with *out NULL when there is none. Text lives in a. */
int store_sr_find(struct txn *t, const struct uuid *uuid, struct arena *a, struct sr_row **out, struct fault *f);
/* Inserts or replaces, with its config. */
int store_sr_put(struct txn *t, const struct sr_row *row, struct fault *f);
/* Both: SRUnavailable when there is no such row. set_totals says that it was scanned now. */
int store_sr_set_state(struct txn *t, const struct uuid *uuid, enum sr_state state, struct fault *f);
int store_sr_set_totals(struct txn *t, const struct uuid *uuid, const struct sr_totals *totals, struct fault *f);
/* Removes the row with all that belongs to it: config, disks, attachments, leases. */
int store_sr_remove(struct txn *t, const struct uuid *uuid, struct fault *f);
/* All of them, by uuid. */
int store_sr_list(struct txn *t, struct arena *a, struct sr_row **out, size_t *count, struct fault *f);

#endif
