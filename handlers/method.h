/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* methods.def and keys.def as tables, and each method's arguments as a struct. */
#ifndef SMAPI_HANDLERS_METHOD_H
#define SMAPI_HANDLERS_METHOD_H

#include "backends/guard.h"
#include "server/base/identity.h"
#include "server/base/model.h"
#include "server/base/secret.h"
#include "server/base/turn.h"
#include "server/wire/value.h"
#include <stdbool.h>
#include <stddef.h>

enum effect { EFFECT_READS, EFFECT_STORE, EFFECT_SYNC, EFFECT_MEDIUM };
enum place_kind { PLACE_KEY, PLACE_ARG, PLACE_PLAIN };
enum result_kind { RESULT_NIL, RESULT_STRING, RESULT_VDI_INFO, RESULT_ATTACH, RESULT_STRUCT, RESULT_ARRAY };
enum param_kind { PARAM_uuid, PARAM_text, PARAM_size, PARAM_flag, PARAM_map, PARAM_count, PARAM_array, PARAM_secret };
enum flag { FLAG_ABSENT, FLAG_FALSE, FLAG_TRUE };

/* What a parameter of each kind is in the struct; the zero value says it was not given. */
typedef struct uuid arg_uuid;
typedef const char *arg_text;
typedef uint64_t arg_size;
typedef enum flag arg_flag;
typedef struct pairs arg_map;
typedef uint64_t arg_count;
typedef const struct value *arg_array;
typedef struct secret arg_secret;

#define PARAM_FIELD(m, kind, need, place, name, text) arg_##kind name;
#define METHOD(m, wire, lock, cap, effect, verb, result, text)                                                         \
    struct m##_args {                                                                                                  \
        PARAMS_##m(PARAM_FIELD, m)                                                                                     \
    };
#include "handlers/methods.def"
#undef METHOD
#undef PARAM_FIELD

struct param {
    const char *name; /* NULL ends the list */
    enum param_kind kind;
    bool required;
    enum place_kind place;
    size_t offset; /* in the method's struct */
    const char *text;
};

struct phases;

struct method {
    const char *name; /* on the wire */
    enum lock_class lock;
    enum capability capability;
    enum effect effect;
    enum verb verb;
    enum result_kind result;
    const char *text;
    const struct param *params;
    size_t args_size;
    const struct phases *phases;
};

const struct method *method_rows(size_t *count);
/* NULL when there is none. */
const struct method *method_find(const char *name);

struct key_row {
    const char *name;
    enum param_kind kind;
};
/* keys.def: NULL when the name is in no row. */
const struct key_row *key_find(const char *name);

const char *param_kind_name(enum param_kind kind);
const char *place_name(enum place_kind place);
const char *lock_name(enum lock_class lock);
const char *effect_name(enum effect effect);
const char *result_name(enum result_kind result);
const char *capability_name(enum capability cap);

#endif
