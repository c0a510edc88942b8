/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The slot set_parent of image_vhd. */
#ifndef SMAPI_BACKENDS_VHD_RELINK_H
#define SMAPI_BACKENDS_VHD_RELINK_H

#include "backends/images/image.h"

/* The header is changed where it stands, and each locator in its own place; those of a kind nobody writes any more go.
   What is overwritten is in the journal before the first write. */
int vhd_set_parent(int fd, int parent_fd, const struct uuid *parent, const struct image_format *parent_format,
                   const struct image_journal *journal, struct fault *f);

#endif
