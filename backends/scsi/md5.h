/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* MD5, RFC 1321: a name for a LUN, nothing that keeps a secret. */
#ifndef SMAPI_BACKENDS_SCSI_MD5_H
#define SMAPI_BACKENDS_SCSI_MD5_H

#include <stddef.h>

/* The sum of these bytes as 32 lower-case hexadecimal digits. */
void md5_hex(const void *data, size_t length, char out[33]);

#endif
