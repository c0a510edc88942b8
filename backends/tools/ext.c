/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/tools/ext.h"

#include "server/base/cmd.h"

enum { MAKE_SECONDS = 600, CHECK_SECONDS = 3600, REPAIRED = 1 };

int ext_make(const char *device, const struct uuid *op, int hold, struct arena *a, struct fault *f)
{
    const char *label = arena_printf(a, "smapi-%.8s", op->text);
    const char *const argv[] = {"/sbin/mkfs.ext4", "-q", "-U", op->text, "-L", label, device, NULL};
    const struct cmd cmd = {.argv = argv, .seconds = MAKE_SECONDS, .hold = hold};
    struct cmd_result r;
    if (cmd_run(&cmd, a, &r, f) < 0)
        return -1;
    return r.status ? fault_set(f, FAULT_LVMFilesystem, "%s on %s", cmd_failure(&cmd, &r, a), device) : 0;
}

/* What e2fsck finds it says on standard output. */
int ext_check(const char *device, int hold, struct arena *a, struct fault *f)
{
    const char *const argv[] = {"/sbin/e2fsck", "-p", device, NULL};
    const struct cmd cmd = {.argv = argv, .seconds = CHECK_SECONDS, .hold = hold};
    struct cmd_result r;
    if (cmd_run(&cmd, a, &r, f) < 0)
        return -1;
    if (r.status <= REPAIRED)
        return 0;
    return fault_set(f, FAULT_LVMMount, "%s: %.300s", cmd_failure(&cmd, &r, a), r.out);
}
