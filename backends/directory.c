/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/directory.h"

#include <fcntl.h>

DIR *directory_entries(int dir)
{
    AUTO_FD int again = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = again < 0 ? NULL : fdopendir(again);
    if (entries)
        again = -1; /* it is the entries' now */
    return entries;
}
