/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* <mount_base>/<sr> as a symbolic link to a directory of this machine, which needs no privilege. */
#ifndef SMAPI_BACKENDS_TRANSPORT_LINK_H
#define SMAPI_BACKENDS_TRANSPORT_LINK_H

#include "backends/driver.h"

/* Fills sr->place with the directory dir, which is taken, at location: <mount_base>/<sr> leads there already (by
   whatever means), or a link is made that does. SRUnavailable when it leads elsewhere. */
int link_take(struct sr *sr, const char *location, int dir, struct fault *f);
/* Gives the place back and removes the link, if it says what ours says. location NULL: there is none. Idempotent. */
int link_leave(struct sr *sr, const char *location, struct fault *f);

#endif
