/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The SRs this process knows: one struct sr each, found by uuid. An entry is made and removed only by a call whose turn
   is WHOLE for that SR, so a call that runs may keep the pointer it found until it ends. */
#ifndef SMAPI_HANDLERS_REGISTRY_H
#define SMAPI_HANDLERS_REGISTRY_H

#include "backends/guard.h"

struct registry;

enum sr_standing {
    STANDING_RECOVERING, /* waits for its recovery: every call is answered SRUnavailable */
    STANDING_STUCK,      /* recovery or a result could not be finished; sr_create, sr_attach, sr_detach and sr_delete
                            try again, all else is SRUnavailable */
    STANDING_SERVING
};

/* holds: the directory of hold.h; NULL in a process that starts no child. Both outlive the registry. */
struct registry *registry_new(const struct backend_settings *settings, const char *holds);
void registry_free(struct registry *r);

/* NULL when unknown. */
struct sr *registry_find(struct registry *r, const struct uuid *uuid);
/* Adds an SR that is not connected. config is copied. The uuid must be new. */
struct sr *registry_add(struct registry *r, const struct uuid *uuid, const struct sr_type *type,
                        const struct pairs *config, enum sr_standing standing);
/* Waits until no program works for the SR that was not started from now on (hold.h), at most so long; calls are told
   meanwhile. Under the SR's WHOLE turn, before anything is settled. */
int registry_hold(struct registry *r, struct sr *sr, unsigned seconds, struct fault *f);
void registry_remove(struct registry *r, struct sr *sr);
/* Replaces the device_config of an SR that is not connected. */
void registry_configure(struct registry *r, struct sr *sr, const struct pairs *config);

/* Standing and why, "" for nothing to say. Safe beside calls that run. */
void registry_stand(struct registry *r, const struct uuid *uuid, enum sr_standing standing, const char *why);
/* 0 when calls may run; -1 with SRUnavailable when it is recovering or stuck (unless may_retry and it is stuck).
   Unknown SRs are fine: whoever needs them says so. */
int registry_serves(struct registry *r, const struct uuid *uuid, bool may_retry, struct fault *f);
/* SRUnavailable when the SR's place is known not to answer: sr_known_silent of whatever SR has this uuid. Any thread.
 */
int registry_answers(struct registry *r, const struct uuid *uuid, struct fault *f);
bool registry_is_stuck(struct registry *r, const struct uuid *uuid);
/* The type of an SR, NULL when unknown. */
const struct sr_type *registry_type(struct registry *r, const struct uuid *uuid);
/* How many entries are STANDING_RECOVERING, and their uuids in a. */
size_t registry_recovering(struct registry *r, struct arena *a, struct uuid **out);

#endif
