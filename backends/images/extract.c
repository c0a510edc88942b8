/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/extract.h"

#include "server/base/io.h"
#include <string.h>
#include <sys/stat.h>

#define GRAIN 4096U /* stretches of zeros shorter than this are written */

void extract_begin(struct extract *e, int out)
{
    struct stat st;
    off_t at = lseek(out, 0, SEEK_CUR);
    *e = (struct extract){.out = out};
    e->sparse = at >= 0 && fstat(out, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= at;
    e->start = e->sparse ? (uint64_t) at : 0;
}

static int put(struct extract *e, const unsigned char *data, size_t length, struct fault *f)
{
    int r = e->sparse ? io_write_at(e->out, data, length, e->start + e->at) : io_write(e->out, data, length);
    if (r < 0)
        return fault_errno(f, FAULT_EIO, "write the disk's bytes");
    e->at += length;
    return 0;
}

int extract_zeros(struct extract *e, uint64_t length, struct fault *f)
{
    static const unsigned char zeros[64U * 1024];
    if (e->sparse) {
        e->at += length;
        return 0;
    }
    while (length > 0) {
        size_t n = length < sizeof zeros ? (size_t) length : sizeof zeros;
        if (put(e, zeros, n, f) < 0)
            return -1;
        length -= n;
    }
    return 0;
}

static bool is_zero(const unsigned char *data, size_t length)
{
    return data[0] == 0 && memcmp(data, data + 1, length - 1) == 0;
}

int extract_data(struct extract *e, const unsigned char *data, size_t length, struct fault *f)
{
    while (length > 0) {
        size_t grain = e->sparse ? GRAIN : length, n = length < grain ? length : grain;
        bool zero = e->sparse && is_zero(data, n);
        if ((zero ? extract_zeros(e, n, f) : put(e, data, n, f)) < 0)
            return -1;
        data += n;
        length -= n;
    }
    return 0;
}

int extract_end(const struct extract *e, struct fault *f)
{
    if (e->sparse && ftruncate(e->out, (off_t) (e->start + e->at)) < 0)
        return fault_errno(f, FAULT_EIO, "give the file its length");
    return 0;
}
