/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The texts of schema/NNNN.sql, built into the program. */
#ifndef SMAPI_STORE_SCHEMA_H
#define SMAPI_STORE_SCHEMA_H

#include <stddef.h>

/* The number of the newest schema: user_version of an up-to-date database. */
size_t schema_newest(void);
/* The text that brings a database from version number - 1 to number (from 1). */
const char *schema_text(size_t number);

#endif
