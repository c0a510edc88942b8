/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The transports that types.def may name. */
#ifndef SMAPI_BACKENDS_TRANSPORT_H
#define SMAPI_BACKENDS_TRANSPORT_H

#include "backends/driver.h"

/* A directory of this machine (device_config location), or nothing at all for a type without that key. */
extern const struct transport transport_here;
/* Block devices of this machine (device_config device). */
extern const struct transport transport_disks;
/* A directory of an NFS server, named by the SR (server, serverpath). */
extern const struct transport transport_mount_nfs;
/* A directory of discs, of this machine or of an NFS or SMB server (location, type, legacy_mode). */
extern const struct transport transport_iso;

/* LUNs of an iSCSI target. */
extern const struct transport transport_iscsi;
/* A file system of ours on one LUN of an iSCSI target. */
extern const struct transport transport_iscsi_ext;
/* A file system of ours on block devices of this machine (device_config device). */
extern const struct transport transport_ext;

#endif
