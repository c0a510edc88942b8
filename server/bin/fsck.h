/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* smapid --fsck: asks the running daemon over its UNIX socket whether everything agrees with everything, or, when none
   runs, looks for itself. Changes nothing. */
#ifndef SMAPI_SERVER_BIN_FSCK_H
#define SMAPI_SERVER_BIN_FSCK_H

#include "server/config.h"

/* Exit statuses: 0 when there is no difference. */
enum { FSCK_DIFFERENCES = 1 };

struct fsck_order {
    bool strict, json;
    const char *sr; /* NULL: all */
};

/* One difference a line on stdout, sentences about the check itself on stderr. Returns the exit status. */
int fsck_run(const struct settings *s, const struct fsck_order *o);

#endif
