/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* smapid --rebuild: a lost or damaged database made anew from the media. */
#ifndef SMAPI_SERVER_BIN_REBUILD_H
#define SMAPI_SERVER_BIN_REBUILD_H

#include "server/config.h"
#include <stddef.h>

struct rebuild_order {
    const char **srs; /* of --sr, in order: "TYPE,uuid=UUID,KEY=VALUE,..."; count of them */
    size_t count;
};

/* Takes in the repositories named, and those that this host shows by itself: what stands in server.mount_base (links,
   mounts), iSCSI sessions of ours, volume groups that bear this server's mark. Says on stdout what it took in,
   on stderr what it could not. Returns the exit status: 0 when all were, REBUILD_PARTLY when the database is made but
   some are missing in it. */
enum { REBUILD_PARTLY = 1 };
int rebuild_run(const struct settings *s, const struct rebuild_order *o);

#endif
