/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program that works for an SR outlives the daemon that started it: mkfs goes on writing after kill -9. Each such
   child inherits a descriptor of <state>/ops/<sr>.lock on which a shared lock stands, and whoever is to bring the SR's
   medium to an end takes the lock for itself first. */
#ifndef SMAPI_HANDLERS_HOLD_H
#define SMAPI_HANDLERS_HOLD_H

#include "server/base/fault.h"
#include "server/base/uuid.h"

/* Waits until no child of an earlier time has the lock, at most so long; then *out is a descriptor for those to come.
   waiting is called once, before the first wait. SRUnavailable when one still runs. Close *out. */
int hold_take(const char *dir, const struct uuid *sr, unsigned seconds, void (*waiting)(void *arg), void *arg, int *out,
              struct fault *f);
/* The SR is no more: the file goes, unless a child still has it. fd is closed. */
void hold_drop(const char *dir, const struct uuid *sr, int fd);

#endif
