/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How the images of a directory hang together. */
#ifndef SMAPI_BACKENDS_FILE_TREE_H
#define SMAPI_BACKENDS_FILE_TREE_H

#include "backends/layouts/file.h"

/* Where an image stands among the others. */
struct standing {
    size_t children;    /* sound ones made from it */
    const char *damage; /* why it cannot be used, its own damage first; NULL for a sound one */
};
/* Of each image, in their order. */
const struct standing *tree_resolve(const struct scan_cache *c, struct arena *a);

/* What an image was made from, nearest first. */
struct lineage {
    struct uuid uuids[IMAGE_CHAIN_LIMIT];
    size_t count;
};
/* Follows the parents by the images themselves. VDIUnavailable for one that is missing, VDILoad for a loop and for one
   that the child was not made from, SnapshotChainTooLong for more than IMAGE_CHAIN_LIMIT images. out holds what was
   found also then. */
int tree_lineage(int dir, const struct uuid *vdi, const struct image_format *format, const struct image_info *info,
                 struct lineage *out, struct fault *f);

/* Who says that they were made from an image. */
struct offspring {
    size_t count;
    bool unknown; /* there are images that cannot be read, and may be children too */
};
/* Looks at all images. */
int tree_offspring(struct sr *sr, const struct uuid *vdi, struct offspring *out, struct fault *f);

/* Opens a parent, whatever its format; context is a pointer to the directory's descriptor. */
int tree_open_parent(void *context, const struct uuid *vdi, int *fd, struct fault *f);

#endif
