/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Small files that decide who is believed: certificates, keys, revocation lists. */
#ifndef SMAPI_SERVER_PEM_H
#define SMAPI_SERVER_PEM_H

#include "server/base/fault.h"
#include <stdint.h>
#include <sys/types.h>

/* A file's bytes, malloc'd. Wiped when they are freed, as some of them are keys. */
struct pem {
    unsigned char *data;
    unsigned size;
};

void pem_free(struct pem *p); /* leaves it empty */
#define AUTO_PEM __attribute__((cleanup(pem_free)))

/* Which bytes a path stood for: another file, or another writing of it, gives another mark. All zero: none. */
struct pem_mark {
    uint64_t device, inode, size;
    int64_t modified_ns, changed_ns;
};

/* The whole file, 1 byte to 1 MiB, plain. A secret one must have mode 0600 or 0400 and belong to the daemon's user or
   root. mark may be NULL. -1 with fault InvalidArg, whose detail is a sentence naming the file. */
int pem_read(const char *path, bool secret, struct pem *out, struct pem_mark *mark, struct fault *f);

/* Of the file as it stands now; all zero when there is none. */
struct pem_mark pem_mark_of(const char *path);
bool pem_mark_equal(const struct pem_mark *a, const struct pem_mark *b);

#endif
