/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/layout.h"

struct vdi layout_copy(struct arena *a, const struct vdi *vdi)
{
    struct vdi copy = *vdi;
    copy.location = arena_text(a, vdi->location);
    copy.format = arena_text(a, vdi->format);
    copy.label = arena_text(a, vdi->label);
    copy.description = arena_text(a, vdi->description);
    copy.type = arena_text(a, vdi->type);
    copy.snapshot_time = arena_text(a, vdi->snapshot_time);
    copy.snapshot_of = arena_text(a, vdi->snapshot_of);
    copy.metadata_of_pool = arena_text(a, vdi->metadata_of_pool);
    copy.damage = arena_text(a, vdi->damage);
    copy.sm_config = pairs_copy(a, &vdi->sm_config);
    return copy;
}
