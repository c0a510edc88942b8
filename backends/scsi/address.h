/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Addresses of iSCSI portals, compared as what they mean: 10.0.0.1 is not 10.0.0.10, and ::1 is 0:0:0:0:0:0:0:1. */
#ifndef SMAPI_BACKENDS_SCSI_ADDRESS_H
#define SMAPI_BACKENDS_SCSI_ADDRESS_H

#include "server/base/fault.h"
#include <stdint.h>

#define ISCSI_PORT   3260U
#define ADDRESS_TEXT 46U  /* as INET6_ADDRSTRLEN */
#define PORTAL_TEXT  56U  /* "[address]:port" */
#define ADDRESS_NAME 253U /* the longest host name */

struct portal {
    unsigned char bytes[16]; /* an IPv4 address as the IPv6 one that stands for it */
    unsigned port;
};

/* A literal address: "10.0.0.1", "::1" or "[::1]". False for anything else. */
bool portal_parse(const char *address, unsigned port, struct portal *out);
bool portal_equal(const struct portal *a, const struct portal *b);
/* "10.0.0.1", "fd00::1". */
void portal_address(const struct portal *p, char out[ADDRESS_TEXT]);
/* "10.0.0.1:3260", "[fd00::1]:3260". */
void portal_text(const struct portal *p, char out[PORTAL_TEXT]);

/* A host name as RFC 1123 has it. */
bool portal_is_name(const char *host);

/* One word of a list of portals, "host", "host:port", "[v6]:port" or a bare v6 address, taken apart; port stays as it
   is when the word has none. False when it is none of these, or a port is not 1 to 65535. */
bool portal_split(const char *word, size_t length, char host[ADDRESS_NAME + 1], unsigned *port);
/* What a host name or address stands for. DNSError when it cannot be resolved. */
int portal_resolve(const char *host, unsigned port, struct portal *out, struct fault *f);
/* 0 when something takes connections there within these seconds; ISCSITarget otherwise. */
int portal_answers(const struct portal *p, unsigned seconds, struct fault *f);

#endif
