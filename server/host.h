/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which host this is. */
#ifndef SMAPI_SERVER_HOST_H
#define SMAPI_SERVER_HOST_H

#include "server/base/fault.h"
#include "server/base/uuid.h"

#define HOST_INVENTORY "/etc/xensource-inventory"

/* The uuid of this host: the configured one; without it (none) INSTALLATION_UUID of the inventory file, where a Xen
   host keeps it; without that the one in <state>/host, which is made there the first time. The directory state
   exists. -1 with fault EIO, or InvalidArg for a file whose content is no uuid. */
int host_uuid(const struct uuid *configured, const char *inventory, const char *state, struct uuid *out,
              struct fault *f);

#endif
