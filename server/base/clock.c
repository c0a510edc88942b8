/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/clock.h"

#include <time.h>

int64_t clock_boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_wall_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec;
}

void clock_text(int64_t wall_s, char out[CLOCK_TEXT])
{
    time_t t = (time_t) wall_s;
    struct tm tm;
    if (!gmtime_r(&t, &tm) || strftime(out, CLOCK_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        out[0] = '\0';
}
