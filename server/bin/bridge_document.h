/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The little the bridge reads in documents that others check in full: a call's method, a fault's code and sentence. */
#ifndef SMAPI_BIN_BRIDGE_DOCUMENT_H
#define SMAPI_BIN_BRIDGE_DOCUMENT_H

#include "server/base/text.h"

/* True when the text of length bytes starts, after an optional XML declaration and blanks, with
   <methodCall><methodName>name</methodName>. */
bool document_calls(const char *text, size_t length, const char *name);

/* True when the text is a methodResponse whose first element is a fault with an int or i4 faultCode. Then *code is set
   and the faultString's text, entities resolved, is added to sentence. */
bool document_fault(const char *text, size_t length, int *code, struct text *sentence);

/* The XML document that follows the first line of a fault's sentence; the whole of it when none does. */
const char *document_of_sentence(const char *sentence);

#endif
