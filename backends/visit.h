/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A mount for one job that nobody else sees, and that is gone with the job however that ends, kill -9 included: it is
   made in a mount namespace of a thread of its own. */
#ifndef SMAPI_BACKENDS_VISIT_H
#define SMAPI_BACKENDS_VISIT_H

#include "backends/driver.h"

struct visit {
    /* Mounts on the empty directory path, by cmd_run or a system call. */
    int (*mount)(void *arg, const char *path, struct fault *f);
    /* Does the job on the open directory; keeps no descriptor of it. */
    int (*work)(void *arg, int dir, struct fault *f);
    void *arg;
};

/* 0, or -1 with the fault of the half that failed; EIO when there can be no such thread. */
int visit(const struct visit *v, const struct backend_settings *settings, struct fault *f);

#endif
