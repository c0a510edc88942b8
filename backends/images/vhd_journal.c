/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/vhd_journal.h"

#include "server/base/io.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define COOKIE "smapivhd"
#define CHUNK  65536U

/* FNV-1a */
#define SUM_BEGIN UINT64_C(0xcbf29ce484222325)
#define SUM_PRIME UINT64_C(0x100000001b3)

/* At the start of the file, all big-endian; the spans' bytes follow, then the checksum of all before it. */
struct head {
    char cookie[8];
    uint64_t inode, length, count;
    struct vhd_span spans[VHD_JOURNAL_SPANS];
};

static uint64_t sum_add(uint64_t sum, const void *data, size_t length)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < length; i++)
        sum = (sum ^ at[i]) * SUM_PRIME;
    return sum;
}

static void head_out(struct head *h)
{
    memcpy(h->cookie, COOKIE, sizeof h->cookie);
    h->inode = htobe64(h->inode);
    h->length = htobe64(h->length);
    h->count = htobe64(h->count);
    for (size_t i = 0; i < VHD_JOURNAL_SPANS; i++)
        h->spans[i] = (struct vhd_span){htobe64(h->spans[i].at), htobe64(h->spans[i].length)};
}

/* False when it cannot be the head of a journal that long. */
static bool head_in(struct head *h, uint64_t file_length)
{
    h->inode = be64toh(h->inode);
    h->length = be64toh(h->length);
    h->count = be64toh(h->count);
    uint64_t left = file_length - sizeof *h - sizeof(uint64_t);
    if (memcmp(h->cookie, COOKIE, sizeof h->cookie) != 0 || h->count > VHD_JOURNAL_SPANS)
        return false;
    for (size_t i = 0; i < VHD_JOURNAL_SPANS; i++) {
        h->spans[i] = (struct vhd_span){be64toh(h->spans[i].at), be64toh(h->spans[i].length)};
        if (h->spans[i].length > left)
            return false;
        left -= h->spans[i].length;
    }
    return left == 0;
}

/* Appends the bytes of a span to the journal. -1 with errno. */
static int save_span(int file, int image, const struct vhd_span *span, uint64_t *at, uint64_t *sum)
{
    unsigned char chunk[CHUNK];
    for (uint64_t done = 0; done < span->length;) {
        size_t n = span->length - done < CHUNK ? (size_t) (span->length - done) : CHUNK;
        if (io_read_at(image, chunk, n, span->at + done) < 0 || io_write_at(file, chunk, n, *at) < 0)
            return -1;
        *sum = sum_add(*sum, chunk, n);
        *at += n;
        done += n;
    }
    return 0;
}

static int save(int file, int image, struct head *h)
{
    size_t count = (size_t) h->count;
    struct vhd_span spans[VHD_JOURNAL_SPANS];
    memcpy(spans, h->spans, sizeof spans);
    head_out(h);
    uint64_t at = sizeof *h, sum = sum_add(SUM_BEGIN, h, sizeof *h);
    if (io_write_at(file, h, sizeof *h, 0) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (save_span(file, image, &spans[i], &at, &sum) < 0)
            return -1;
    sum = htobe64(sum);
    return io_write_at(file, &sum, sizeof sum, at);
}

int vhd_journal_make(const struct image_journal *journal, int image, const struct vhd_span *spans, size_t count,
                     struct fault *f)
{
    struct stat st;
    if (fstat(image, &st) < 0)
        return fault_errno(f, FAULT_VDISize, "look at a VHD");
    struct head h = {.inode = st.st_ino, .length = (uint64_t) st.st_size, .count = count};
    memcpy(h.spans, spans, count * sizeof *spans);
    AUTO_FD int file = io_open_beneath(journal->dir, journal->name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (file < 0 || save(file, image, &h) < 0)
        return fault_errno(f, FAULT_VDISize, "write the journal %s", journal->name);
    return image_sync(file, journal->name, f) < 0 ? -1 : image_sync(journal->dir, journal->name, f);
}

int vhd_journal_remove(const struct image_journal *journal, struct fault *f)
{
    if (unlinkat(journal->dir, journal->name, 0) < 0 && errno != ENOENT)
        return fault_errno(f, FAULT_VDISize, "remove the journal %s", journal->name);
    return image_sync(journal->dir, journal->name, f);
}

/* *whole: the journal is as it was when it was synced. -1 with errno when it cannot be read. */
static int verify(int file, struct head *h, bool *whole)
{
    struct stat st;
    unsigned char chunk[CHUNK];
    *whole = false;
    if (fstat(file, &st) < 0)
        return -1;
    uint64_t length = (uint64_t) st.st_size, sum, stored;
    if (length < sizeof *h + sizeof sum)
        return 0;
    if (io_read_at(file, h, sizeof *h, 0) < 0)
        return -1;
    sum = sum_add(SUM_BEGIN, h, sizeof *h);
    if (!head_in(h, length))
        return 0;
    for (uint64_t at = sizeof *h, end = length - sizeof sum; at < end;) {
        size_t n = end - at < CHUNK ? (size_t) (end - at) : CHUNK;
        if (io_read_at(file, chunk, n, at) < 0)
            return -1;
        sum = sum_add(sum, chunk, n);
        at += n;
    }
    if (io_read_at(file, &stored, sizeof stored, length - sizeof stored) < 0)
        return -1;
    *whole = be64toh(stored) == sum;
    return 0;
}

static int restore(int file, int image, const struct head *h)
{
    unsigned char chunk[CHUNK];
    uint64_t from = sizeof *h;
    for (size_t i = 0; i < h->count; i++)
        for (uint64_t done = 0; done < h->spans[i].length;) {
            uint64_t left = h->spans[i].length - done;
            size_t n = left < CHUNK ? (size_t) left : CHUNK;
            if (io_read_at(file, chunk, n, from) < 0 || io_write_at(image, chunk, n, h->spans[i].at + done) < 0)
                return -1;
            from += n;
            done += n;
        }
    return ftruncate(image, (off_t) h->length);
}

int vhd_journal_revert(const struct image_journal *journal, int image, struct fault *f)
{
    struct head h = {0};
    struct stat st;
    bool whole;
    AUTO_FD int file = io_open_beneath(journal->dir, journal->name, O_RDONLY, 0);
    if (file < 0 && errno == ENOENT)
        return 0;
    if (file < 0 || fstat(image, &st) < 0 || verify(file, &h, &whole) < 0)
        return fault_errno(f, FAULT_VDISize, "read the journal %s", journal->name);
    if (whole && h.inode != st.st_ino)
        return fault_set(f, FAULT_VDISize, "the journal %s is of another file than the image", journal->name);
    if (whole && restore(file, image, &h) < 0)
        return fault_errno(f, FAULT_VDISize, "put back what the journal %s holds", journal->name);
    if (whole && image_sync(image, "what the journal put back", f) < 0)
        return -1;
    return vhd_journal_remove(journal, f);
}
