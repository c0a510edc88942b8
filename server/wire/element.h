/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The elements of XML-RPC that a methodCall may hold, from element.def. Only for the files of wire/. */
#ifndef SMAPI_WIRE_ELEMENT_H
#define SMAPI_WIRE_ELEMENT_H

enum element {
#define ELEMENT(id, name, place, check, kind) ELEMENT_##id,
#include "server/wire/element.def"
#undef ELEMENT
    ELEMENT_COUNT
};

#define ELEMENT_FIRST_TYPE ELEMENT_STRUCT

#endif
