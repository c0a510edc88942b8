/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/wal.h"

#include "server/base/io.h"
#include "server/base/log.h"
#include "server/base/own.h"
#include <endian.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A log is a header and frames, each a header and a page. Numbers are big-endian.
     header: magic, version, page size, count of checkpoints, two salts, two sums of what is before
     frame:  page, size of the database where it ends a commit, else 0, the salts, two sums of the log up to here */
enum { HEADER = 32, FRAME = 24, PAGE_MIN = 512, PAGE_MAX = 65536, MAGIC = 0x377f0682, SYNCED = 32, SUFFIX = 4 };

struct sums {
    uint32_t a, b;
};

struct wal {
    sqlite3_file base;
    int synced;        /* <database>-synced, or -1 */
    char *synced_path; /* ours */
    bool big;          /* how words of pages are summed */
    uint32_t page;     /* 0 while there is no header */
    unsigned char salts[8];
    sqlite3_int64 end, durable; /* of the last commit that was written, and of the last that was synced */
    sqlite3_int64 closing;      /* where a commit ends whose last page is yet to be written; 0: none */
};

static sqlite3_file *beneath(sqlite3_file *file)
{
    return (sqlite3_file *) ((struct wal *) file + 1);
}

static uint32_t number_at(const unsigned char *p)
{
    uint32_t n;
    memcpy(&n, p, sizeof n);
    return be32toh(n);
}

static struct sums sums_at(const unsigned char *p)
{
    return (struct sums){number_at(p), number_at(p + 4)};
}

static bool equal(struct sums x, struct sums y)
{
    return x.a == y.a && x.b == y.b;
}

static struct sums add(struct sums s, bool big, const unsigned char *data, uint32_t length)
{
    for (uint32_t i = 0; i < length; i += 8) {
        uint32_t word[2];
        memcpy(word, data + i, sizeof word);
        s.a += (big ? be32toh(word[0]) : le32toh(word[0])) + s.b;
        s.b += (big ? be32toh(word[1]) : le32toh(word[1])) + s.a;
    }
    return s;
}

static sqlite3_int64 frame_at(const struct wal *w, sqlite3_int64 n)
{
    return HEADER + n * (FRAME + (sqlite3_int64) w->page);
}

/* Whether the frame follows what had these sums. */
static bool follows(const struct wal *w, struct sums before, const unsigned char *frame)
{
    struct sums s = add(add(before, w->big, frame, 8), w->big, frame + FRAME, w->page);
    return memcmp(frame + 8, w->salts, sizeof w->salts) == 0 && equal(s, sums_at(frame + 16));
}

static bool ends_commit(const unsigned char *frame)
{
    return number_at(frame + 4) != 0;
}

/* Takes salts and page size from a header. False when it is none. */
static bool learn(struct wal *w, const unsigned char *header)
{
    uint32_t page = number_at(header + 8);
    w->big = number_at(header) & 1;
    w->page = 0;
    w->end = w->durable = 0;
    if ((number_at(header) & ~1U) != MAGIC || page < PAGE_MIN || page > PAGE_MAX || (page & (page - 1)) != 0 ||
        !equal(add((struct sums){0, 0}, w->big, header, 24), sums_at(header + 24)))
        return false;
    w->page = page;
    memcpy(w->salts, header + 16, sizeof w->salts);
    return true;
}

/* ------------------------------------------------------------------ what was synced */

/* <database>-synced: the salts, how many bytes are durable, and both again (the bytes as their complement), so that
   what is half written is known for what it is. */
static void note(struct wal *w)
{
    unsigned char text[SYNCED];
    uint64_t end = htobe64((uint64_t) w->durable), not_end = ~end;
    memcpy(text, w->salts, 8);
    memcpy(text + 8, &end, 8);
    memcpy(text + 16, &not_end, 8);
    memcpy(text + 24, w->salts, 8);
    if (w->synced < 0)
        w->synced = open(w->synced_path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    /* One that cannot be written says less than is so, never more. */
    if (w->synced >= 0 && io_write_at(w->synced, text, sizeof text, 0) < 0)
        log_line(LOG_DEBUG, "cannot write %s", w->synced_path);
}

/* How many bytes of the log with these salts were durable; 0 when nobody knows. */
static uint64_t noted(const struct wal *w, const unsigned char *salts)
{
    unsigned char text[SYNCED];
    uint64_t end, not_end;
    AUTO_FD int fd = open(w->synced_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || io_read_at(fd, text, sizeof text, 0) < 0)
        return 0;
    memcpy(&end, text + 8, 8);
    memcpy(&not_end, text + 16, 8);
    bool whole = end == ~not_end && memcmp(text, text + 24, 8) == 0;
    return whole && memcmp(text, salts, 8) == 0 ? be64toh(end) : 0;
}

/* ------------------------------------------------------------------ a log that is found */

/* Frames from n on are not what follows those before. Whether one of them was written after the commit before it: that
   one was synced then, and all that is before it. */
static bool goes_on(const struct wal *w, const unsigned char *log, sqlite3_int64 size, sqlite3_int64 n)
{
    for (; frame_at(w, n + 2) <= size; n++) {
        const unsigned char *frame = log + frame_at(w, n);
        if (ends_commit(frame) && memcmp(frame + 8, w->salts, sizeof w->salts) == 0 &&
            follows(w, sums_at(frame + 16), log + frame_at(w, n + 1)))
            return true;
    }
    return false;
}

/* Whether all that was synced is there; sets end and durable to what is committed. */
static bool is_whole(struct wal *w, const unsigned char *log, sqlite3_int64 size)
{
    static const unsigned char nothing[FRAME];
    /* The first frame is written after the header was synced. */
    if (!learn(w, log))
        return size < HEADER + FRAME || memcmp(log + HEADER, nothing, FRAME) == 0;
    struct sums s = sums_at(log + 24);
    sqlite3_int64 n = 0;
    for (; frame_at(w, n + 1) <= size && follows(w, s, log + frame_at(w, n)); n++) {
        const unsigned char *frame = log + frame_at(w, n);
        s = sums_at(frame + 16);
        if (ends_commit(frame))
            w->end = w->durable = frame_at(w, n + 1);
    }
    return (uint64_t) w->end >= noted(w, w->salts) && !goes_on(w, log, size, n);
}

static int check(struct wal *w)
{
    sqlite3_file *file = beneath(&w->base);
    sqlite3_int64 size = 0;
    int code = file->pMethods->xFileSize(file, &size);
    if (code != SQLITE_OK || size < HEADER)
        return code;
    if (size > INT32_MAX)
        return SQLITE_NOMEM;
    AUTO_FREE unsigned char *log = malloc((size_t) size);
    if (!log)
        return SQLITE_NOMEM;
    code = file->pMethods->xRead(file, log, (int) size, 0);
    if (code != SQLITE_OK || is_whole(w, log, size))
        return code;
    log_line(LOG_ERROR, "the database's log is not what was synced: commits that were answered would be forgotten");
    return SQLITE_IOERR_DATA;
}

/* ------------------------------------------------------------------ the log while it is used */

static bool is_frame(const struct wal *w, sqlite3_int64 at)
{
    return w->page && at >= HEADER && (at - HEADER) % (FRAME + (sqlite3_int64) w->page) == 0;
}

/* The page of a frame that is committed against the sums in the log. */
static int check_page(struct wal *w, const unsigned char *page, sqlite3_int64 frame)
{
    unsigned char before[8], head[FRAME];
    sqlite3_file *file = beneath(&w->base);
    sqlite3_int64 sums = frame == HEADER ? HEADER - 8 : frame - FRAME - w->page + 16;
    int code = file->pMethods->xRead(file, before, sizeof before, sums);
    code = code == SQLITE_OK ? file->pMethods->xRead(file, head, sizeof head, frame) : code;
    if (code != SQLITE_OK)
        return code;
    struct sums s = add(add(sums_at(before), w->big, head, 8), w->big, page, w->page);
    if (equal(s, sums_at(head + 16)))
        return SQLITE_OK;
    log_line(LOG_ERROR, "the page at byte %lld of the database's log is not what was written there",
             (long long) frame + FRAME);
    return SQLITE_IOERR_DATA;
}

static int wal_read(sqlite3_file *file, void *out, int length, sqlite3_int64 at)
{
    struct wal *w = (struct wal *) file;
    int code = beneath(file)->pMethods->xRead(beneath(file), out, length, at);
    if (code != SQLITE_OK || (uint32_t) length != w->page || at + length > w->durable || !is_frame(w, at - FRAME))
        return code;
    return check_page(w, out, at - FRAME);
}

static int wal_write(sqlite3_file *file, const void *data, int length, sqlite3_int64 at)
{
    struct wal *w = (struct wal *) file;
    sqlite3_int64 closing = w->closing;
    w->closing = 0;
    if (at < w->end) /* what was not synced is written over: it was no commit, for want of room */
        w->end = w->durable;
    int code = beneath(file)->pMethods->xWrite(beneath(file), data, length, at);
    if (code != SQLITE_OK)
        return code;
    if (at == 0 && length == HEADER)
        learn(w, data);
    else if (length == FRAME && is_frame(w, at) && ends_commit(data))
        w->closing = at + FRAME + w->page;
    else if (closing && at + length == closing && (uint32_t) length == w->page)
        w->end = closing;
    return SQLITE_OK;
}

static int wal_sync(sqlite3_file *file, int flags)
{
    struct wal *w = (struct wal *) file;
    int code = beneath(file)->pMethods->xSync(beneath(file), flags);
    if (code == SQLITE_OK && w->end > w->durable) {
        w->durable = w->end;
        note(w);
    }
    return code;
}

static int wal_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct wal *w = (struct wal *) file;
    if (size < w->end)
        w->page = 0; /* until there is another header */
    return beneath(file)->pMethods->xTruncate(beneath(file), size);
}

static int wal_close(sqlite3_file *file)
{
    struct wal *w = (struct wal *) file;
    if (w->synced >= 0)
        close(w->synced);
    free(w->synced_path);
    return beneath(file)->pMethods->xClose(beneath(file));
}

static int wal_file_size(sqlite3_file *file, sqlite3_int64 *out)
{
    return beneath(file)->pMethods->xFileSize(beneath(file), out);
}

/* Only the database itself is locked. */
static int wal_lock(sqlite3_file *file, int level)
{
    return beneath(file)->pMethods->xLock(beneath(file), level);
}

static int wal_unlock(sqlite3_file *file, int level)
{
    return beneath(file)->pMethods->xUnlock(beneath(file), level);
}

static int wal_reserved(sqlite3_file *file, int *out)
{
    return beneath(file)->pMethods->xCheckReservedLock(beneath(file), out);
}

static int wal_control(sqlite3_file *file, int what, void *arg)
{
    return beneath(file)->pMethods->xFileControl(beneath(file), what, arg);
}

static int wal_sector(sqlite3_file *file)
{
    return beneath(file)->pMethods->xSectorSize(beneath(file));
}

static int wal_traits(sqlite3_file *file)
{
    return beneath(file)->pMethods->xDeviceCharacteristics(beneath(file));
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = wal_close,
    .xRead = wal_read,
    .xWrite = wal_write,
    .xTruncate = wal_truncate,
    .xSync = wal_sync,
    .xFileSize = wal_file_size,
    .xLock = wal_lock,
    .xUnlock = wal_unlock,
    .xCheckReservedLock = wal_reserved,
    .xFileControl = wal_control,
    .xSectorSize = wal_sector,
    .xDeviceCharacteristics = wal_traits,
};

int wal_size(void)
{
    return (int) sizeof(struct wal);
}

int wal_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    struct wal *w = (struct wal *) file;
    *w = (struct wal){.synced = -1};
    beneath(file)->pMethods = NULL;
    int code = vfs->xOpen(vfs, name, beneath(file), flags, out_flags);
    if (code != SQLITE_OK) {
        if (beneath(file)->pMethods)
            beneath(file)->pMethods->xClose(beneath(file));
        return code;
    }
    /* "x.db-wal" */
    if (asprintf(&w->synced_path, "%.*s-synced", (int) strlen(name) - SUFFIX, name) < 0)
        abort();
    code = check(w);
    if (code == SQLITE_OK) {
        file->pMethods = &methods;
        return SQLITE_OK;
    }
    wal_close(file);
    return code;
}
