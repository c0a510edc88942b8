/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vhd_write DIRECTORY VDI: writes into a disk as a data path would, through its chain. DIRECTORY holds image files, or
   is that of a volume group. Standard input holds pieces, each a line "<offset> <length>", both whole sectors, and that
   many bytes. Nothing else may use the disk meanwhile. */
#include "backends/images/vhd.h"
#include "server/base/io.h"
#include "server/base/own.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LONGEST_PIECE (64U << 20)

static int open_image(int dir, const struct uuid *vdi, bool raw, int flags)
{
    char name[UUID_TEXT + 8];
    snprintf(name, sizeof name, "%s%s", vdi->text, raw ? ".raw" : ".vhd");
    int fd = openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    snprintf(name, sizeof name, "%s%s", raw ? "LV-" : "VHD-", vdi->text);
    return openat(dir, name, flags | O_CLOEXEC);
}

static int open_parent(void *context, const struct uuid *vdi, int *fd, struct fault *f)
{
    const int *dir = context;
    int found = open_image(*dir, vdi, false, O_RDONLY);
    if (found < 0)
        found = open_image(*dir, vdi, true, O_RDONLY);
    if (found < 0)
        return fault_errno(f, FAULT_VDILoad, "open parent %s", vdi->text);
    *fd = found;
    return 0;
}

/* One piece; *more false at the end of the input. */
static int write_piece(struct vhd_chain *chain, bool *more, struct fault *f)
{
    uint64_t offset, length;
    int got = scanf("%" SCNu64 " %" SCNu64, &offset, &length);
    *more = got == 2;
    if (got == EOF)
        return 0;
    if (got != 2 || getchar() != '\n' || length > LONGEST_PIECE)
        return fault_set(f, FAULT_InvalidArg, "want lines \"<offset> <length>\"");
    AUTO_FREE unsigned char *data = malloc(length + 1);
    if (!data || fread(data, 1, length, stdin) != length)
        return fault_set(f, FAULT_InvalidArg, "want %" PRIu64 " bytes at %" PRIu64, length, offset);
    return vhd_chain_write(chain, data, length, offset, f);
}

static int write_all(int dir, const struct uuid *vdi, struct fault *f)
{
    struct vhd_chain *chain;
    AUTO_FD int leaf = open_image(dir, vdi, false, O_RDWR);
    if (leaf < 0)
        return fault_errno(f, FAULT_VDILoad, "open %s", vdi->text);
    if (vhd_chain_open(leaf, true, open_parent, &dir, &chain, f) < 0)
        return -1;
    bool more = true;
    int failed = 0;
    while (more && !failed)
        failed = write_piece(chain, &more, f);
    if (!failed)
        failed = vhd_chain_sync(chain, f);
    vhd_chain_close(chain);
    return failed;
}

int main(int argc, char **argv)
{
    struct uuid vdi;
    struct fault f = {0};
    if (argc != 3 || !uuid_parse_text(argv[2], &vdi)) {
        fprintf(stderr, "usage: vhd_write DIRECTORY VDI <PIECES\n");
        return 2;
    }
    AUTO_FD int dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || write_all(dir, &vdi, &f) < 0) {
        fprintf(stderr, "vhd_write: %s\n", f.code ? f.detail : "no such directory");
        return 1;
    }
    return 0;
}
