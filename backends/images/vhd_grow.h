/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The slots grow and revert of image_vhd. */
#ifndef SMAPI_BACKENDS_VHD_GROW_H
#define SMAPI_BACKENDS_VHD_GROW_H

#include "backends/images/image.h"

/* A BAT that has no room for the new entries grows into what stands behind it: batmap and locators move back, blocks
   that are in the way move to the end of the file. All that is overwritten is in the journal before the first write. */
int vhd_grow(int fd, uint64_t size, const struct image_journal *journal, struct fault *f);
int vhd_revert(int fd, const struct image_journal *journal, struct fault *f);

#endif
