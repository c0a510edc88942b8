/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes an image is about to lose, kept in a file beside it: its length, its inode, the bytes, and a checksum over
   all. A journal that is not whole was never synced, so its image was not touched yet. */
#ifndef SMAPI_BACKENDS_VHD_JOURNAL_H
#define SMAPI_BACKENDS_VHD_JOURNAL_H

#include "backends/images/image.h"

#define VHD_JOURNAL_SPANS 8U

/* A stretch of the image, all of it within the image's present length. Spans may overlap. */
struct vhd_span {
    uint64_t at, length;
};

/* In all three a failed sync is EIO, a full medium SRNoSpace, anything else VDISize. */

/* Keeps the spans, synced with its name; refused when a journal is there already. */
int vhd_journal_make(const struct image_journal *journal, int image, const struct vhd_span *spans, size_t count,
                     struct fault *f);
/* Puts everything back, length too, syncs, and removes the journal; nothing when there is none; only removes one that
   is not whole. May be repeated after a crash. Refused, without a change, when the journal is another image's. */
int vhd_journal_revert(const struct image_journal *journal, int image, struct fault *f);
/* Forgets it, durably. */
int vhd_journal_remove(const struct image_journal *journal, struct fault *f);

#endif
