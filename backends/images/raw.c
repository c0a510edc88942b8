/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* raw: the disk's bytes and nothing else, in a sparse file. */
#include "backends/images/extract.h"
#include "backends/images/image.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include "server/base/units.h"
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#define RAW_MAX ((UINT64_C(1) << 63) - SECTOR_SIZE)

static int raw_round(uint64_t wanted, uint64_t *size, struct fault *f)
{
    if (wanted == 0 || wanted > RAW_MAX)
        return fault_set(f, FAULT_VDISize, "%" PRIu64 " bytes; a raw image has 1 to %" PRIu64, wanted, RAW_MAX);
    *size = (wanted + SECTOR_SIZE - 1) / SECTOR_SIZE * SECTOR_SIZE;
    return 0;
}

/* Sets the length; what the file system cannot hold in one file is a matter of the size asked for. */
static int set_length(int fd, uint64_t size, enum fault_code code, struct fault *f)
{
    if (ftruncate(fd, (off_t) size) == 0)
        return 0;
    if (errno == EFBIG)
        code = FAULT_VDISize;
    return fault_errno(f, code, "make a raw image of %" PRIu64 " bytes", size);
}

static int raw_make(int fd, const struct uuid *id, uint64_t size, struct fault *f)
{
    (void) id; /* a raw image carries nothing but the disk's bytes */
    return set_length(fd, size, FAULT_VDICreate, f);
}

static int raw_info(int fd, struct image_info *out, struct fault *f)
{
    struct image_length l;
    if (image_length(fd, &l, f) < 0)
        return fault_prefix(f, "raw image");
    if (l.length == 0)
        return fault_set(f, FAULT_VDILoad, "the raw image is empty");
    *out = (struct image_info){.size = l.length, .utilisation = l.allocated};
    return 0;
}

static int copy(int fd, struct extract *e, uint64_t end, struct fault *f)
{
    AUTO_FREE unsigned char *chunk = malloc(EXTRACT_CHUNK);
    if (!chunk)
        return fault_errno(f, FAULT_VDILoad, "read a raw image");
    while (e->at < end) {
        size_t n = end - e->at < EXTRACT_CHUNK ? (size_t) (end - e->at) : EXTRACT_CHUNK;
        if (io_read_at(fd, chunk, n, e->at) < 0)
            return fault_errno(f, FAULT_VDILoad, "read a raw image at %" PRIu64, e->at);
        if (extract_data(e, chunk, n, f) < 0)
            return -1;
    }
    return 0;
}

/* From data to hole to data. */
static int raw_extract(int fd, image_open_parent open_parent, void *context, int out, struct fault *f)
{
    (void) open_parent, (void) context; /* a raw image has no parent */
    struct image_info info;
    struct extract e;
    if (raw_info(fd, &info, f) < 0)
        return -1;
    extract_begin(&e, out);
    while (e.at < info.size) {
        uint64_t begin, end;
        if (image_next(fd, true, e.at, info.size, &begin) < 0 || image_next(fd, false, begin, info.size, &end) < 0)
            return fault_errno(f, FAULT_VDILoad, "look for the data of a raw image");
        if (extract_zeros(&e, begin - e.at, f) < 0 || copy(fd, &e, end, f) < 0)
            return -1;
    }
    return extract_end(&e, f);
}

static int raw_grow(int fd, uint64_t size, const struct image_journal *journal, struct fault *f)
{
    (void) journal; /* nothing is overwritten */
    if (set_length(fd, size, FAULT_VDIResize, f) < 0)
        return -1;
    if (POINT(resize_grown) < 0)
        return fault_errno(f, FAULT_VDIResize, "grow a raw image");
    return image_sync(fd, "a grown raw image", f);
}

/* No revert: both lengths are sound. */
const struct image_format image_raw = {
    .name = "raw",
    .suffix = ".raw",
    .round = raw_round,
    .make = raw_make,
    .info = raw_info,
    .extract = raw_extract,
    .grow = raw_grow,
};
