/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* system.multicall: several calls in one body, done one after the other, each authorised and journalled as if it had
   come alone and each under a turn of its own; between them nothing is held. One that fails does not end the others.
   An operation id covers all: each part gets one derived from it, so that a repeat finds what was done. */
#ifndef SMAPI_HANDLERS_MULTICALL_H
#define SMAPI_HANDLERS_MULTICALL_H

#include "handlers/dispatch.h"
#include "handlers/phases.h"

struct multicall;

/* The parts of a call that is several (phases.h), which it made itself; c->work is filled. As multicall_begin; each
   part is done for whoever called c. They carry no operation id: the whole of them does. */
bool multicall_split(struct dispatch *d, struct call *c, const struct part *parts, size_t count);

/* c's arguments are decoded. Does what needs no turn. True when all is done and the
   reply set (or, with the fault set, when there are too many); false when a part waits for c->turn. */
bool multicall_begin(struct dispatch *d, struct call *c);
/* The turn of the part that waits has come. */
bool multicall_run(struct dispatch *d, struct call *c);
/* The part that waits ends with c->fault, which is cleared, and the next one follows. */
bool multicall_refuse(struct dispatch *d, struct call *c);

#endif
