/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The leases of one host, for calls that do the same to each of them (handlers/lease.c). */
#ifndef SMAPI_HANDLERS_LEASES_H
#define SMAPI_HANDLERS_LEASES_H

#include "handlers/state.h"

/* work->leases, in order of epoch: those of host, and of this boot of it when boot is one. At most so many that a call
   can do them all; work->more tells that others are left. */
int read_leases(struct txn *t, struct call *c, const char *host, const struct uuid *boot, struct fault *f);
/* Which lease a part is about: sr_uuid, vdi_uuid, epoch. */
void put_lease(struct arena *a, struct value *params, const struct lease *l);

#endif
