/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a method's name to its answer: the row says who may, under which turn, with which journal bracket. */
#ifndef SMAPI_HANDLERS_DISPATCH_H
#define SMAPI_HANDLERS_DISPATCH_H

#include "backends/driver.h"
#include "handlers/call.h"
#include "handlers/permissions.h"
#include "server/base/finding.h"
#include "store/store.h"

struct dispatch;

struct dispatch_settings {
    struct store *store;
    struct backend_settings backend;
    const char *holds;     /* directory of the locks that children inherit (hold.h) */
    unsigned hold_seconds; /* how long the recovery of an SR waits for a program that an earlier start began */
    bool looks;            /* nobody is served: nothing is recovered, SRs are looked at as they are */
    struct permissions *permissions; /* who may what, asked anew for each call */
    unsigned multicall_max;          /* calls in one system.multicall */
    struct lease_terms terms;
    bool operator_word; /* smapi.lease_break believes a person */
    /* Has run(job) called on a worker when the turn has come; -1, and neither now nor later, when it cannot be. */
    int (*submit)(void *arg, const struct turn *turn, void (*run)(void *), void *job, struct fault *f);
    void *submit_arg;
    /* wire/write.h; given so that handlers know no XML. malloc'd results. */
    char *(*write_result)(const struct value *v, size_t *length);
    char *(*write_fault)(const struct fault *f, size_t *length);
    char *(*write_multicall)(const char *const *replies, const size_t *lengths, size_t count, size_t *length);
};

void dispatch_free(struct dispatch *d); /* disconnects nothing: what is attached stays attached */
/* Reads the rows of SRs and open operations. Every SR that has an attachment or an open operation is "recovering" and
   answers SRUnavailable until dispatch_recover_sr has run for it. */
int dispatch_new(const struct dispatch_settings *settings, struct dispatch **out, struct fault *f);

/* SRs to recover, in arena a. Each is to be given to dispatch_recover_sr on a worker, with turn {LOCK_WHOLE, sr}. */
int dispatch_recoveries(struct dispatch *d, struct arena *a, struct uuid **out, size_t *count);
/* Settles what is open on it and connects it again. What cannot be settled stays recovering, with a log line. */
void dispatch_recover_sr(struct dispatch *d, const struct uuid *sr);
bool dispatch_ready(struct dispatch *d); /* every recovery has been tried */

/* Finds the row, checks role and parameters, fills call->method, args and turn. On refusal the call is done: fault and
   reply are set and the outcome is logged. Never waits; safe on the thread that reads the network. True when the call
   is done already. */
bool dispatch_prepare(struct dispatch *d, struct call *call, const char *method, struct value *const *params,
                      size_t count);
/* Does the call; its turn has come (LOCK_NONE: any time). Sets reply, or leaves it NULL when the call waits for another
   turn: call->turn is a new one then. May wait on store and medium. */
void dispatch_run(struct dispatch *d, struct call *call);
/* SRUnavailable, with how long it has been so, when the server that has this SR is known not to answer. Quick, any
   thread. */
int dispatch_answers(struct dispatch *d, const struct uuid *sr, struct fault *f);
/* Ends a call that failed before dispatch_prepare, or could not get its turn: the fault is set, the reply is made. With
   the reply still NULL afterwards only a part of the call ended so, and the next part waits for call->turn. */
void dispatch_refuse(struct dispatch *d, struct call *call);

/* Whether everything agrees with everything, by finding.def, into out's arena. The first looks at what belongs to no
   SR, and gives all SRs in order; the second at one SR, whose turn is WHOLE. strict reads every page of the database
   and every image to its last block, and looks at SRs that no host has attached too. Changes nothing. */
int dispatch_fsck(struct dispatch *d, bool strict, struct findings *out, struct uuid **srs, size_t *count,
                  struct fault *f);
int dispatch_fsck_sr(struct dispatch *d, const struct uuid *sr, bool strict, struct findings *out, struct fault *f);
/* Into a database that was begun anew: nobody knows who holds what, and epochs are above all that were given. */
int dispatch_rebuild(struct dispatch *d, struct fault *f);
/* What this host shows of SRs whose rows are lost: how each is reached, each once. told is called with a sentence for
   every kind of which that could not be found out. */
struct dispatch_trace {
    const char *type;
    struct uuid uuid;
    struct pairs config;
};
void dispatch_traces(struct dispatch *d, struct arena *a, struct dispatch_trace **out, size_t *count,
                     void (*told)(void *arg, const char *type, const struct fault *f), void *arg);
/* An SR of this server, with all its disks, from its medium. */
int dispatch_rebuild_sr(struct dispatch *d, const char *type, const struct uuid *uuid, const struct pairs *config,
                        size_t *disks, struct fault *f);
/* Connects an SR that is attached, for looking only, in a process that serves nobody. */
int dispatch_look(struct dispatch *d, const struct uuid *sr, struct fault *f);

/* All rows of all tables as JSON, for smapid --describe. */
void dispatch_describe(struct text *out);

/* Logs a line for each SR type that runs outside programs: each with its version, or the package that lacks. A call
   that needs a missing one is told too. Runs the programs, for a moment each. */
void dispatch_tell_programs(void);

#endif
