/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Named points where a crash or an error would hurt; a test arms one with SMAPI_POINT=<name>:<action>[:<n>].
   Name: of a row, or * for all of them. Actions: kill (SIGKILL to itself), eio, enospc, sleep (one second), tell (does
   nothing, at every passage). n: only the n-th passage, 1 by default. SMAPI_POINT=@<path> arms while the process runs:
   the next passage reads such a line from that file, when it is there, and removes it; whichever point then acts says
   "point <name>" on stderr. point.def lists them; crash tests compute their matrix from it (smapid --describe). Unarmed
   a point costs two loads.
 */
#ifndef SMAPI_BASE_POINT_H
#define SMAPI_BASE_POINT_H

enum point {
#define POINT_ROW(name, text) POINT_##name,
#include "server/base/point.def"
#undef POINT_ROW
    POINT_COUNT
};

struct point_row {
    const char *name, *text;
};
extern const struct point_row point_rows[POINT_COUNT];

/* Reads SMAPI_POINT once, before threads start. Returns -1 when it names no row, action or absolute path. */
int point_arm_from_environment(void);

/* 0, or -1 with errno EIO or ENOSPC when the armed action says so; does not return from kill. */
int point_pass(enum point p);

#define POINT(name) point_pass(POINT_##name)

#endif
