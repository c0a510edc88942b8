/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values to text, by xmlrpc-c. */
#ifndef SMAPI_WIRE_WRITE_H
#define SMAPI_WIRE_WRITE_H

#include "server/base/fault.h"
#include "server/wire/value.h"

/* A methodResponse, malloc'd and NUL-terminated, starting with "<?xml" at its first byte; *length without the NUL.
   nil is exactly <value><nil/></value>; an integer outside 32 bits is an assertion (sizes go as strings).
   Never fails: out of memory aborts. The caller frees. */
char *wire_write_result(const struct value *v, size_t *length);
/* A fault with the int faultCode and the faultString of fault_string(). */
char *wire_write_fault(const struct fault *f, size_t *length);

#endif
