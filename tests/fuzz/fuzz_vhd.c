/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An image made of the input: asked for its info, checked, read, written to, hidden and grown. The first byte says how:
   bit 0 rights the checksums where structures should stand, bits 1 to 3 make the file longer, bit 4 makes the parent
   the image itself instead of a sound one. A change that succeeds leaves a sound image. */
#include "backends/images/vhd.h"
#include "server/base/io.h"
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CEILING 65536U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct parent {
    int fd; /* of the image, or of a base */
};

static void fix(unsigned char *at, size_t length, size_t checksum_at)
{
    uint32_t sum = 0;
    memset(at + checksum_at, 0, 4);
    for (size_t i = 0; i < length; i++)
        sum += at[i];
    for (size_t i = 0; i < 4; i++)
        at[checksum_at + i] = (unsigned char) (~sum >> (24 - 8 * i));
}

static void fix_checksums(unsigned char *image, size_t size)
{
    if (size >= 512)
        fix(image + size - 512, 512, 64);
    if (size >= 1024)
        fix(image, 512, 64);
    if (size >= 2048)
        fix(image + 512, 1024, 36);
}

static int make_file(const void *data, size_t size, uint64_t length)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    assert(fd >= 0);
    assert(io_write_at(fd, data, size, 0) == 0 && ftruncate(fd, (off_t) length) == 0);
    return fd;
}

static int open_parent(void *context, const struct uuid *vdi, int *fd, struct fault *f)
{
    const struct parent *parent = context;
    (void) vdi;
    *fd = fcntl(parent->fd, F_DUPFD_CLOEXEC, 3);
    return *fd < 0 ? fault_errno(f, FAULT_EIO, "dup") : 0;
}

static void use_chain(int fd, bool writable, struct parent *parent)
{
    struct fault f;
    struct vhd_chain *chain;
    struct vhd_extent e;
    static unsigned char buffer[8192];
    if (vhd_chain_open(fd, writable, open_parent, parent, &chain, &f) < 0)
        return;
    uint64_t size = vhd_chain_size(chain), places[] = {0, 513, size / 2, size > 9000 ? size - 9000 : 0};
    for (size_t i = 0; i < COUNT_OF(places); i++)
        vhd_chain_read(chain, buffer, sizeof buffer, places[i], &f);
    if (size < UINT64_C(1) << 32)
        vhd_chain_extent(chain, 0, &e, &f);
    if (writable && vhd_chain_write(chain, buffer, 512, size / 1024 * 512, &f) == 0)
        assert(vhd_chain_read(chain, buffer, 512, size / 1024 * 512, &f) == 0 && vhd_check(fd, &f) == 0);
    vhd_chain_close(chain);
}

static void change(int fd)
{
    static int dir = -1;
    struct fault f;
    struct image_info info;
    if (dir < 0) {
        char path[] = "/dev/shm/fuzz-vhd-XXXXXX";
        assert(mkdtemp(path));
        dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    struct image_journal journal = {dir, "journal"};
    if (image_vhd.info(fd, &info, &f) < 0)
        return;
    if (image_vhd.hide(fd, true, &f) == 0)
        assert(image_vhd.info(fd, &info, &f) == 0 && info.hidden);
    if (image_vhd.grow(fd, info.size + 700 * 2097152, &journal, &f) == 0)
        assert(image_vhd.info(fd, &info, &f) == 0);
    assert(image_vhd.revert(fd, &journal, &f) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int base = -1;
    struct fault f;
    struct image_info info;
    if (size < 2 || size > CEILING)
        return 0;
    if (base < 0) {
        struct uuid id = UUID_NONE;
        uuid_parse_text("00000000-0000-0000-0000-000000000000", &id);
        base = make_file("", 0, 0);
        assert(image_vhd.make(base, &id, 4 << 20, &f) == 0);
    }
    unsigned char *image = malloc(size - 1);
    assert(image);
    memcpy(image, data + 1, size - 1);
    if (data[0] & 1)
        fix_checksums(image, size - 1);
    int fd = make_file(image, size - 1, (size - 1) + ((uint64_t) (data[0] >> 1 & 7) << 20));
    struct parent parent = {data[0] & 16 ? fd : base};
    image_vhd.info(fd, &info, &f);
    vhd_check(fd, &f);
    use_chain(fd, false, &parent);
    use_chain(fd, true, &parent);
    change(fd);
    close(fd);
    free(image);
    return 0;
}
