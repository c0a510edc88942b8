/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/fork.h"

#define BASE_LABEL "base copy" /* as the older manager names it */

enum fault_code fork_code(const struct plan *plan)
{
    return plan->read_only ? FAULT_VDISnapshot : FAULT_VDIClone;
}

struct vdi fork_base(const struct plan *plan)
{
    struct vdi vdi = vdi_blank();
    vdi.uuid = plan->base;
    vdi.location = plan->base.text;
    vdi.label = BASE_LABEL;
    vdi.read_only = true;
    vdi.managed = false;
    return vdi;
}

struct vdi fork_made(const struct plan *plan, const struct vdi *wanted)
{
    struct vdi vdi = wanted ? *wanted : vdi_blank();
    vdi.uuid = plan->made;
    vdi.state = VDI_LIVE;
    if (!wanted || !uuid_equal(&wanted->uuid, &plan->made))
        vdi.location = plan->made.text;
    return vdi;
}
