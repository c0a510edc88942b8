/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libxml2's events to values. The gate has been over every byte before, so the grammar is not checked again here;
   what libxml2 itself still refuses becomes a fault. */
#include "server/wire/read.h"
#include "server/wire/element.h"

#include <libxml/parser.h>
#include <pthread.h>
#include <string.h>
#include <sys/auxv.h>

/* A parser context and the elements' names as its dictionary holds them, so that names compare by address. One a
   thread, kept from call to call: the gate lets only those names into the dictionary. */
struct parser {
    xmlParserCtxtPtr context;
    const xmlChar *names[ELEMENT_COUNT];
};

/* The members seen so far in all structs of the call, by struct and name: open addressing, at most half full. */
struct seen {
    struct slot {
        const struct value *object;
        const char *name;
        uint64_t hash;
    } * slots;
    size_t mask;
    uint64_t seed; /* from the kernel, of this process: no body can be made for which many names meet in one place */
};

struct frame {
    struct value *value;
    const char *name; /* of the member being read, when value is a struct */
};

struct reading {
    const struct parser *parser;
    struct arena *arena;
    struct fault *fault;
    bool refused;
    /* Decoded text is never longer than what was sent, and a tag of 4 bytes or more follows each text, so one block of
       the body's length holds all of it with NULs. mark: start of the text being read; end: behind it. */
    char *mark, *end, *limit;
    struct frame open[WIRE_DEPTH_MAX];
    size_t depth;
    struct seen seen;
    const char *method;
    struct value *params;
};

struct kind_row {
    const char *name;
    enum value_kind kind;
};

static const struct kind_row elements[] = {
#define ELEMENT(id, name, place, check, kind) {name, kind},
#include "server/wire/element.def"
#undef ELEMENT
};

/* Cannot happen unless the gate has a hole; then it must not become an overrun. */
static const char past_the_gate[] = "something the gate ought to have refused";

static void stop(struct reading *r, const char *what)
{
    if (r->refused)
        return;
    r->refused = true;
    fault_set(r->fault, FAULT_BadRequest, "%s, at byte %ld", what, xmlByteConsumed(r->parser->context));
    xmlStopParser(r->parser->context);
}

/* A member takes 32 bytes of the body or more (its two tags, <name/> and <value/>). */
static struct seen seen_new(struct arena *a, size_t length)
{
    size_t room = 8;
    while (room < length / 32 * 2)
        room *= 2;
    struct seen s = {.slots = ARENA_ARRAY(a, struct slot, room), .mask = room - 1};
    memcpy(&s.seed, (const void *) getauxval(AT_RANDOM), sizeof s.seed);
    return s;
}

static uint64_t hash(uint64_t seed, const char *name, size_t length)
{
    uint64_t h = seed;
    for (size_t i = 0; i < length; i++) {
        h = (h ^ (unsigned char) name[i]) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}

/* False when the struct already has a member of this name. */
static bool seen_add(struct seen *s, const struct value *object, const char *name, size_t length)
{
    uint64_t h = hash(s->seed ^ (uintptr_t) object, name, length);
    size_t i = h & s->mask;
    for (; s->slots[i].name; i = (i + 1) & s->mask)
        if (s->slots[i].hash == h && s->slots[i].object == object && strcmp(s->slots[i].name, name) == 0)
            return false;
    s->slots[i] = (struct slot){object, name, h};
    return true;
}

static struct frame *top(struct reading *r)
{
    return &r->open[r->depth - 1];
}

/* Ends the text being read: it stays, and the next one starts behind it. */
static const char *take_text(struct reading *r, size_t *length)
{
    const char *text = r->mark;
    *length = (size_t) (r->end - r->mark);
    *r->end = '\0';
    r->mark = ++r->end;
    return text;
}

static void take_name(struct reading *r)
{
    size_t length;
    struct frame *f = top(r);
    f->name = take_text(r, &length);
    if (!seen_add(&r->seen, f->value, f->name, length))
        stop(r, "a struct has two members of one name");
}

/* The checked text of a scalar. strtod: smapid never sets a locale. */
static void take_scalar(struct reading *r)
{
    struct value *v = top(r)->value;
    size_t length;
    const char *text = take_text(r, &length);
    if (v->kind == VALUE_INTEGER) {
        v->integer = strtoll(text, NULL, 10);
    } else if (v->kind == VALUE_BOOLEAN) {
        v->boolean = text[0] == '1';
    } else if (v->kind == VALUE_DOUBLE) {
        v->real = strtod(text, NULL);
    } else {
        v->text = text;
        v->length = length;
    }
}

static void open_value(struct reading *r)
{
    struct value *v = ARENA_NEW(r->arena, struct value);
    v->kind = VALUE_STRING;
    if (r->depth == COUNT_OF(r->open)) {
        stop(r, past_the_gate);
        return;
    }
    r->open[r->depth++] = (struct frame){v, NULL};
}

/* Hands the innermost value to what holds it. */
static void close_value(struct reading *r)
{
    struct value *v = top(r)->value;
    if (v->kind == VALUE_STRING && !v->text)
        take_scalar(r);
    r->depth--;
    struct frame *parent = r->depth > 0 ? top(r) : NULL;
    if (parent && parent->value->kind == VALUE_STRUCT)
        value_put(r->arena, parent->value, parent->name, v);
    else
        value_append(r->arena, parent ? parent->value : r->params, v);
}

static unsigned element_of(const struct reading *r, const xmlChar *name)
{
    unsigned e = 0;
    while (e < ELEMENT_COUNT && r->parser->names[e] != name)
        e++;
    return e;
}

static void on_start(void *user, const xmlChar *name, const xmlChar **attributes)
{
    struct reading *r = user;
    unsigned e = element_of(r, name);
    if (r->refused)
        return;
    if (e == ELEMENT_COUNT || attributes) {
        stop(r, past_the_gate);
        return;
    }
    r->end = r->mark;
    if (e == ELEMENT_VALUE)
        open_value(r);
    else if (e >= ELEMENT_FIRST_TYPE)
        top(r)->value->kind = elements[e].kind;
}

static void on_end(void *user, const xmlChar *name)
{
    struct reading *r = user;
    size_t length;
    if (r->refused)
        return;
    switch (element_of(r, name)) {
    case ELEMENT_VALUE:
        close_value(r);
        break;
    case ELEMENT_NAME:
        take_name(r);
        break;
    case ELEMENT_METHOD_NAME:
        r->method = take_text(r, &length);
        break;
    case ELEMENT_STRING:
    case ELEMENT_INT:
    case ELEMENT_I4:
    case ELEMENT_I8:
    case ELEMENT_BOOLEAN:
    case ELEMENT_DOUBLE:
    case ELEMENT_DATETIME:
    case ELEMENT_BASE64:
        take_scalar(r);
        break;
    default:
        break;
    }
}

static void on_text(void *user, const xmlChar *text, int length)
{
    struct reading *r = user;
    if (r->refused)
        return;
    if (r->limit - r->end <= length) {
        stop(r, past_the_gate);
        return;
    }
    memcpy(r->end, text, (size_t) length);
    r->end += length;
}

static void on_document_type(void *user, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
    (void) name, (void) external, (void) system;
    stop(user, "a document type is not accepted");
}

static const xmlSAXHandler handler = {
    .initialized = 1,
    .startElement = on_start,
    .endElement = on_end,
    .characters = on_text,
    .ignorableWhitespace = on_text,
    .cdataBlock = on_text,
    .internalSubset = on_document_type,
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static void parser_free(void *thread_parser)
{
    struct parser *p = thread_parser;
    xmlFreeParserCtxt(p->context);
    free(p);
}

static void prepare(void)
{
    xmlInitParser();
    if (pthread_key_create(&key, parser_free) != 0)
        abort();
}

static struct parser *parser_new(void)
{
    struct parser *p = calloc(1, sizeof *p);
    if (!p || !(p->context = xmlCreatePushParserCtxt(NULL, NULL, NULL, 0, NULL)))
        abort();
    xmlCtxtUseOptions(p->context, XML_PARSE_NONET | XML_PARSE_SAX1);
    *p->context->sax = handler;
    for (unsigned e = 0; e < ELEMENT_COUNT; e++)
        if (!(p->names[e] = xmlDictLookup(p->context->dict, (const xmlChar *) elements[e].name, -1)))
            abort();
    return p;
}

/* This thread's parser. */
static struct parser *parser_here(void)
{
    pthread_once(&once, prepare);
    struct parser *p = pthread_getspecific(key);
    if (p)
        return p;
    p = parser_new();
    if (pthread_setspecific(key, p) != 0)
        abort();
    return p;
}

static void parse(struct reading *r, const char *body, size_t length)
{
    xmlParserCtxtPtr context = r->parser->context;
    context->userData = r;
    if (xmlCtxtResetPush(context, NULL, 0, NULL, NULL) != 0)
        abort();
    xmlParseChunk(context, body, (int) length, 1);
    if (!context->wellFormed)
        stop(r, "not well-formed XML");
    /* Lets go of the input: it may hold secrets. */
    xmlCtxtReset(context);
}

int wire_read_call(struct arena *arena, const char *body, size_t length, struct wire_call *out, struct fault *f)
{
    if (wire_gate(body, length, f) < 0)
        return -1;
    char *area = arena_alloc(arena, length);
    struct reading r = {
        .parser = parser_here(),
        .arena = arena,
        .fault = f,
        .mark = area,
        .end = area,
        .limit = area + length,
        .seen = seen_new(arena, length),
        .params = value_array(arena),
    };
    parse(&r, body, length);
    if (r.refused)
        return -1;
    *out = (struct wire_call){r.method, r.params->items, r.params->count};
    return 0;
}
