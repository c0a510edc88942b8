/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one error object. Functions return 0 or -1; the reason is in the fault, written once by the place that knows
   most. Upper layers may add context in front (fault_prefix), never replace the code. */
#ifndef SMAPI_BASE_FAULT_H
#define SMAPI_BASE_FAULT_H

#include "server/base/own.h"
#include <stdbool.h>
#include <stddef.h>

enum fault_code {
    FAULT_NONE = 0,
#define FAULT_ROW(name, code, text, when) FAULT_##name = (code),
#include "server/base/fault.def"
#undef FAULT_ROW
};

#define FAULT_DETAIL 768

/* The most bytes of a document; whoever makes one leaves out entries that do not fit. */
#define FAULT_DOCUMENT (256U << 10)

struct fault {
    enum fault_code code;
    char detail[FAULT_DETAIL]; /* for the person who reads it at night: what was tried, on which object, what came back
                                */
    /* An XML document for programs, what the caller may choose from (targets, LUNs, exports); NULL when there is none.
       Lives in the arena of the call. */
    const char *document;
};

struct fault_row {
    enum fault_code code;
    const char *name, *text, *when;
};

/* All rows, in the order of fault.def. */
const struct fault_row *fault_rows(size_t *count);
/* The row of a code; never NULL for a code of the enum. */
const struct fault_row *fault_row(enum fault_code code);

/* Both return -1, so that a caller can return them. A fault already set is replaced. */
int fault_set(struct fault *f, enum fault_code code, const char *fmt, ...) PRINTF(3, 4);
/* Appends ": " and the text of errno; errno ENOSPC and EDQUOT always become SRNoSpace. */
int fault_errno(struct fault *f, enum fault_code code, const char *fmt, ...) PRINTF(3, 4);
/* Gives a fault that is set its document; one of more than FAULT_DOCUMENT bytes is left out. */
void fault_document(struct fault *f, const char *document);
/* Writes context in front of the detail. */
int fault_prefix(struct fault *f, const char *fmt, ...) PRINTF(2, 3);

/* They return -1 where compilers and analysers can see it, so that no path "failed, but returned 0" is imagined. */
static inline int fault_minus_one(int result)
{
    (void) result;
    return -1;
}
#define fault_set(...)    fault_minus_one(fault_set(__VA_ARGS__))
#define fault_errno(...)  fault_minus_one(fault_errno(__VA_ARGS__))
#define fault_prefix(...) fault_minus_one(fault_prefix(__VA_ARGS__))

/* "description [opterr=detail]", as xapi's storage manager writes it; without the bracket when there is no detail.
   One line: bytes that are not UTF-8, and characters XML cannot carry, become '?', line ends blanks. On the wire the
   document follows it on lines of its own. */
void fault_string(const struct fault *f, char *out, size_t size);

#endif
