/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values to text, by xmlrpc-c. */
#ifndef SMAPI_WIRE_WRITE_H
#define SMAPI_WIRE_WRITE_H

#include "server/base/fault.h"
#include "server/wire/value.h"

/* A methodResponse, malloc'd and NUL-terminated, starting with "<?xml" at its first byte; *length without the NUL.
   nil is exactly <value><nil/></value>; no element has an attribute; \r in text arrives as \r. Bytes that are not
   UTF-8, and characters XML cannot carry, become '?'. An integer outside 32 bits aborts, in every build: sizes go as
   strings. Never fails: out of memory aborts. The caller frees. */
char *wire_write_result(const struct value *v, size_t *length);
/* A fault with the int faultCode and as faultString that of fault_string(), then, when the fault has one, "\n" and its
   document. */
char *wire_write_fault(const struct fault *f, size_t *length);
/* The answer of system.multicall: an array with an element for each of these answers, which the two above made: an
   array of the one result, or the struct of the fault. */
char *wire_write_multicall(const char *const *replies, const size_t *lengths, size_t count, size_t *length);

#endif
