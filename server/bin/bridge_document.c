/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/bridge_document.h"

#include <string.h>

struct cursor {
    const char *at, *end;
};

static void skip_blanks(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\r' || *c->at == '\n'))
        c->at++;
}

/* Moves past this token when it is next. */
static bool take(struct cursor *c, const char *token)
{
    size_t length = strlen(token);
    if ((size_t) (c->end - c->at) < length || memcmp(c->at, token, length) != 0)
        return false;
    c->at += length;
    return true;
}

static bool take_tag(struct cursor *c, const char *tag)
{
    skip_blanks(c);
    return take(c, tag);
}

/* Moves past the next occurrence of this token. */
static bool find(struct cursor *c, const char *token)
{
    const char *found = memmem(c->at, (size_t) (c->end - c->at), token, strlen(token));
    if (!found)
        return false;
    c->at = found + strlen(token);
    return true;
}

static bool start(struct cursor *c, const char *root)
{
    if (take(c, "<?xml") && !find(c, "?>"))
        return false;
    return take_tag(c, root);
}

bool document_calls(const char *text, size_t length, const char *name)
{
    struct cursor c = {text, text + length};
    return start(&c, "<methodCall>") && take_tag(&c, "<methodName>") && take(&c, name) && take(&c, "</methodName>");
}

static bool read_code(struct cursor c, int *out)
{
    int n = 0;
    if (!find(&c, "<name>faultCode</name>") || !take_tag(&c, "<value>") || !(take_tag(&c, "<int>") || take(&c, "<i4>")))
        return false;
    const char *first = c.at;
    while (c.at < c.end && *c.at >= '0' && *c.at <= '9' && c.at - first < 9)
        n = n * 10 + (*c.at++ - '0');
    if (c.at == first || !take(&c, "</"))
        return false;
    *out = n;
    return true;
}

/* 16 for what is no hexadecimal digit. */
static unsigned digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned) (c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned) (c - 'a') + 10;
    return c >= 'A' && c <= 'F' ? (unsigned) (c - 'A') + 10 : 16;
}

/* Adds the character of a numeric reference; one that is not ASCII stays as it is written. */
static bool add_number(struct cursor *c, struct text *out)
{
    struct cursor d = *c;
    if (!take(&d, "&#"))
        return false;
    bool hex = take(&d, "x");
    unsigned n = 0;
    for (; d.at < d.end && *d.at != ';'; d.at++) {
        unsigned value = digit_value(*d.at), base = hex ? 16 : 10;
        if (value >= base || n > 0x10ffff)
            return false;
        n = n * base + value;
    }
    if (!take(&d, ";") || n == 0 || n > 0x7f)
        return false;
    char character = (char) n;
    text_add_bytes(out, &character, 1);
    *c = d;
    return true;
}

static const struct {
    const char *entity, *text;
} entities[] = {{"&lt;", "<"}, {"&gt;", ">"}, {"&amp;", "&"}, {"&quot;", "\""}, {"&apos;", "'"}};

static void add_character(struct cursor *c, struct text *out)
{
    for (size_t i = 0; i < COUNT_OF(entities); i++) {
        if (take(c, entities[i].entity)) {
            text_add(out, entities[i].text);
            return;
        }
    }
    if (add_number(c, out))
        return;
    text_add_bytes(out, c->at++, 1);
}

static void read_sentence(struct cursor c, struct text *out)
{
    if (!find(&c, "<name>faultString</name>") || !take_tag(&c, "<value>"))
        return;
    struct cursor inner = c;
    if (take_tag(&inner, "<string>"))
        c = inner;
    while (c.at < c.end && *c.at != '<')
        add_character(&c, out);
}

bool document_fault(const char *text, size_t length, int *code, struct text *sentence)
{
    struct cursor c = {text, text + length};
    if (!start(&c, "<methodResponse>") || !take_tag(&c, "<fault>") || !read_code(c, code))
        return false;
    read_sentence(c, sentence);
    return true;
}

const char *document_of_sentence(const char *sentence)
{
    static const char start[] = "<?xml ";
    const char *line = strchr(sentence, '\n');
    return line && strncmp(line + 1, start, sizeof start - 1) == 0 ? line + 1 : sentence;
}
