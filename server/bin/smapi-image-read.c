/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* smapi-image-read DIRECTORY VDI > FILE: the bytes a guest sees of a disk, from the images in a directory, through the
   reader the daemon has. Needs no daemon and no database: for rescue, and as the other side of tests. */
#include "backends/guard.h"
#include <fcntl.h>

int main(int argc, char **argv)
{
    struct uuid vdi;
    struct fault f = {0};
    if (argc != 3 || !uuid_parse_text(argv[2], &vdi)) {
        fprintf(stderr, "usage: smapi-image-read DIRECTORY VDI-UUID > FILE\n");
        return 64;
    }
    AUTO_FD int dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        fprintf(stderr, "smapi-image-read: open %s: %m\n", argv[1]);
        return 1;
    }
    if (backend_image_read(dir, &vdi, STDOUT_FILENO, &f) == 0)
        return 0;
    fprintf(stderr, "smapi-image-read: %s: %s\n", fault_row(f.code)->text, f.detail);
    return 1;
}
