/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stands between SQLite and its own VFS: what is written to the database gets its sum, what is read is held against it.
   The log is wal.h's, any other journal passes through. */
#include "store/sums.h"

#include "server/base/log.h"
#include "store/wal.h"
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { PAGE_MIN = 512, RESERVED_AT = 20 };

static const char magic[16] = "SQLite format 3";

/* SQLite gives the room: ours, and behind it that of the file beneath. */
struct file {
    sqlite3_file base;
    bool summed;
};

static sqlite3_vfs vfs;
static sqlite3_io_methods methods;

static sqlite3_file *beneath(sqlite3_file *file)
{
    return (sqlite3_file *) ((struct file *) file + 1);
}

static sqlite3_vfs *next(void)
{
    return vfs.pAppData;
}

/* Each step can be undone, so that two pages that differ in one word never have one sum. The place is in it too. */
static uint64_t sum(const unsigned char *page, int length, sqlite3_int64 at)
{
    uint64_t h = (uint64_t) at ^ UINT64_C(0x5370696461742121);
    for (int i = 0; i + 8 <= length - SUMS_BYTES; i += 8) {
        uint64_t word;
        memcpy(&word, page + i, sizeof word);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}

static bool is_page(int length, sqlite3_int64 at)
{
    return length >= PAGE_MIN && (length & (length - 1)) == 0 && at % length == 0;
}

/* The first page says whether the pages have room for a sum. */
static void learn(struct file *f, const unsigned char *page, int length, sqlite3_int64 at)
{
    if (at == 0 && length > RESERVED_AT && memcmp(page, magic, sizeof magic) == 0)
        f->summed = page[RESERVED_AT] == SUMS_BYTES;
}

static int file_read(sqlite3_file *file, void *out, int length, sqlite3_int64 at)
{
    struct file *f = (struct file *) file;
    uint64_t kept;
    int code = beneath(file)->pMethods->xRead(beneath(file), out, length, at);
    if (code != SQLITE_OK)
        return code;
    learn(f, out, length, at);
    if (!f->summed || !is_page(length, at))
        return SQLITE_OK;
    memcpy(&kept, (const char *) out + length - SUMS_BYTES, sizeof kept);
    if (kept == sum(out, length, at))
        return SQLITE_OK;
    log_line(LOG_ERROR, "the database's page at byte %lld is not what was written there", (long long) at);
    return SQLITE_IOERR_DATA;
}

/* The room for the sum in SQLite's own page is nobody else's. */
static int file_write(sqlite3_file *file, const void *data, int length, sqlite3_int64 at)
{
    struct file *f = (struct file *) file;
    learn(f, data, length, at);
    if (f->summed && is_page(length, at)) {
        uint64_t now = sum(data, length, at);
        union {
            const void *in;
            char *out;
        } page = {.in = data};
        memcpy(page.out + length - SUMS_BYTES, &now, sizeof now);
    }
    return beneath(file)->pMethods->xWrite(beneath(file), data, length, at);
}

static int file_close(sqlite3_file *file)
{
    return beneath(file)->pMethods->xClose(beneath(file));
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return beneath(file)->pMethods->xTruncate(beneath(file), size);
}

static int file_sync(sqlite3_file *file, int flags)
{
    return beneath(file)->pMethods->xSync(beneath(file), flags);
}

static int file_size(sqlite3_file *file, sqlite3_int64 *out)
{
    return beneath(file)->pMethods->xFileSize(beneath(file), out);
}

static int file_lock(sqlite3_file *file, int level)
{
    return beneath(file)->pMethods->xLock(beneath(file), level);
}

static int file_unlock(sqlite3_file *file, int level)
{
    return beneath(file)->pMethods->xUnlock(beneath(file), level);
}

static int file_reserved(sqlite3_file *file, int *out)
{
    return beneath(file)->pMethods->xCheckReservedLock(beneath(file), out);
}

static int file_control(sqlite3_file *file, int what, void *arg)
{
    if (what == SUMS_ASK) {
        *(int *) arg = ((struct file *) file)->summed;
        return SQLITE_OK;
    }
    return beneath(file)->pMethods->xFileControl(beneath(file), what, arg);
}

static int file_sector(sqlite3_file *file)
{
    return beneath(file)->pMethods->xSectorSize(beneath(file));
}

static int file_traits(sqlite3_file *file)
{
    return beneath(file)->pMethods->xDeviceCharacteristics(beneath(file));
}

/* Version 1: no shared memory and no mapping, which the store uses neither of. */
static sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
};

static int vfs_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void) self;
    if (flags & SQLITE_OPEN_WAL)
        return wal_open(next(), name, file, flags, out_flags);
    if (!(flags & SQLITE_OPEN_MAIN_DB))
        return next()->xOpen(next(), name, file, flags, out_flags);
    memset(file, 0, sizeof(struct file));
    int code = next()->xOpen(next(), name, beneath(file), flags, out_flags);
    if (code == SQLITE_OK)
        file->pMethods = &methods;
    else if (beneath(file)->pMethods)
        beneath(file)->pMethods->xClose(beneath(file));
    return code;
}

/* SQLite hands the VFS it was given: all else is that beneath, asked by its own name. */
static void prepare(void)
{
    sqlite3_vfs *standard = sqlite3_vfs_find(NULL);
    vfs = *standard;
    vfs.zName = "smapi-sums";
    vfs.pNext = NULL;
    vfs.pAppData = standard;
    int ours = (int) sizeof(struct file);
    vfs.szOsFile = (wal_size() > ours ? wal_size() : ours) + standard->szOsFile;
    vfs.xOpen = vfs_open;
    sqlite3_vfs_register(&vfs, 0);
}

const char *sums_vfs(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
    return vfs.zName;
}
