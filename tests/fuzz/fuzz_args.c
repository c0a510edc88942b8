/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libFuzzer: a body through gate and reader, and its parameters into the typed arguments of the method it names and of
   every other one. */
#include "handlers/args.h"
#include "server/wire/read.h"
#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const struct method *m, const struct wire_call *call, struct arena *arena)
{
    struct fault f = {0};
    void *args = NULL;
    if (args_decode(m, call->params, call->count, arena, &args, &f) < 0) {
        assert(!args && (f.code == FAULT_BadRequest || f.code == FAULT_VDISize));
        assert(strlen(f.detail) < 400);
        return;
    }
    const arg_map *config = args_field(m, args, "device_config");
    for (const struct param *p = m->params; p->name; p++) {
        if (p->kind != PARAM_uuid)
            continue;
        size_t length = strlen(((const struct uuid *) args_field(m, args, p->name))->text);
        assert(length == UUID_TEXT || (length == 0 && !p->required));
    }
    for (size_t i = 0; config && i < config->count; i++)
        assert(config->items[i].key && config->items[i].value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_ARENA struct arena *arena = arena_new(16U << 20);
    struct wire_call call;
    struct fault f = {0};
    size_t count;
    const struct method *rows = method_rows(&count);
    if (wire_read_call(arena, (const char *) data, size, &call, &f) < 0)
        return 0;
    for (size_t i = 0; i < count; i++)
        decode(&rows[i], &call, arena);
    return 0;
}
