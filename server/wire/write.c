/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/wire/write.h"
#include "server/base/text.h"
#include "server/wire/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <xmlrpc-c/base.h>

/* What xmlrpc-c reports here is want of memory, or a bug of ours. */
static void require(bool holds)
{
    if (!holds)
        abort();
}

/* Stands for "&#" until the reply is written. No text holds it, as XML cannot carry it. */
enum { ESCAPE = '\x01' };

/* The number of a character of 4 bytes. */
static unsigned number_of(const char *s)
{
    return ((unsigned) s[0] & 7U) << 18 | ((unsigned) s[1] & 63U) << 12 | ((unsigned) s[2] & 63U) << 6 |
           ((unsigned) s[3] & 63U);
}

/* Text as xmlrpc-c and XML can carry it, whatever a label or a tool's output held: bytes that are no character of XML
   become '?'; characters past U+FFFF, which xmlrpc-c refuses, become references behind ESCAPE. malloc'd. */
static char *legal_copy(const char *text, size_t length, size_t *legal_length)
{
    char *copy = malloc(length * 3 + 1), *out = copy;
    require(copy);
    for (size_t i = 0, n; i < length; i += n ? n : 1) {
        n = utf8_length((const unsigned char *) text + i, length - i);
        if (n == 0)
            *out++ = '?';
        else if (n == 4)
            out += snprintf(out, length * 3 + 1 - (size_t) (out - copy), "%cx%x;", ESCAPE, number_of(text + i));
        else
            out = mempcpy(out, text + i, n);
    }
    *out = '\0';
    *legal_length = (size_t) (out - copy);
    return copy;
}

/* The _cr form keeps \r, and writes it as a reference; the plain one would make it \n. */
static xmlrpc_value *string_of(xmlrpc_env *env, const char *text, size_t length)
{
    size_t legal_length;
    AUTO_FREE char *legal = legal_copy(text, length, &legal_length);
    return xmlrpc_string_new_lp_cr(env, legal_length, legal);
}

static xmlrpc_value *integer_of(xmlrpc_env *env, int64_t n)
{
    require(n >= INT32_MIN && n <= INT32_MAX);
    return xmlrpc_int_new(env, (int) n);
}

static xmlrpc_value *base64_of(xmlrpc_env *env, const char *text, size_t length)
{
    xmlrpc_mem_block *bytes = xmlrpc_base64_decode(env, text, length);
    require(!env->fault_occurred);
    xmlrpc_value *made =
        xmlrpc_base64_new(env, XMLRPC_MEMBLOCK_SIZE(char, bytes), XMLRPC_MEMBLOCK_CONTENTS(unsigned char, bytes));
    XMLRPC_MEMBLOCK_FREE(char, bytes);
    return made;
}

static xmlrpc_value *value_of(xmlrpc_env *env, const struct value *v);

static xmlrpc_value *array_of(xmlrpc_env *env, const struct value *v)
{
    xmlrpc_value *made = xmlrpc_array_new(env);
    for (size_t i = 0; i < v->count; i++) {
        xmlrpc_value *item = value_of(env, v->items[i]);
        xmlrpc_array_append_item(env, made, item);
        xmlrpc_DECREF(item);
    }
    return made;
}

static xmlrpc_value *struct_of(xmlrpc_env *env, const struct value *v)
{
    xmlrpc_value *made = xmlrpc_struct_new(env);
    for (size_t i = 0; i < v->count; i++) {
        xmlrpc_value *name = string_of(env, v->members[i].name, strlen(v->members[i].name));
        xmlrpc_value *item = value_of(env, v->members[i].value);
        xmlrpc_struct_set_value_v(env, made, name, item);
        xmlrpc_DECREF(name);
        xmlrpc_DECREF(item);
    }
    return made;
}

static xmlrpc_value *bare_value_of(xmlrpc_env *env, const struct value *v)
{
    switch (v->kind) {
    case VALUE_NIL:
        return xmlrpc_nil_new(env);
    case VALUE_BOOLEAN:
        return xmlrpc_bool_new(env, v->boolean);
    case VALUE_INTEGER:
        return integer_of(env, v->integer);
    case VALUE_DOUBLE:
        return xmlrpc_double_new(env, v->real);
    case VALUE_STRING:
        return string_of(env, v->text, v->length);
    case VALUE_DATETIME:
        return xmlrpc_datetime_new_str(env, v->text);
    case VALUE_BASE64:
        return base64_of(env, v->text, v->length);
    case VALUE_ARRAY:
        return array_of(env, v);
    case VALUE_STRUCT:
        return struct_of(env, v);
    }
    abort();
}

static xmlrpc_value *value_of(xmlrpc_env *env, const struct value *v)
{
    xmlrpc_value *made = bare_value_of(env, v);
    require(!env->fault_occurred);
    return made;
}

static size_t escapes(const char *s, size_t length)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++)
        n += s[i] == ESCAPE;
    return n;
}

/* The block's bytes with a NUL, ESCAPE written out; frees the block. */
static char *take_block(xmlrpc_mem_block *block, size_t *length)
{
    const char *s = XMLRPC_MEMBLOCK_CONTENTS(char, block);
    size_t size = XMLRPC_MEMBLOCK_SIZE(char, block), n = 0;
    char *bytes = malloc(size + escapes(s, size) + 1);
    require(bytes);
    for (size_t i = 0; i < size; i++) {
        bytes[n++] = s[i] == ESCAPE ? '&' : s[i];
        if (s[i] == ESCAPE)
            bytes[n++] = '#';
    }
    bytes[n] = '\0';
    XMLRPC_MEMBLOCK_FREE(char, block);
    *length = n;
    return bytes;
}

char *wire_write_result(const struct value *v, size_t *length)
{
    xmlrpc_env env;
    xmlrpc_env_init(&env);
    xmlrpc_mem_block *block = XMLRPC_MEMBLOCK_NEW(char, &env, 0);
    xmlrpc_value *made = value_of(&env, v);
    /* The dialect that writes nil without a namespace. */
    xmlrpc_serialize_response2(&env, block, made, xmlrpc_dialect_i8);
    require(!env.fault_occurred);
    xmlrpc_DECREF(made);
    xmlrpc_env_clean(&env);
    return take_block(block, length);
}

char *wire_write_fault(const struct fault *f, size_t *length)
{
    char sentence[FAULT_DETAIL + 256];
    fault_string(f, sentence, sizeof sentence);
    AUTO_TEXT struct text whole = TEXT_OF(sizeof sentence + 1 + FAULT_DOCUMENT);
    text_add(&whole, sentence);
    if (f->document) {
        text_add(&whole, "\n");
        text_add(&whole, f->document);
    }
    require(!whole.full);
    size_t legal_length;
    AUTO_FREE char *legal = legal_copy(whole.data, whole.length, &legal_length);
    /* Not by xmlrpc_env_set_fault, which would turn ESCAPE into another character. */
    xmlrpc_env env, fault = {.fault_occurred = 1, .fault_code = (int) f->code, .fault_string = legal};
    xmlrpc_env_init(&env);
    xmlrpc_mem_block *block = XMLRPC_MEMBLOCK_NEW(char, &env, 0);
    xmlrpc_serialize_fault(&env, block, &fault);
    require(!env.fault_occurred);
    xmlrpc_env_clean(&env);
    return take_block(block, length);
}

/* The outermost <value>…</value> of a reply, and whether it is of a fault. */
static bool value_in(const char *reply, size_t length, const char **value, size_t *value_length)
{
    static const char start[] = "<value>", end[] = "</value>";
    const char *from = memmem(reply, length, start, sizeof start - 1);
    require(from);
    const char *to = reply + length - (sizeof end - 1);
    while (to > from && memcmp(to, end, sizeof end - 1) != 0)
        to--;
    require(to > from);
    *value = from;
    *value_length = (size_t) (to - from) + sizeof end - 1;
    return memmem(reply, (size_t) (from - reply), "<fault>", 7) != NULL;
}

static size_t put(char *out, size_t at, const char *bytes, size_t length)
{
    memcpy(out + at, bytes, length);
    return at + length;
}

char *wire_write_multicall(const char *const *replies, const size_t *lengths, size_t count, size_t *length)
{
    static const char head[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodResponse>\r\n<params>\r\n"
                               "<param><value><array><data>\r\n",
                      tail[] = "</data></array></value></param>\r\n</params>\r\n</methodResponse>\r\n",
                      open[] = "<value><array><data>", close[] = "</data></array></value>", line[] = "\r\n";
    size_t size = sizeof head + sizeof tail, n = 0;
    for (size_t i = 0; i < count; i++)
        size += lengths[i] + sizeof open + sizeof close + sizeof line;
    char *out = malloc(size);
    require(out);
    n = put(out, n, head, sizeof head - 1);
    for (size_t i = 0; i < count; i++) {
        const char *value;
        size_t value_length;
        bool fault = value_in(replies[i], lengths[i], &value, &value_length);
        n = fault ? n : put(out, n, open, sizeof open - 1);
        n = put(out, n, value, value_length);
        n = fault ? n : put(out, n, close, sizeof close - 1);
        n = put(out, n, line, sizeof line - 1);
    }
    n = put(out, n, tail, sizeof tail); /* with its NUL */
    *length = n - 1;
    return out;
}
