/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libFuzzer: gate and reader over any bytes, and each value read is written again. */
#include "server/wire/read.h"
#include "server/wire/write.h"
#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Integers past 32 bits are never written. */
static bool may_be_written(const struct value *v)
{
    if (v->kind == VALUE_INTEGER)
        return v->integer >= INT32_MIN && v->integer <= INT32_MAX;
    for (size_t i = 0; i < v->count; i++)
        if (!may_be_written(v->kind == VALUE_ARRAY ? v->items[i] : v->members[i].value))
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_ARENA struct arena *arena = arena_new(1U << 20);
    struct wire_call call;
    struct fault f = {0};
    const char *body = (const char *) data;
    if (wire_read_call(arena, body, size, &call, &f) < 0) {
        assert(f.code == FAULT_BadRequest && strstr(f.detail, "at byte "));
        assert(wire_gate(body, size, &f) < 0 || strstr(f.detail, "two members of one name"));
        return 0;
    }
    for (size_t i = 0; i < call.count; i++) {
        size_t length;
        if (may_be_written(call.params[i]))
            free(wire_write_result(call.params[i], &length));
    }
    return 0;
}
