/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values of XML-RPC, in a call's arena. Plain data: the one header of wire/ that handlers include. */
#ifndef SMAPI_WIRE_VALUE_H
#define SMAPI_WIRE_VALUE_H

#include "server/base/arena.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum value_kind {
    VALUE_NIL,
    VALUE_BOOLEAN,
    VALUE_INTEGER, /* int, i4, i8 */
    VALUE_DOUBLE,
    VALUE_STRING,
    VALUE_DATETIME, /* text as sent */
    VALUE_BASE64,   /* text as sent */
    VALUE_ARRAY,
    VALUE_STRUCT
};

struct value;

struct member {
    const char *name;
    struct value *value;
};

/* Text is UTF-8, NUL-terminated, and holds no other NUL. Arrays and structs keep the order in which they were sent;
   a struct that was read has no two members of one name. */
struct value {
    enum value_kind kind;
    bool boolean;
    int64_t integer;
    double real;
    const char *text;
    size_t length; /* bytes of text */
    struct value **items;
    struct member *members;
    size_t count, room; /* of items or members */
};

const char *value_kind_name(enum value_kind kind); /* "string", "struct", … for sentences */

struct value *value_nil(struct arena *a);
struct value *value_boolean(struct arena *a, bool b);
struct value *value_integer(struct arena *a, int64_t n); /* must fit 32 bits when it is sent: sizes go as strings */
struct value *value_string(struct arena *a, const char *text);
struct value *value_size(struct arena *a, uint64_t n); /* a decimal string, as xapi wants sizes */
struct value *value_array(struct arena *a);
struct value *value_struct(struct arena *a);
void value_append(struct arena *a, struct value *array, struct value *item);
void value_put(struct arena *a, struct value *object, const char *name, struct value *item); /* name must live on */

/* The member, or NULL. */
const struct value *value_get(const struct value *object, const char *name);

#endif
