/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount.cifs of cifs-utils. */
#ifndef SMAPI_BACKENDS_TOOLS_SMB_H
#define SMAPI_BACKENDS_TOOLS_SMB_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include "server/base/secret.h"

struct smb_source {
    const char *share;   /* "//server/share", and more components for a directory in it */
    const char *version; /* "3.0", … */
    const char *user;    /* "" for a guest; may be "domain\user" */
    struct secret password;
    const char *options; /* more of them, "" for none */
    int hold;            /* struct cmd */
};

/* The password goes to mount.cifs on its standard input. BadCharacter when user or password has a line end;
   InvalidDev when mount.cifs is not installed; DNSError, ISOSharenameFailure (no such share, or not for this user),
   ISOMountFailure as mount.cifs says. */
int smb_mount(const struct smb_source *s, const char *path, struct arena *a, struct fault *f);

#endif
