/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of iSCSI initiators and targets, RFC 3720 3.2.6.3. */
#ifndef SMAPI_BACKENDS_SCSI_NAME_H
#define SMAPI_BACKENDS_SCSI_NAME_H

#include <stdbool.h>

/* What is wrong with a name, or NULL: "iqn." year and month and a domain, "eui." and 16, "naa." and 16 or 32
   hexadecimal digits; at most 223 bytes; letters, digits, ".", "-" and ":" only. */
const char *iscsi_name_bad(const char *name);

#endif
