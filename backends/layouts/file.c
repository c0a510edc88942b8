/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/file.h"

/* No disk_write, disk_log: the data path opens the images itself. */
const struct layout layout_file = {
    .name = "file",
    .thin = true,
    .recognise = file_recognise,
    .sr_create = file_sr_create,
    .sr_delete = file_sr_delete,
    .sr_attach = file_sr_attach,
    .sr_detach = file_sr_detach,
    .sr_check = file_sr_check,
    .sr_scan = file_sr_scan,
    .sr_totals = file_sr_totals,
    .vdi_create = file_vdi_create,
    .vdi_locate = file_vdi_locate,
    .vdi_delete = file_vdi_delete,
    .vdi_introduce = file_vdi_introduce,
    .vdi_update = file_vdi_update,
    .vdi_resize = file_vdi_resize,
    .vdi_read = file_vdi_read,
    .vdi_reset = file_vdi_reset,
    .vdi_compose = file_vdi_compose,
    .vdi_snapshot = file_vdi_fork,
    .vdi_clone = file_vdi_fork,
    .vdi_attach = file_vdi_attach,
    .vdi_detach = file_vdi_detach,
    .vdi_activate = file_vdi_activate,
    .vdi_deactivate = file_vdi_deactivate,
    .settle = file_settle,
};
