/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* open-iscsi: discovery, login and logout by iscsiadm; interface and node records as files of its database. A record is
   all iscsiadm is told, since its command line can be read by every process of the host; files are 0600. Everything
   made here carries the name of an interface record, which is written first and removed last: by it sessions and
   records are found again. Other interfaces' records, the host's own among them, are never touched. */
#ifndef SMAPI_BACKENDS_ISCSIADM_H
#define SMAPI_BACKENDS_ISCSIADM_H

#include "backends/scsi/address.h"
#include "server/base/arena.h"
#include "server/base/secret.h"

/* Who logs in, and how. Texts hold no line ends (InvalidArg otherwise). */
struct iscsi_initiator {
    const char *iface; /* the interface record's name */
    const char *name;  /* the initiator's; NULL for the host's own */
    const char *user;  /* CHAP; NULL for none */
    struct secret password;
    const char *user_in; /* the name the target must show; NULL for none */
    struct secret password_in;
    bool multipath; /* a LUN is reached by all portals at once */
    int hold;       /* as in struct cmd */
};

/* A target as discovery offers it. */
struct iscsi_offer {
    struct portal portal;
    unsigned group; /* portal group tag */
    const char *target;
};

/* Makes or replaces the interface record. ISCSIInitiator. */
int iscsiadm_begin(const struct iscsi_initiator *who, struct fault *f);
/* What the portal offers. ISCSILogin when it does not let us in, ISCSIDiscovery, ISCSIDaemon. */
int iscsiadm_discover(const struct iscsi_initiator *who, const struct portal *portal, struct arena *a,
                      struct iscsi_offer **out, size_t *count, struct fault *f);
/* Of what it prints; pure. Lines that are none of its form are left out, and names that are none. */
size_t iscsiadm_parse_offers(const char *text, struct arena *a, struct iscsi_offer **out);
/* The node record of an offer. */
int iscsiadm_add(const struct iscsi_initiator *who, const struct iscsi_offer *offer, struct fault *f);
/* Its text; pure. */
const char *iscsiadm_record(const struct iscsi_initiator *who, const struct iscsi_offer *offer, struct arena *a);
/* Logs in to all node records of the interface that have no session yet. ISCSILogin, ISCSIDaemon, ISCSITarget. */
int iscsiadm_login(const struct iscsi_initiator *who, struct fault *f);
/* The record of an interface that has a session: written anew if it is gone, as when a login came through after its
   daemon was killed and cleaned up after. Without it iscsiadm ends no session. */
int iscsiadm_remember(const char *iface, struct fault *f);

/* Ends a session; one that is gone is success. ISCSILogout. */
int iscsiadm_logout(unsigned sid, int hold, struct fault *f);
/* Removes every record that carries the interface's name, and it. ISCSIDetach. */
int iscsiadm_end(const char *iface, struct fault *f);
/* Names of interface records that begin so. */
int iscsiadm_ifaces(const char *prefix, struct arena *a, const char ***out, size_t *count);
/* The host's own initiator name; NULL when it has none. */
const char *iscsiadm_host_name(struct arena *a);

/* For tests: another directory than open-iscsi's database, and than /etc/iscsi. */
extern const char *iscsiadm_database;

#endif
