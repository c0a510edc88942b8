/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the layouts with trees have in common of vdi_snapshot and vdi_clone: the disks that a fork gives. */
#ifndef SMAPI_BACKENDS_FORK_H
#define SMAPI_BACKENDS_FORK_H

#include "backends/driver.h"

/* The fault of a fork's failed step. */
enum fault_code fork_code(const struct plan *plan);

/* The base that both children share, without size and time. Its text is the plan's. */
struct vdi fork_base(const struct plan *plan);

/* The new disk, without size and time: wanted with the plan's uuid, or blank labels when recovery has no row of it any
   more (NULL). Its text is wanted's and the plan's. */
struct vdi fork_made(const struct plan *plan, const struct vdi *wanted);

#endif
