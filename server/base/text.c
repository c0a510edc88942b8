/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/text.h"

#include <stdarg.h>
#include <string.h>

void text_free(struct text *t)
{
    free(t->data);
    *t = TEXT_OF(t->ceiling);
}

/* Makes room for more bytes and the NUL; false when the ceiling forbids it. */
static bool text_room(struct text *t, size_t more)
{
    if (t->full || more > t->ceiling || t->length > t->ceiling - more) {
        t->full = true;
        return false;
    }
    size_t need = t->length + more + 1;
    if (need <= t->size)
        return true;
    size_t size = t->size ? t->size : 256;
    while (size < need)
        size *= 2;
    char *data = realloc(t->data, size);
    if (!data)
        abort();
    t->data = data;
    t->size = size;
    return true;
}

void text_add_bytes(struct text *t, const char *s, size_t length)
{
    if (!text_room(t, length))
        return;
    if (length)
        memcpy(t->data + t->length, s, length);
    t->length += length;
    t->data[t->length] = '\0';
}

void text_add(struct text *t, const char *s)
{
    text_add_bytes(t, s, strlen(s));
}

void text_printf(struct text *t, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (length >= 0 && text_room(t, (size_t) length)) {
        vsnprintf(t->data + t->length, (size_t) length + 1, fmt, again);
        t->length += (size_t) length;
    }
    va_end(again);
}

void text_add_xml(struct text *t, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char) *s;
        switch (c) {
        case '&':
            text_add(t, "&amp;");
            break;
        case '<':
            text_add(t, "&lt;");
            break;
        case '>':
            text_add(t, "&gt;");
            break;
        case '"':
            text_add(t, "&quot;");
            break;
        case '\'':
            text_add(t, "&#39;");
            break;
        default:
            if (c < 0x20 && c != '\t' && c != '\n' && c != '\r')
                text_add(t, "?");
            else
                text_add_bytes(t, s, 1);
        }
    }
}

void text_add_json(struct text *t, const char *s)
{
    text_add(t, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char) *s;
        if (c == '"' || c == '\\')
            text_printf(t, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            text_printf(t, "\\u%04x", c);
        else
            text_add_bytes(t, s, 1);
    }
    text_add(t, "\"");
}

char *text_take(struct text *t)
{
    text_add(t, "");
    if (!t->data && !(t->data = calloc(1, 1)))
        abort();
    char *data = TAKE(t->data);
    *t = TEXT_OF(t->ceiling);
    return data;
}
