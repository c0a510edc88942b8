/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fencing of a disk by persistent reservations: while an epoch holds it, only paths registered under that epoch's key
   may write, and whoever was registered before is registered no more. The path is a link to a disk or a multipath map;
   every path beneath is registered. */
#ifndef SMAPI_BACKENDS_SCSI_FENCE_H
#define SMAPI_BACKENDS_SCSI_FENCE_H

#include "server/base/fault.h"
#include "server/base/uuid.h"
#include <stdint.h>

/* 'S', 16 bits of the server that gives the epoch, a zero, the low 39 bits of the epoch. */
uint64_t fence_key(const struct uuid *server, uint64_t epoch);
/* With a one in place of the zero: newer than the key of that epoch, older than that of any later one; no writer's. */
uint64_t fence_key_after(const struct uuid *server, uint64_t epoch);

/* Whether the disk can be fenced: *able false when its target knows no reservations. EIO when it does not answer. */
int fence_able(const char *path, bool *able, struct fault *f);
/* The disk belongs to key: older keys of the same server are preempted and what they had under way is aborted; then it
   is read back. refused: what is said when it belongs to another server or to no server of ours. */
int fence_take(const char *path, uint64_t key, enum fault_code refused, struct fault *f);
/* The same where keys of other servers go too. For a takeover that a person has asked for. */
int fence_seize(const char *path, uint64_t key, struct fault *f);
/* This machine's paths are registered no more; a reservation of theirs ends. Idempotent. */
int fence_drop(const char *path, struct fault *f);
/* The newest epoch, of its low 39 bits, under which this server is registered; 0 for none. */
int fence_newest(const char *path, const struct uuid *server, uint64_t *epoch, struct fault *f);

#endif
