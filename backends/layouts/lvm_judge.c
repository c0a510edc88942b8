/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking for what should not be in the group. Changes nothing. */
#include "backends/layouts/lvm.h"
#include "backends/tools/dm.h"
#include <string.h>

#define MEMORY (256U << 20)

static void judge_name(const struct sr *sr, const struct lvm_lv *lv, struct arena *a, struct findings *out)
{
    const char *op = lvm_tag_value(lv->tags, LVM_TAG_OP, a);
    if (op && strncmp(lv->name, LVM_TEMP, strlen(LVM_TEMP)) == 0)
        finding_add(out, FINDING_litter, &sr->uuid, lv->name, "operation %s.. left volume %s", op, lv->name);
    if (lvm_tag_value(lv->tags, LVM_TAG_ZERO, a))
        finding_add(out, FINDING_litter, &sr->uuid, lv->name, "what volume %s gained was not zeroed", lv->name);
}

static int judge_kernel(const struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, struct findings *out,
                        struct fault *f)
{
    char uuid[DM_UUID_SIZE];
    struct dm_device dm;
    dm_uuid(uuid, vg->uuid, lv->uuid);
    int there = dm_find(uuid, &dm, f);
    if (there > 0 && dm.suspended)
        finding_add(out, FINDING_litter, &sr->uuid, lv->name, "the device of volume %s is suspended", lv->name);
    return there < 0 ? -1 : 0;
}

int lvm_sr_judge(struct sr *sr, struct findings *out, struct fault *f)
{
    struct lvm_vg *vg;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    for (size_t i = 0; i < vg->lv_count; i++) {
        judge_name(sr, &vg->lvs[i], a, out);
        if (judge_kernel(sr, vg, &vg->lvs[i], out, f) < 0)
            return -1;
    }
    return 0;
}

int lvm_vdi_verify(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    struct lvm_vg *vg;
    bool raw;
    uint64_t ignored;
    AUTO_VOLUME struct volume v = {0};
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, &vdi->uuid, &raw);
    if (!lv)
        return fault_set(f, FAULT_VDIUnavailable, "there is no volume of disk %s", vdi->uuid.text);
    return raw || (volume_open(vg, lv, false, &v, f) == 0 && lvm_image_least(&v, &ignored, f) == 0) ? 0 : -1;
}
