/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/wire/value.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

enum { FIRST_ROOM = 4 };

const char *value_kind_name(enum value_kind kind)
{
    static const char *const names[] = {
        [VALUE_NIL] = "nil",       [VALUE_BOOLEAN] = "boolean", [VALUE_INTEGER] = "integer",
        [VALUE_DOUBLE] = "double", [VALUE_STRING] = "string",   [VALUE_DATETIME] = "dateTime.iso8601",
        [VALUE_BASE64] = "base64", [VALUE_ARRAY] = "array",     [VALUE_STRUCT] = "struct",
    };
    return names[kind];
}

static struct value *make(struct arena *a, enum value_kind kind)
{
    struct value *v = ARENA_NEW(a, struct value);
    v->kind = kind;
    return v;
}

struct value *value_nil(struct arena *a)
{
    return make(a, VALUE_NIL);
}

struct value *value_boolean(struct arena *a, bool b)
{
    struct value *v = make(a, VALUE_BOOLEAN);
    v->boolean = b;
    return v;
}

struct value *value_integer(struct arena *a, int64_t n)
{
    struct value *v = make(a, VALUE_INTEGER);
    v->integer = n;
    return v;
}

struct value *value_string(struct arena *a, const char *text)
{
    struct value *v = make(a, VALUE_STRING);
    v->length = strlen(text);
    v->text = arena_copy(a, text, v->length);
    return v;
}

struct value *value_size(struct arena *a, uint64_t n)
{
    struct value *v = make(a, VALUE_STRING);
    v->text = arena_printf(a, "%" PRIu64, n);
    v->length = strlen(v->text);
    return v;
}

struct value *value_array(struct arena *a)
{
    return make(a, VALUE_ARRAY);
}

struct value *value_struct(struct arena *a)
{
    return make(a, VALUE_STRUCT);
}

/* Twice the room when it is used up; the old block stays in the arena. */
static void *roomier(struct arena *a, struct value *v, void *old, size_t each)
{
    if (v->count < v->room)
        return old;
    v->room = v->room ? v->room * 2 : FIRST_ROOM;
    void *more = arena_alloc(a, v->room * each);
    if (v->count)
        memcpy(more, old, v->count * each);
    return more;
}

void value_append(struct arena *a, struct value *array, struct value *item)
{
    assert(array->kind == VALUE_ARRAY);
    array->items = roomier(a, array, array->items, sizeof *array->items);
    array->items[array->count++] = item;
}

void value_put(struct arena *a, struct value *object, const char *name, struct value *item)
{
    assert(object->kind == VALUE_STRUCT);
    object->members = roomier(a, object, object->members, sizeof *object->members);
    object->members[object->count++] = (struct member){name, item};
}

const struct value *value_get(const struct value *object, const char *name)
{
    assert(object->kind == VALUE_STRUCT);
    for (size_t i = 0; i < object->count; i++)
        if (strcmp(object->members[i].name, name) == 0)
            return object->members[i].value;
    return NULL;
}
