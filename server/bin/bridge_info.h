/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sr_get_driver_info, answered from types.def alone: xapi asks it at its start, when nothing else is up. */
#ifndef SMAPI_BIN_BRIDGE_INFO_H
#define SMAPI_BIN_BRIDGE_INFO_H

#include "server/base/fault.h"
#include "server/base/text.h"

/* Adds the whole methodResponse. -1 with SRUnknownType when types.def has no such row. */
int bridge_info(const char *type, struct text *out, struct fault *f);

#endif
