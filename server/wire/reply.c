/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A methodResponse is read as the methodCall that carries the same value: through the same gate. */
#include "server/wire/read.h"

#include "server/base/text.h"
#include <string.h>

#define CALL_HEAD "<?xml version=\"1.0\"?><methodCall><methodName>reply</methodName><params><param>"
#define CALL_TAIL "</param></params></methodCall>"

/* What stands between two tags. */
static bool between(const char *body, const char *open, const char *close, const char **out, size_t *length)
{
    const char *from = strstr(body, open);
    const char *to = from ? strstr(from, close) : NULL;
    for (const char *later = to; later; later = strstr(later + 1, close))
        to = later;
    if (!to)
        return false;
    *out = from + strlen(open);
    *length = (size_t) (to - *out);
    return true;
}

static int read_value(struct arena *arena, const char *value, size_t length, struct value **out, struct fault *f)
{
    struct wire_call call;
    AUTO_TEXT struct text t = TEXT_OF(WIRE_BODY_MAX);
    text_add(&t, CALL_HEAD);
    text_add_bytes(&t, value, length);
    text_add(&t, CALL_TAIL);
    if (t.full)
        return fault_set(f, FAULT_EIO, "the answer is of more than %u bytes", WIRE_BODY_MAX);
    if (wire_read_call(arena, t.data, t.length, &call, f) < 0 || call.count != 1)
        return fault_set(f, FAULT_EIO, "the answer is not one of smapid");
    *out = call.params[0];
    return 0;
}

static int take_fault(const struct value *v, struct fault *f)
{
    const struct value *code = value_get(v, "faultCode"), *text = value_get(v, "faultString");
    if (!code || !text || code->kind != VALUE_INTEGER || text->kind != VALUE_STRING)
        return fault_set(f, FAULT_EIO, "the answer is a fault that says nothing");
    return fault_set(f, (enum fault_code) code->integer, "%s", text->text);
}

int wire_read_reply(struct arena *arena, const char *body, size_t length, struct value **out, struct fault *f)
{
    const char *text = arena_copy(arena, body, length), *value;
    size_t value_length;
    struct value *v;
    if (between(text, "<fault>", "</fault>", &value, &value_length))
        return read_value(arena, value, value_length, &v, f) < 0 ? -1 : take_fault(v, f);
    if (!between(text, "<param>", "</param>", &value, &value_length))
        return fault_set(f, FAULT_EIO, "the answer is not one of smapid");
    return read_value(arena, value, value_length, out, f);
}
