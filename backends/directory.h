/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listing a directory by its descriptor. */
#ifndef SMAPI_BACKENDS_DIRECTORY_H
#define SMAPI_BACKENDS_DIRECTORY_H

#include "server/base/own.h"

/* The entries of dir, from the first; dir itself stays open and unmoved. NULL with errno. For AUTO_DIR. */
DIR *directory_entries(int dir) DEALLOC(closedir);

#endif
