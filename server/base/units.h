/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Units are types, so that a count of sectors is never taken for a count of bytes. */
#ifndef SMAPI_BASE_UNITS_H
#define SMAPI_BASE_UNITS_H

#include <stdint.h>

typedef struct {
    uint64_t n;
} bytes;

typedef struct {
    uint64_t n;
} sectors; /* of 512 bytes */

#define SECTOR_SIZE 512U
#define MIB         (UINT64_C(1) << 20)
#define GIB         (UINT64_C(1) << 30)

static inline bytes bytes_of(sectors s)
{
    return (bytes){s.n * SECTOR_SIZE};
}

#endif
