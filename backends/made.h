/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A directory that an operation makes beneath another, so that a crash never leaves one of which nobody knows who made
   it: it gets its name with a note in it, an empty file named by the operation (TEMPORARY_MADE). The layout removes the
   note when the SR in it is whole, and leaves it again before it unmarks one. */
#ifndef SMAPI_BACKENDS_MADE_H
#define SMAPI_BACKENDS_MADE_H

#include "server/base/model.h"
#include <limits.h>

/* The directory of that name, never a link; -1 with errno. */
int made_open(int parent, const char *name);
/* Makes it, with the note in it, all synced. -1 with errno, EEXIST when something has the name. */
int made_make(int parent, const char *name, const struct plan *plan);
/* Removes it when it holds nothing but the operation's note, and what the operation was about to publish or had doomed;
   success when there is nothing of that. Synced. What has come into it since keeps it, without the note. -1 with errno.
 */
int made_remove(int parent, const char *name, const struct plan *plan);

/* The first entry of dir that is neither "lost+found" nor spared, "" when there is none. -1 with errno. */
int made_first_entry(int dir, const char *spared, char out[NAME_MAX + 1]);

#endif
