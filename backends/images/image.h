/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image formats: how a disk's bytes lie in a file or a volume. A table of rows; layouts ask it, never a format itself.
 */
#ifndef SMAPI_BACKENDS_IMAGE_H
#define SMAPI_BACKENDS_IMAGE_H

#include "server/base/fault.h"
#include "server/base/uuid.h"
#include <stdint.h>

/* What an image says of itself. */
struct image_info {
    uint64_t size;        /* virtual, bytes */
    uint64_t utilisation; /* allocated on the medium, bytes (blocks, not file length) */
    bool hidden;          /* a base that is not to be served */
    bool differencing;    /* has a parent */
    bool unfinished;      /* a writer that was killed has left something out, which mend puts back */
    struct uuid parent;   /* VDI uuid of the parent, from the base name its locator ends in; none if that is no uuid */
    unsigned char id[16], parent_id[16]; /* the format's own identifiers; zero where the format has none */
};

#define IMAGE_CHAIN_LIMIT 30 /* images from leaf to root */

/* Opens the image of a parent for reading. *fd becomes the asker's. The fault of -1 is passed on. vdi is none when the
   child's locators hold no uuid. */
typedef int (*image_open_parent)(void *context, const struct uuid *vdi, int *fd, struct fault *f);

/* Where a format may keep the bytes it is about to overwrite: a file of this name beneath dir. */
struct image_journal {
    int dir;
    const char *name;
};

struct image_format {
    const char *name;   /* "raw", "vhd": vdi_sm_config's type */
    const char *suffix; /* ".raw", ".vhd" */
    bool chains;        /* knows parents; without it the slots of trees are NULL */

    /* The size an image really gets for a size asked for; VDISize with the limits when there is none. */
    int (*round)(uint64_t wanted, uint64_t *size, struct fault *f);
    /* Writes an empty image into a new, empty file. No sync. id: the uuid the image carries inside. */
    int (*make)(int fd, const struct uuid *id, uint64_t size, struct fault *f);
    /* Reads and checks what stands. VDILoad, saying what is wrong, for anything that is not a sound image. */
    int (*info)(int fd, struct image_info *out, struct fault *f);
    /* Every block has a place of its own, and whatever else info leaves out. NULL for a format that has nothing more.
     */
    int (*check)(int fd, struct fault *f);
    /* Writes the bytes the guest sees to out, from where it stands. Zeros are left out where out is a regular file that
       ends there; the file ends where the disk does. VDILoad for an image or a parent that cannot be read, EIO or
       SRNoSpace for what cannot be written. */
    int (*extract)(int fd, image_open_parent open_parent, void *context, int out, struct fault *f);
    /* Makes it larger; size is rounded and not smaller than now. Leaves the journal's file only when it fails;
       synced. revert: undoes what an interrupted grow left, removes the journal; fine when there is none;
       NULL for a format that never needs one. A failed sync is EIO, any other failure is not. */
    int (*grow)(int fd, uint64_t size, const struct image_journal *journal, struct fault *f);
    int (*revert)(int fd, const struct image_journal *journal, struct fault *f);

    /* Trees. */
    /* An empty child in a new file, of the parent's size, whose locators lead to <parent><suffix> beside it. No sync.
     */
    int (*make_child)(int fd, const struct uuid *id, int parent_fd, const struct uuid *parent, struct fault *f);
    /* An empty image in a new file, of the size of another image and with its parent. VDIType when that has none. No
       sync. */
    int (*make_sibling)(int fd, const struct uuid *id, int of_fd, struct fault *f);
    /* Gives a child another parent, an image of the format parent_format. Journal and sync as with grow. VDIType when
       it is no child. */
    int (*set_parent)(int fd, int parent_fd, const struct uuid *parent, const struct image_format *parent_format,
                      const struct image_journal *journal, struct fault *f);
    /* Sets or clears the hidden mark. No sync. */
    int (*hide)(int fd, bool hidden, struct fault *f);
    /* Puts back what a writer that was killed has left out, in an image that nobody else has open for writing; synced,
       if there was anything. NULL for a format of which no image is unfinished. A failed sync is EIO, any other failure
       is not. */
    int (*mend)(int fd, struct fault *f);
};

extern const struct image_format image_raw, image_vhd;

/* All rows, the one that is used when nobody asks for another first; by name; by a file name of the form
   <uuid><suffix>, the uuid in lower case. NULL when there is none. */
const struct image_format *const *image_formats(size_t *count);
const struct image_format *image_format_find(const char *name);
const struct image_format *image_format_of_file(const char *file, struct uuid *uuid);

/* fsync. -1 with EIO whatever the reason, errno kept: what was written may be lost, also when there was no room for it,
   and a second sync would not tell. */
int image_sync(int fd, const char *what, struct fault *f);
/* How long a file or block device is, and how much of that it takes on its medium. fixed: it cannot become longer.
   VDILoad for anything else. */
struct image_length {
    uint64_t length, allocated;
    bool fixed;
};
int image_length(int fd, struct image_length *out, struct fault *f);
/* Where the next data, or the next hole, begins at or after a place; length when there is none. A device is all data.
   -1 with errno. */
int image_next(int fd, bool data, uint64_t at, uint64_t length, uint64_t *out);

/* The image carries this uuid inside. */
bool image_has_id(const struct image_info *info, const struct uuid *id);
/* The format of the image a child of that format was made from: raw images have no identifier. */
const struct image_format *image_parent_format(const struct image_format *child, const struct image_info *info);
/* Why the image of the parent is not the one the child was made from; NULL when it is. */
const char *image_parent_wrong(const struct image_info *child, const struct image_info *parent);

#endif
