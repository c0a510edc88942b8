/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking for SRs in places. */
#ifndef SMAPI_BACKENDS_PROBE_H
#define SMAPI_BACKENDS_PROBE_H

#include "backends/driver.h"

/* Adds the SR that the place is, if it is one; path is what is said of where, size in bytes. That of a directory is its
   file system's. */
void probe_place(const struct layout *layout, const struct place *place, const char *path, uint64_t size,
                 struct arena *a, struct found_list *out);
/* Adds the SR that dir is, if it is one; path is what is said of where. */
void probe_directory(const struct layout *layout, int dir, const char *path, struct arena *a, struct found_list *out);
/* Adds those that directories in top are; bounded in what is looked at and in what is found. -1 with errno. */
int probe_below(const struct layout *layout, int top, const char *path, struct arena *a, struct found_list *out);

#endif
