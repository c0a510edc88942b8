/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The layouts that types.def may name, and what they share. */
#ifndef SMAPI_BACKENDS_LAYOUT_H
#define SMAPI_BACKENDS_LAYOUT_H

#include "backends/driver.h"

extern const struct layout layout_dummy;
extern const struct layout layout_file;
extern const struct layout layout_iso;
extern const struct layout layout_lun;
extern const struct layout layout_lvm;

/* The disk with all its text copied into the arena. */
struct vdi layout_copy(struct arena *a, const struct vdi *vdi);

#endif
