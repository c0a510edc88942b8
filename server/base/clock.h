/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two clocks: boot time, which counts suspend and no administrator can set, for every decision; wall time for people.
 */
#ifndef SMAPI_BASE_CLOCK_H
#define SMAPI_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_boot_ns(void); /* CLOCK_BOOTTIME */
int64_t clock_wall_s(void);  /* CLOCK_REALTIME, seconds since 1970; only ever shown, never compared */

/* "2026-11-22T10:20:00Z" and its NUL. */
#define CLOCK_TEXT 21
void clock_text(int64_t wall_s, char out[CLOCK_TEXT]);

#endif
