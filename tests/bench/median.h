/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SMAPI_BENCH_MEDIAN_H
#define SMAPI_BENCH_MEDIAN_H

#include <stddef.h>
#include <stdlib.h>

static inline int median_rising(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Sorts values; of that part of them (0 to 1). */
static inline double quantile(double *values, size_t count, double part)
{
    qsort(values, count, sizeof *values, median_rising);
    return values[(size_t) (part * (double) (count - 1))];
}

static inline double median(double *values, size_t count)
{
    return quantile(values, count, 0.5);
}

#endif
