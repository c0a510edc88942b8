/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Identifiers of SRs, VDIs, hosts and operations (OSF DCE 1.1), kept as their lower-case text. */
#ifndef SMAPI_BASE_UUID_H
#define SMAPI_BASE_UUID_H

#include <stdbool.h>
#include <stddef.h>

#define UUID_TEXT 36

/* Empty text means "none". Never holds anything but "" or 36 checked characters, so it is safe in a file name. */
struct uuid {
    char text[UUID_TEXT + 1];
};

#define UUID_NONE ((struct uuid){""})

/* Reads exactly 8-4-4-4-12 hexadecimal digits, nothing before or after; upper case becomes lower.
   Returns false, and leaves *out alone, for anything else. */
bool uuid_parse(const char *text, size_t length, struct uuid *out);
bool uuid_parse_text(const char *text, struct uuid *out);

/* A random (version 4) one, from the kernel. */
struct uuid uuid_random(void);

bool uuid_is(const struct uuid *u);
bool uuid_equal(const struct uuid *a, const struct uuid *b);

/* First eight digits, the <op8> of names on a medium; 8 characters and a NUL into out. */
void uuid_short(const struct uuid *u, char out[9]);

#endif
