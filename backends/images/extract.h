/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the slots extract of the formats write to. */
#ifndef SMAPI_BACKENDS_EXTRACT_H
#define SMAPI_BACKENDS_EXTRACT_H

#include "server/base/fault.h"
#include <stdbool.h>
#include <stdint.h>

#define EXTRACT_CHUNK (256U * 1024)

struct extract {
    int out;
    bool sparse;    /* zeros need not be written */
    uint64_t start; /* of the disk in out, when sparse */
    uint64_t at;    /* bytes of the disk so far */
};

/* A regular file that ends where it stands is written sparsely; everything else gets every byte. */
void extract_begin(struct extract *e, int out);
/* The next bytes, and that many zeros. EIO or SRNoSpace. */
int extract_data(struct extract *e, const unsigned char *data, size_t length, struct fault *f);
int extract_zeros(struct extract *e, uint64_t length, struct fault *f);
/* Gives a sparse file its length. */
int extract_end(const struct extract *e, struct fault *f);

#endif
