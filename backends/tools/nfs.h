/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The programs of nfs-common: mount.nfs and showmount. */
#ifndef SMAPI_BACKENDS_TOOLS_NFS_H
#define SMAPI_BACKENDS_TOOLS_NFS_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include <stdbool.h>

struct nfs_source {
    const char *server, *path; /* path absolute */
    const char *version;       /* "3", "4", "4.1", … */
    bool hard;                 /* a server that is gone is waited for without end; false: it becomes an error */
    const char *options;       /* more of them, "" for none */
    int hold;                  /* struct cmd */
};

/* "server:path", with brackets around an address of IPv6: as the kernel's list of mounts has it. */
const char *nfs_source_text(const struct nfs_source *s, struct arena *a);

/* InvalidDev when mount.nfs is not installed; DNSError, NFSTarget, NFSVersion, ConfigServerPathBad (no such export),
   NFSMount as mount.nfs says; NFSMount when it does not end in time. */
int nfs_mount(const struct nfs_source *s, const char *path, struct arena *a, struct fault *f);

/* What the server exports, as the XML document xapi's users choose from; NULL when it does not say. */
const char *nfs_exports(const char *server, struct arena *a);

/* The server has something that listens where NFS does: NFSTarget, or DNSError when it has no address. */
int nfs_reach(const char *server, struct fault *f);

#endif
