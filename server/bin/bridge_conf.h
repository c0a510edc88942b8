/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the bridge may be told: /etc/smapid/bridge.conf, lines "key = value", "#" before a comment. */
#ifndef SMAPI_BIN_BRIDGE_CONF_H
#define SMAPI_BIN_BRIDGE_CONF_H

#include "server/base/fault.h"
#include <stdint.h>
#include <sys/un.h>

struct bridge_conf {
    char socket[sizeof(((struct sockaddr_un *) NULL)->sun_path)]; /* socket: of the local smapid */
    uint32_t deadline_seconds;                                    /* for the whole call, 1 to 86400 */
    bool exit_fault; /* exit_status: zero (what xapi needs) or fault (the specification's: the fault's code) */
};

/* Fills out with the defaults, then with the file's values. The file is the one the environment variable
   SMAPI_BRIDGE_CONF names (xapi never sets it), else /etc/smapid/bridge.conf, which may be absent. -1 with
   SRUnavailable, naming file and line, for a file that cannot be read or holds anything else; out then has the
   defaults. */
int bridge_conf_read(struct bridge_conf *out, struct fault *f);

#endif
