/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/lvm.h"

/* No disk_write, disk_log: the data path opens the volumes itself. No vdi_restore: a data path that outlived this
   process still has them. */
const struct layout layout_lvm = {
    .name = "lvm",
    .plain_format = "raw",
    .masters = true,
    .recognise = lvm_recognise,
    .recognise_own = lvm_recognise_own,
    .sr_create = lvm_sr_create,
    .sr_delete = lvm_sr_delete,
    .sr_attach = lvm_sr_attach,
    .sr_detach = lvm_sr_detach,
    .sr_check = lvm_sr_check,
    .sr_look = lvm_sr_look,
    .sr_owner = lvm_sr_owner,
    .sr_take = lvm_sr_take,
    .sr_judge = lvm_sr_judge,
    .sr_hold = lvm_sr_hold,
    .sr_scan = lvm_sr_scan,
    .sr_totals = lvm_sr_totals,
    .vdi_create = lvm_vdi_create,
    .vdi_locate = lvm_vdi_locate,
    .vdi_delete = lvm_vdi_delete,
    .vdi_introduce = lvm_vdi_introduce,
    .vdi_update = lvm_vdi_update,
    .vdi_resize = lvm_vdi_resize,
    .vdi_read = lvm_vdi_read,
    .vdi_verify = lvm_vdi_verify,
    .vdi_snapshot = lvm_vdi_fork,
    .vdi_clone = lvm_vdi_fork,
    .vdi_attach = lvm_vdi_attach,
    .vdi_detach = lvm_vdi_detach,
    .vdi_activate = lvm_vdi_activate,
    .vdi_deactivate = lvm_vdi_deactivate,
    .settle = lvm_settle,
};
