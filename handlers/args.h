/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values to typed arguments, by the rows. */
#ifndef SMAPI_HANDLERS_ARGS_H
#define SMAPI_HANDLERS_ARGS_H

#include "handlers/method.h"
#include "server/base/fault.h"

/* Fills struct <name>_args of the method, in the arena. -1 with BadRequest naming the member, what was wanted and what
   was there, for anything unknown, missing, ill-typed or too much. */
int args_decode(const struct method *m, struct value *const *params, size_t count, struct arena *a, void **out,
                struct fault *f);

/* The field of that name in decoded arguments; NULL when the method has no such parameter. */
const void *args_field(const struct method *m, const void *args, const char *name);

#endif
