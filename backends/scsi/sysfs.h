/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iSCSI sessions and SCSI disks as the kernel has them. Nothing here remembers anything: what is true is in sysfs. */
#ifndef SMAPI_BACKENDS_SCSI_SYSFS_H
#define SMAPI_BACKENDS_SCSI_SYSFS_H

#include "backends/scsi/address.h"
#include "server/base/arena.h"

/* An attribute's text without the blanks around it, and its number; "" and 0 when it is not there or cannot be read. */
const char *sysfs_text(struct arena *a, const char *path);
uint64_t sysfs_number(struct arena *a, const char *path);

struct iscsi_session {
    unsigned sid, host; /* of session<sid> and host<host> */
    const char *iface, *target, *initiator;
    struct portal portal; /* as it was asked for; port 0 when the kernel does not say */
    bool logged_in;
};

/* Sessions whose interface record has this name, or begins with it when it ends in "*". */
int iscsi_sessions(const char *iface, struct arena *a, struct iscsi_session **out, size_t *count, struct fault *f);

/* Seconds for which the kernel keeps what is asked of a session that is lost; then all of it fails. While an attach
   looks at what is there, or another path leads to it; and while disks are in use. */
enum { ISCSI_IMPATIENT = 15, ISCSI_PATIENT = 120 };
/* ISCSIDevice for a session that is lost. */
int iscsi_session_wait(unsigned sid, unsigned seconds, struct fault *f);

struct scsi_disk {
    unsigned host;
    uint64_t lun;
    const char *name; /* sda; "" as long as the kernel has made none */
    const char *id; /* by which it is known again, as scsi_id writes it: "3" and the NAA in hex and so on; "" without */
    const char *serial; /* of page 0x80, without blanks; "" without */
    const char *vendor;
    uint64_t size; /* bytes */
};

/* Disks of a host adapter, which for iSCSI is a session, by ascending LUN. Other devices than disks are left out. */
int scsi_disks(unsigned host, struct arena *a, struct scsi_disk **out, size_t *count, struct fault *f);
/* The disk a block device is ("/dev/sda", or a link to it); false when it is no SCSI disk, or gone. */
bool scsi_disk_at(const char *path, struct arena *a, struct scsi_disk *out);
/* The disk has a size and a device node, and the node is this disk's: for a moment it may be that of one of the same
   name before. */
bool scsi_disk_ready(const struct scsi_disk *disk);
/* Names of the SCSI disks beneath a block device: itself, or the paths of a multipath map. */
int scsi_paths(const char *path, struct arena *a, const char ***out, size_t *count, struct fault *f);

/* The kernel looks for this LUN ("3"), or for all ("-"). Done when it returns; the disk's name may come later. */
int scsi_scan(unsigned host, const char *lun, struct fault *f);
/* The kernel forgets the disk. One that is gone is success. */
int scsi_forget(const struct scsi_disk *disk, struct fault *f);
/* Whoever has the disk open has nothing any more: the kernel forgets it, what is under way comes to its end, and the
   LUN is found again as another device, whose name is *name then. ISCSIDevice. */
int scsi_renew(const struct scsi_disk *disk, struct arena *a, const char **name, struct fault *f);
/* The kernel reads its size and identity again. */
int scsi_rescan(const char *name, struct fault *f);

/* The identity in an answer of INQUIRY page 0x83, as scsi_id writes it; "" when there is none to rely on. */
const char *scsi_id_of_page(const unsigned char *page, size_t length, struct arena *a);

/* Events of the kernel's and udev's devices: opened before something is set off, waited for until what was to come is
   there. -1 when there are none to be had here: waiting is then for a tenth of a second at a time. */
int scsi_events_open(void);
/* Returns when something happened or may have, at deadline_ns (clock_boot_ns) at the latest. */
void scsi_events_wait(int events, int64_t deadline_ns);

/* For tests: another tree than "/sys". */
extern const char *scsi_sysfs;

#endif
