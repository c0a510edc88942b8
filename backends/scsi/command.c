/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/scsi/command.h"

#include "backends/scsi/sysfs.h"
#include <errno.h>
#include <fcntl.h>
#include <scsi/sg.h>
#include <string.h>
#include <sys/ioctl.h>

enum { TIMEOUT_MS = 30000, SENSE = 64, DATA = 8192, TRIES = 5 };
enum { INQUIRY = 0x12, PERSISTENT_RESERVE_IN = 0x5e, PERSISTENT_RESERVE_OUT = 0x5f };
enum { READ_KEYS = 0, READ_RESERVATION = 1 };
enum { OUT_RESERVE = 1, OUT_RELEASE = 2, OUT_PREEMPT_AND_ABORT = 5, OUT_REGISTER_AND_IGNORE = 6 };
enum { WRITE_EXCLUSIVE_REGISTRANTS = 5, PARAMETERS = 24, APTPL_AT = 20 };
enum { STATUS_GOOD = 0, STATUS_CHECK = 2, STATUS_CONFLICT = 0x18 };
enum {
    ILLEGAL_REQUEST = 5,
    UNIT_ATTENTION = 6,
    INVALID_OPCODE = 0x20,
    INVALID_FIELD_CDB = 0x24,
    NO_SUCH_LUN = 0x25,
    INVALID_PARAMETER = 0x26
};

struct exchange {
    unsigned char cdb[16];
    unsigned char cdb_length;
    unsigned char *data;
    unsigned length;
    bool writes;
    const char *what; /* for the sentence */
};

/* What is asked of the path once; *again when the target has news of its own to tell first. */
static enum scsi_answer ask_once(int fd, const char *name, struct exchange *x, bool *again, struct fault *f)
{
    unsigned char sense[SENSE] = {0};
    struct sg_io_hdr io = {.interface_id = 'S',
                           .dxfer_direction = x->writes ? SG_DXFER_TO_DEV : SG_DXFER_FROM_DEV,
                           .cmd_len = x->cdb_length,
                           .mx_sb_len = SENSE,
                           .dxfer_len = x->length,
                           .dxferp = x->data,
                           .cmdp = x->cdb,
                           .sbp = sense,
                           .timeout = TIMEOUT_MS};
    *again = false;
    if (ioctl(fd, SG_IO, &io) < 0) {
        fault_errno(f, FAULT_EIO, "%s to %s", x->what, name);
        return errno == ENODEV || errno == ENXIO ? SCSI_GONE : SCSI_FAILED;
    }
    unsigned key = (sense[0] & 0x7f) >= 0x72 ? sense[1] & 15U : sense[2] & 15U;
    unsigned code = (sense[0] & 0x7f) >= 0x72 ? sense[2] : sense[12];
    if (io.status == STATUS_GOOD && io.host_status == 0) {
        x->length -= io.resid > 0 ? (unsigned) io.resid : 0;
        return SCSI_GOOD;
    }
    fault_set(f, FAULT_EIO, "%s to %s: status 0x%02x, host 0x%02x, sense %x/%02x", x->what, name, io.status,
              io.host_status, key, code);
    if (io.status == STATUS_CONFLICT)
        return SCSI_CONFLICT;
    if (io.status != STATUS_CHECK)
        return SCSI_FAILED;
    *again = key == UNIT_ATTENTION;
    if (key == ILLEGAL_REQUEST && code == NO_SUCH_LUN)
        return SCSI_GONE;
    return key == ILLEGAL_REQUEST && (code == INVALID_OPCODE || code == INVALID_FIELD_CDB || code == INVALID_PARAMETER)
               ? SCSI_UNSUPPORTED
               : SCSI_FAILED;
}

static enum scsi_answer ask(const char *name, struct exchange *x, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    bool again = true;
    unsigned length = x->length;
    enum scsi_answer answer = SCSI_FAILED;
    AUTO_FD int fd = open(arena_printf(a, "/dev/%s", name), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        fault_errno(f, FAULT_EIO, "open /dev/%s", name);
        return errno == ENOENT || errno == ENXIO || errno == ENODEV ? SCSI_GONE : SCSI_FAILED;
    }
    for (int i = 0; i < TRIES && again; i++) {
        x->length = length;
        answer = ask_once(fd, name, x, &again, f);
    }
    return answer;
}

enum scsi_answer scsi_identify(const char *name, struct arena *a, const char **id, struct fault *f)
{
    unsigned char page[DATA] = {0};
    struct exchange x = {.cdb = {INQUIRY, 1, 0x83, DATA >> 8, DATA & 0xff, 0},
                         .cdb_length = 6,
                         .data = page,
                         .length = sizeof page,
                         .what = "INQUIRY"};
    enum scsi_answer answer = ask(name, &x, f);
    if (answer == SCSI_GOOD && page[0] >> 5 != 0) {
        fault_set(f, FAULT_EIO, "INQUIRY to %s: no such LUN", name);
        return SCSI_GONE;
    }
    if (answer == SCSI_GOOD)
        *id = scsi_id_of_page(page, x.length, a);
    return answer;
}

/* ------------------------------------------------------------------ persistent reservations */

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];
}

static uint64_t be64(const unsigned char *p)
{
    return (uint64_t) be32(p) << 32 | be32(p + 4);
}

static void put64(unsigned char *p, uint64_t n)
{
    for (int i = 7; i >= 0; i--, n >>= 8)
        p[i] = (unsigned char) n;
}

bool reservation_parse_keys(const unsigned char *data, size_t length, struct reservation *out)
{
    if (length < 8)
        return false;
    size_t bytes = be32(data + 4);
    if (bytes > length - 8 || bytes % 8 || bytes / 8 > RESERVATION_KEYS_MAX)
        return false;
    out->count = bytes / 8;
    for (size_t i = 0; i < out->count; i++)
        out->keys[i] = be64(data + 8 + 8 * i);
    return true;
}

bool reservation_parse_holder(const unsigned char *data, size_t length, struct reservation *out)
{
    if (length < 8)
        return false;
    size_t bytes = be32(data + 4);
    out->holder = 0;
    out->type = 0;
    if (bytes == 0)
        return true;
    if (bytes < 16 || length < 24)
        return false;
    out->holder = be64(data + 8);
    out->type = data[21] & 15U;
    return true;
}

static enum scsi_answer reserve_in(const char *name, unsigned char action, unsigned char data[DATA], size_t *length,
                                   struct fault *f)
{
    struct exchange x = {.cdb = {PERSISTENT_RESERVE_IN, action, 0, 0, 0, 0, 0, DATA >> 8, DATA & 0xff, 0},
                         .cdb_length = 10,
                         .data = data,
                         .length = DATA,
                         .what = "PERSISTENT RESERVE IN"};
    enum scsi_answer answer = ask(name, &x, f);
    *length = x.length;
    return answer;
}

enum scsi_answer reservation_read(const char *name, struct reservation *out, struct fault *f)
{
    unsigned char data[DATA] = {0};
    size_t length;
    enum scsi_answer answer = reserve_in(name, READ_KEYS, data, &length, f);
    if (answer != SCSI_GOOD)
        return answer;
    if (!reservation_parse_keys(data, length, out)) {
        fault_set(f, FAULT_EIO, "the answer of %s to READ KEYS is malformed", name);
        return SCSI_FAILED;
    }
    memset(data, 0, sizeof data);
    answer = reserve_in(name, READ_RESERVATION, data, &length, f);
    if (answer == SCSI_GOOD && !reservation_parse_holder(data, length, out)) {
        fault_set(f, FAULT_EIO, "the answer of %s to READ RESERVATION is malformed", name);
        return SCSI_FAILED;
    }
    return answer;
}

static enum scsi_answer reserve_out(const char *name, unsigned char action, bool typed, uint64_t key, uint64_t other,
                                    bool lasting, struct fault *f)
{
    unsigned char data[PARAMETERS] = {0};
    struct exchange x = {
        .cdb = {PERSISTENT_RESERVE_OUT, action, typed ? WRITE_EXCLUSIVE_REGISTRANTS : 0, 0, 0, 0, 0, 0, PARAMETERS, 0},
        .cdb_length = 10,
        .data = data,
        .length = PARAMETERS,
        .writes = true,
        .what = "PERSISTENT RESERVE OUT"};
    put64(data, key);
    put64(data + 8, other);
    data[APTPL_AT] = lasting;
    return ask(name, &x, f);
}

enum scsi_answer reservation_register(const char *name, uint64_t key, struct fault *f)
{
    enum scsi_answer answer = reserve_out(name, OUT_REGISTER_AND_IGNORE, false, 0, key, true, f);
    if (answer != SCSI_UNSUPPORTED)
        return answer;
    return reserve_out(name, OUT_REGISTER_AND_IGNORE, false, 0, key, false, f); /* a target without APTPL */
}

enum scsi_answer reservation_reserve(const char *name, uint64_t key, struct fault *f)
{
    return reserve_out(name, OUT_RESERVE, true, key, 0, false, f);
}

enum scsi_answer reservation_release(const char *name, uint64_t key, struct fault *f)
{
    return reserve_out(name, OUT_RELEASE, true, key, 0, false, f);
}

enum scsi_answer reservation_preempt(const char *name, uint64_t key, uint64_t victim, struct fault *f)
{
    return reserve_out(name, OUT_PREEMPT_AND_ABORT, true, key, victim, false, f);
}
