/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/args.h"

#include <inttypes.h>
#include <string.h>

enum { QUOTE = 40 }; /* bytes of a caller's text that a sentence repeats */

static int refuse(struct fault *f, const struct method *m, const char *name, const char *wanted,
                  const struct value *got)
{
    if (got->kind == VALUE_STRING)
        return fault_set(f, FAULT_BadRequest, "%s: %s must be %s, not \"%.*s\"", m->name, name, wanted, QUOTE,
                         got->text);
    return fault_set(f, FAULT_BadRequest, "%s: %s must be %s, not a value of type %s", m->name, name, wanted,
                     value_kind_name(got->kind));
}

/* Decimal digits only, fitting 63 bits. */
static bool read_size(const char *text, uint64_t *out)
{
    uint64_t n = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || n > (uint64_t) INT64_MAX / 10)
            return false;
        n = n * 10 + (uint64_t) (*text - '0');
    }
    *out = n;
    return n <= (uint64_t) INT64_MAX;
}

static bool take_size(const struct value *v, uint64_t *out)
{
    if (v->kind == VALUE_STRING)
        return read_size(v->text, out);
    if (v->kind != VALUE_INTEGER || v->integer < 0)
        return false;
    *out = (uint64_t) v->integer;
    return true;
}

static bool take_flag(const struct value *v, enum flag *out)
{
    if (v->kind == VALUE_BOOLEAN)
        *out = v->boolean ? FLAG_TRUE : FLAG_FALSE;
    else if (v->kind == VALUE_STRING && strcmp(v->text, "true") == 0)
        *out = FLAG_TRUE;
    else if (v->kind == VALUE_STRING && strcmp(v->text, "false") == 0)
        *out = FLAG_FALSE;
    else
        return false;
    return true;
}

static bool take_map(const struct value *v, struct arena *a, struct pairs *out)
{
    if (v->kind != VALUE_STRUCT)
        return false;
    struct pairs p = {ARENA_ARRAY(a, struct pair, v->count), v->count};
    for (size_t i = 0; i < v->count; i++) {
        if (v->members[i].value->kind != VALUE_STRING)
            return false;
        p.items[i] = (struct pair){v->members[i].name, v->members[i].value->text};
    }
    *out = p;
    return true;
}

/* Negative sizes are well-formed numbers that no disk can have; everything else that is not digits is ill-typed. */
static bool is_negative(const struct value *v)
{
    uint64_t n;
    return (v->kind == VALUE_INTEGER && v->integer < 0) ||
           (v->kind == VALUE_STRING && v->text[0] == '-' && read_size(v->text + 1, &n));
}

static int store_size(const struct method *m, const struct param *p, const struct value *v, uint64_t *out,
                      struct fault *f)
{
    if (is_negative(v))
        return fault_set(f, FAULT_VDISize, "%s: %s must not be negative", m->name, p->name);
    return take_size(v, out) ? 0 : refuse(f, m, p->name, "a number of bytes, in decimal digits", v);
}

/* Puts one value where its row says. */
static int store(const struct method *m, const struct param *p, const struct value *v, struct arena *a, void *at,
                 struct fault *f)
{
    switch (p->kind) {
    case PARAM_uuid:
        return v->kind == VALUE_STRING && uuid_parse(v->text, v->length, at) ? 0 : refuse(f, m, p->name, "a uuid", v);
    case PARAM_text:
        if (v->kind != VALUE_STRING)
            return refuse(f, m, p->name, "a string", v);
        *(arg_text *) at = v->text;
        return 0;
    case PARAM_size:
        return store_size(m, p, v, at, f);
    case PARAM_count:
        return take_size(v, at) ? 0 : refuse(f, m, p->name, "a number", v);
    case PARAM_flag:
        return take_flag(v, at) ? 0 : refuse(f, m, p->name, "\"true\" or \"false\"", v);
    case PARAM_map:
        return take_map(v, a, at) ? 0 : refuse(f, m, p->name, "a struct of strings", v);
    case PARAM_array:
        if (v->kind != VALUE_ARRAY)
            return refuse(f, m, p->name, "an array", v);
        *(arg_array *) at = v;
        return 0;
    case PARAM_secret:
        if (v->kind != VALUE_STRING)
            return refuse(f, m, p->name, "a string", v);
        *(arg_secret *) at = (struct secret){v->text};
        return 0;
    }
    return -1;
}

static const struct param *param_find(const struct method *m, const char *name, enum place_kind place)
{
    for (const struct param *p = m->params; p->name; p++)
        if (p->place == place && strcmp(p->name, name) == 0)
            return p;
    return NULL;
}

/* A member of keys.def that this method has no use for must still be of its type. */
static int check_key(const struct method *m, const struct member *member, struct arena *a, struct fault *f)
{
    const struct key_row *key = key_find(member->name);
    struct pairs ignored;
    if (!key)
        return fault_set(f, FAULT_BadRequest, "%s: unknown member \"%.*s\"", m->name, QUOTE, member->name);
    if ((key->kind == PARAM_text || key->kind == PARAM_secret) && member->value->kind != VALUE_STRING)
        return refuse(f, m, member->name, "a string", member->value);
    if (key->kind == PARAM_array && member->value->kind != VALUE_ARRAY)
        return refuse(f, m, member->name, "an array", member->value);
    if (key->kind == PARAM_map && !take_map(member->value, a, &ignored))
        return refuse(f, m, member->name, "a struct of strings", member->value);
    if (strcmp(key->name, "command") == 0 && strcmp(member->value->text, m->name) != 0)
        return refuse(f, m, "command", "the name of the method", member->value);
    return 0;
}

static int decode_members(const struct method *m, const struct value *object, struct arena *a, char *out,
                          struct fault *f)
{
    for (size_t i = 0; i < object->count; i++) {
        const struct param *p = param_find(m, object->members[i].name, PLACE_KEY);
        int failed =
            p ? store(m, p, object->members[i].value, a, out + p->offset, f) : check_key(m, &object->members[i], a, f);
        if (failed)
            return -1;
    }
    for (const struct param *p = m->params; p->name; p++)
        if (p->place == PLACE_KEY && p->required && !value_get(object, p->name))
            return fault_set(f, FAULT_BadRequest, "%s: member %s is missing", m->name, p->name);
    return 0;
}

/* The elements of items go, in order, to the parameters of that place. */
static int decode_list(const struct method *m, enum place_kind place, const char *where, struct value *const *items,
                       size_t count, struct arena *a, char *out, struct fault *f)
{
    size_t used = 0;
    for (const struct param *p = m->params; p->name; p++) {
        if (p->place != place)
            continue;
        if (used < count && store(m, p, items[used], a, out + p->offset, f) < 0)
            return fault_prefix(f, "%s[%zu]", where, used);
        if (used >= count && p->required)
            return fault_set(f, FAULT_BadRequest, "%s: %s[%zu] is missing: %s", m->name, where, used, p->name);
        used += used < count ? 1 : 0;
    }
    if (used < count)
        return fault_set(f, FAULT_BadRequest, "%s: %s has %zu elements, at most %zu are known", m->name, where, count,
                         used);
    return 0;
}

static bool takes_struct(const struct method *m)
{
    return m->params->name && m->params->place != PLACE_PLAIN;
}

static int decode_struct(const struct method *m, const struct value *object, struct arena *a, char *out,
                         struct fault *f)
{
    const struct value *list = value_get(object, "args");
    if (decode_members(m, object, a, out, f) < 0)
        return -1;
    return decode_list(m, PLACE_ARG, "args", list ? list->items : NULL, list ? list->count : 0, a, out, f);
}

int args_decode(const struct method *m, struct value *const *params, size_t count, struct arena *a, void **out,
                struct fault *f)
{
    char *args = arena_alloc(a, m->args_size);
    int failed;
    if (!takes_struct(m))
        failed = decode_list(m, PLACE_PLAIN, "params", params, count, a, args, f);
    else if (count != 1 || params[0]->kind != VALUE_STRUCT)
        failed = fault_set(f, FAULT_BadRequest, "%s takes one parameter, a struct", m->name);
    else
        failed = decode_struct(m, params[0], a, args, f);
    if (failed)
        return -1;
    *out = args;
    return 0;
}

const void *args_field(const struct method *m, const void *args, const char *name)
{
    for (const struct param *p = m->params; p->name; p++)
        if (strcmp(p->name, name) == 0)
            return (const char *) args + p->offset;
    return NULL;
}
