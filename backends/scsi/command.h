/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SCSI commands to one path of a disk, by SG_IO. */
#ifndef SMAPI_BACKENDS_SCSI_COMMAND_H
#define SMAPI_BACKENDS_SCSI_COMMAND_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include <stdint.h>

enum scsi_answer {
    SCSI_GOOD,
    SCSI_CONFLICT,    /* a reservation of another refuses it */
    SCSI_UNSUPPORTED, /* the target does not know the command */
    SCSI_GONE,        /* there is no such LUN any more */
    SCSI_FAILED       /* everything else; f tells */
};

/* Who the disk is now, asked of the target itself: its identity in id, "" when it has none, when SCSI_GOOD. name: sda.
 */
enum scsi_answer scsi_identify(const char *name, struct arena *a, const char **id, struct fault *f);

/* Persistent reservations, SPC-3 5.6: keys are registered for a path; a reservation of type 5, write exclusive -
   registrants only, lets only registered paths write. */

enum { RESERVATION_KEYS_MAX = 1024 };

struct reservation {
    uint64_t keys[RESERVATION_KEYS_MAX];
    size_t count;
    uint64_t holder; /* the key that holds it; 0 when nothing is reserved */
    unsigned type;
};

enum scsi_answer reservation_read(const char *name, struct reservation *out, struct fault *f);
/* Registers the path under this key, whatever it was registered under; 0 ends its registration. It outlives a loss of
   power where the target can. */
enum scsi_answer reservation_register(const char *name, uint64_t key, struct fault *f);
enum scsi_answer reservation_reserve(const char *name, uint64_t key, struct fault *f);
enum scsi_answer reservation_release(const char *name, uint64_t key, struct fault *f);
/* Whoever is registered under victim is no more, and what it had under way is aborted first; its reservation passes to
   key. */
enum scsi_answer reservation_preempt(const char *name, uint64_t key, uint64_t victim, struct fault *f);

/* Of what READ KEYS and READ RESERVATION answer; pure. False when it is malformed. */
bool reservation_parse_keys(const unsigned char *data, size_t length, struct reservation *out);
bool reservation_parse_holder(const unsigned char *data, size_t length, struct reservation *out);

#endif
