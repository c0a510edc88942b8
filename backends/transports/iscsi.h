/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The iscsi transport's own parts. Every session of ours carries the name of an interface record made for one SR (or
   one probe), so that whose it is can be read from the kernel: no session is shared, none of another SR or of the host
   itself is ever ended, and nothing has to be counted. LUNs are scanned by the numbers or identities asked for, so that
   ten SRs on one target are not a hundred disks. */
#ifndef SMAPI_BACKENDS_TRANSPORTS_ISCSI_H
#define SMAPI_BACKENDS_TRANSPORTS_ISCSI_H

#include "backends/driver.h"
#include "backends/scsi/sysfs.h"
#include "backends/tools/iscsiadm.h"

#define ISCSI_DEV   "/dev/"
#define ISCSI_LINKS "/dev/smapid" /* one directory an SR, in it a link for each disk, named by its identity */

#define ISCSI_PROBE "smapi-probe-" /* interfaces of probes: with the process's number, and one for each */

#define ISCSI_ALL "*" /* as a target's name: every one */

enum { ISCSI_PORTALS_MAX = 32, ISCSI_LUNS_MAX = 256 };

/* A device_config read. */
struct iscsi_want {
    struct iscsi_initiator who;
    struct portal portals[ISCSI_PORTALS_MAX];
    size_t portal_count;
    const char *target; /* NULL when it was not given; "*" for all that the portals offer */
    size_t record;      /* usediscoverynumber, counted from 1; 0 when it was not given */
    const char *luns[ISCSI_LUNS_MAX], *ids[ISCSI_LUNS_MAX];
    size_t lun_count, id_count;
    enum fault_code lun_missing; /* what a layout that needs a LUN says without one; FAULT_NONE: all LUNs are wanted */
    bool paths;                  /* a LUN is to be reached by all portals, when this host runs multipathd */
    bool fresh;                  /* the sessions were made by iscsi_connect */
    bool keyless;                /* it made none, as no call has brought the password */
    struct arena *arena;
};

/* Reads config for this interface. DNSError, ConfigISCSIIQNMissing. */
int iscsi_read(const struct pairs *config, const struct secrets *secrets, const char *iface, struct arena *a,
               struct iscsi_want *out, struct fault *f);
/* Sessions to what is wanted: those that are there, or new ones. After -1 none of ours is left that was not there. */
int iscsi_connect(struct iscsi_want *w, struct fault *f);
/* The kernel forgets disks whose LUN is gone or another now. SRScan when one does not answer. */
int iscsi_refresh(const struct iscsi_want *w, struct fault *f);
/* Of several sessions with a target one stays, the first that is logged in, and no map. SRInUse when one is held. */
int iscsi_keep_one(const struct iscsi_want *w, struct fault *f);
/* Every path that the map has is in these sessions. */
bool iscsi_alone(const char *map, const struct iscsi_session *sessions, size_t count, struct arena *a);
/* Ends every session of the interface, with the maps over its disks alone, and removes its records. Idempotent. SRInUse
 * while a disk is held. */
int iscsi_end(const char *iface, int hold, struct fault *f);
/* The disks of the interface's sessions, each once, when all that are wanted are there; the kernel forgets the others.
 */
int iscsi_disks(const struct iscsi_want *w, struct scsi_disk **out, size_t *count, struct fault *f);

/* ---- iscsi_gone.c */

/* SRUnavailable when no session of the SR has its target, now and for some seconds. */
int iscsi_answers(const struct sr *sr, struct fault *f);
/* Before the place is left: ends those sessions of the SR whose target does not answer, whatever stands on their disks,
   so that who waits for them gets an error instead, also from a map that has no other path then. The others stay.
   Idempotent. */
int iscsi_give_up(struct sr *sr, struct fault *f);
/* From now on a target that is away for a while does not fail who uses its disks. */
int iscsi_attached(struct sr *sr, struct fault *f);

/* ---- iscsi_paths.c */

/* As iscsi_disks, each LUN once: the name is that of the map over its paths where there are several and multipathd
   makes one; where it does not, one session stays. */
int iscsi_gather(struct iscsi_want *w, struct scsi_disk **out, size_t *count, struct fault *f);
/* Of disks that were listed: each LUN once, by the map over it when there is one. How many. */
size_t iscsi_each_lun_once(struct scsi_disk *disks, size_t count, struct arena *a);
/* The map that a link leads to, as long as it is that of the link's LUN; "" otherwise. */
const char *iscsi_linked_map(const char *link, struct arena *a);

/* ---- iscsi_place.c: for transports whose place is LUNs of a target, or stands on them */

/* The name of the SR's interface record. */
const char *iscsi_iface(const struct uuid *sr, struct arena *a);
/* LUNs are the disks of the layout, however many there are; others write on those they are given. */
bool iscsi_takes_all(const struct layout *layout);
/* Sessions to what device_config names, links to its LUNs, and those in sr->place.devices. fresh: nothing was there
   yet. After -1 nothing is that was not. */
int iscsi_open(struct sr *sr, bool *fresh, struct fault *f);
/* Ends what iscsi_open made, in whatever state a crash left it. Idempotent. */
int iscsi_close(struct sr *sr, struct fault *f);
/* LUNs that came since, and those that are gone; of layouts that take all. */
int iscsi_reopen(struct sr *sr, struct fault *f);
/* The SR's links, whoever made them. */
const char **iscsi_links(const struct uuid *sr, struct arena *a, size_t *count);

/* SRs of this host that have links: with those, and the device_config by which they are reached, without passwords. */
struct iscsi_trace {
    struct sr_trace trace;
    char **links;
    size_t link_count;
};
int iscsi_traces(const struct layout *layout, struct arena *a, struct iscsi_trace **out, size_t *count,
                 struct fault *f);

/* What a probe has in front of it, as long as look runs: at least one device. */
struct iscsi_found {
    char **devices;
    size_t count;
    const char *id; /* of the first */
    uint64_t size;  /* bytes, of all */
};
typedef int iscsi_looker(const struct layout *layout, const struct iscsi_found *found, struct arena *a,
                         struct found_list *out, struct fault *f);
/* Sessions of its own for look, ended afterwards whatever comes of it. */
int iscsi_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                iscsi_looker *look, struct arena *a, struct found_list *out, struct fault *f);

/* Documents for programs to choose from, at most FAULT_DOCUMENT bytes, in a. */
const char *iscsi_target_list(const struct iscsi_offer *offers, size_t count, const struct portal *asked,
                              struct arena *a);
const char *iscsi_lun_list(const struct scsi_disk *disks, size_t count, struct arena *a);

#endif
