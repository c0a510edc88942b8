/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A small pushdown automaton over bytes: element.def says which elements there are, places below which child may come
   where. It knows less XML than XML is, on purpose. */
#include "server/wire/element.h"
#include "server/wire/read.h"
#include "server/wire/utf8.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define NOTHING  ELEMENT_COUNT       /* no child may come */
#define ANY_TYPE (ELEMENT_COUNT + 1) /* one of the types */

enum { DOUBLE_MAX = 40 };

/* Where the gate stands in the innermost open element. */
enum place {
    BEFORE_CALL,
    IN_CALL,
    AFTER_METHOD_NAME,
    IN_PARAMS,
    IN_PARAM,
    IN_VALUE,
    IN_STRUCT,
    IN_MEMBER,
    AFTER_NAME,
    IN_ARRAY,
    IN_DATA,
    IN_TEXT,
    COMPLETE
};

struct place_row {
    unsigned child;  /* the element that may open here */
    enum place next; /* where its parent stands then */
    bool whole;      /* the element may close here */
    bool text;       /* text may stand here; elsewhere only blanks */
};

/* clang-format off */
static const struct place_row places[] = {
    [BEFORE_CALL]       = {ELEMENT_METHOD_CALL, COMPLETE,          false, false},
    [IN_CALL]           = {ELEMENT_METHOD_NAME, AFTER_METHOD_NAME, false, false},
    [AFTER_METHOD_NAME] = {ELEMENT_PARAMS,      COMPLETE,          true,  false},
    [IN_PARAMS]         = {ELEMENT_PARAM,       IN_PARAMS,         true,  false},
    [IN_PARAM]          = {ELEMENT_VALUE,       COMPLETE,          false, false},
    [IN_VALUE]          = {ANY_TYPE,            COMPLETE,          true,  true},
    [IN_STRUCT]         = {ELEMENT_MEMBER,      IN_STRUCT,         true,  false},
    [IN_MEMBER]         = {ELEMENT_NAME,        AFTER_NAME,        false, false},
    [AFTER_NAME]        = {ELEMENT_VALUE,       COMPLETE,          false, false},
    [IN_ARRAY]          = {ELEMENT_DATA,        COMPLETE,          false, false},
    [IN_DATA]           = {ELEMENT_VALUE,       IN_DATA,           true,  false},
    [IN_TEXT]           = {NOTHING,             COMPLETE,          true,  true},
    [COMPLETE]          = {NOTHING,             COMPLETE,          true,  false},
};
/* clang-format on */

/* The text of an element: its bytes as sent, and how many they are once references are decoded. */
struct run {
    const unsigned char *start, *end;
    size_t decoded;
};

struct open {
    enum element element;
    enum place place;
    unsigned members;
};

struct gate {
    const unsigned char *start, *at, *end;
    struct run run;                        /* since the last tag */
    struct open open[WIRE_DEPTH_MAX + 1U]; /* [0] is the document */
    unsigned depth, elements;
    struct fault *fault;
};

static int refuse(const struct gate *g, const unsigned char *at, const char *fmt, ...) PRINTF(3, 4);

static int refuse(const struct gate *g, const unsigned char *at, const char *fmt, ...)
{
    char what[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return fault_set(g->fault, FAULT_BadRequest, "%s, at byte %zu", what, (size_t) (at - g->start));
}

/* Checks of an element's text: NULL, or what is wrong with it. */

static const char *check_string(const struct run *r)
{
    return r->decoded > WIRE_STRING_MAX ? "a string is longer than the limit" : NULL;
}

static const char *check_name(const struct run *r)
{
    return r->decoded > WIRE_NAME_MAX ? "the name of a member is longer than the limit" : NULL;
}

static const char *check_method_name(const struct run *r)
{
    if (r->start == r->end || r->decoded > WIRE_NAME_MAX)
        return "methodName is empty or longer than the limit";
    for (const unsigned char *s = r->start; s < r->end; s++)
        if (!isalnum(*s) && !strchr("_.:/", *s))
            return "methodName holds a character that no method's name has";
    return NULL;
}

/* -?[0-9]{1,19} with a magnitude of at most limit, one more when negative. */
static bool is_integer(const struct run *r, uint64_t limit)
{
    const unsigned char *s = r->start;
    bool negative = s < r->end && *s == '-';
    s += negative;
    if (s == r->end || r->end - s > 19)
        return false;
    uint64_t n = 0;
    for (; s < r->end; s++) {
        if (!isdigit(*s))
            return false;
        n = n * 10 + (*s - (uint64_t) '0');
    }
    return n <= limit + negative;
}

static const char *check_int32(const struct run *r)
{
    return is_integer(r, INT32_MAX) ? NULL : "int and i4 hold a decimal number of 32 bits";
}

static const char *check_int64(const struct run *r)
{
    return is_integer(r, INT64_MAX) ? NULL : "i8 holds a decimal number of 64 bits";
}

static const char *check_boolean(const struct run *r)
{
    bool fits = r->end - r->start == 1 && (*r->start == '0' || *r->start == '1');
    return fits ? NULL : "boolean holds 0 or 1";
}

/* Steps over one to most digits. */
static bool take_digits(const unsigned char **s, const unsigned char *end, ptrdiff_t most)
{
    const unsigned char *from = *s;
    while (*s < end && isdigit(**s))
        ++*s;
    return *s > from && *s - from <= most;
}

static void take_sign(const unsigned char **s, const unsigned char *end)
{
    *s += *s < end && (**s == '-' || **s == '+');
}

/* [-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?: whatever this matches is finite. */
static bool is_double(const unsigned char *s, const unsigned char *end)
{
    take_sign(&s, end);
    if (!take_digits(&s, end, DOUBLE_MAX))
        return false;
    if (s < end && *s == '.') {
        s++;
        if (!take_digits(&s, end, DOUBLE_MAX))
            return false;
    }
    if (s < end && (*s == 'e' || *s == 'E')) {
        s++;
        take_sign(&s, end);
        if (!take_digits(&s, end, 2))
            return false;
    }
    return s == end;
}

static const char *check_double(const struct run *r)
{
    bool fits = r->end - r->start <= DOUBLE_MAX && is_double(r->start, r->end);
    return fits ? NULL : "double holds a decimal number of at most 40 characters and an exponent below 100";
}

/* The numbers of YYYYMMDDThh:mm:ss. Years from 1000, as xmlrpc-c writes earlier ones wrongly. */
static const struct {
    unsigned at, digits, least, most;
} date_fields[] = {{0, 4, 1000, 9999}, {4, 2, 1, 12}, {6, 2, 1, 31}, {9, 2, 0, 23}, {12, 2, 0, 59}, {15, 2, 0, 59}};

static bool is_date_field(const unsigned char *s, size_t i)
{
    unsigned n = 0;
    for (unsigned d = 0; d < date_fields[i].digits; d++) {
        if (!isdigit(s[date_fields[i].at + d]))
            return false;
        n = n * 10 + s[date_fields[i].at + d] - '0';
    }
    return n >= date_fields[i].least && n <= date_fields[i].most;
}

static const char *check_datetime(const struct run *r)
{
    const unsigned char *s = r->start;
    bool fits = r->end - s == 17 && s[8] == 'T' && s[11] == ':' && s[14] == ':';
    for (size_t i = 0; fits && i < COUNT_OF(date_fields); i++)
        fits = is_date_field(s, i);
    return fits ? NULL : "dateTime.iso8601 holds YYYYMMDDThh:mm:ss";
}

static bool is_blank(unsigned char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Groups of four, filled up with '=' at the end, blanks anywhere. */
static const char *check_base64(const struct run *r)
{
    size_t letters = 0, fill = 0;
    bool fits = r->decoded <= WIRE_STRING_MAX;
    for (const unsigned char *s = r->start; fits && s < r->end; s++) {
        if (is_blank(*s))
            continue;
        if (*s == '=')
            fits = ++fill <= 2;
        else
            fits = fill == 0 && (isalnum(*s) || *s == '+' || *s == '/');
        letters++;
    }
    return fits && letters % 4 == 0 ? NULL : "base64 holds groups of four letters, within the limit of strings";
}

struct element_row {
    const char *name;
    size_t length;
    enum place place;
    const char *(*check)(const struct run *r);
};

static const struct element_row elements[] = {
#define ELEMENT(id, name, place, check, kind) {name, sizeof name - 1, place, check},
#include "server/wire/element.def"
#undef ELEMENT
};

static struct open *top(struct gate *g)
{
    return &g->open[g->depth];
}

static void skip_blanks(struct gate *g)
{
    const unsigned char *s = g->at;
    while (s < g->end && is_blank(*s))
        s++;
    g->at = s;
}

/* Compares as memcmp would, without the price of a call: these are short, and there are two for every tag. */
static bool same(const unsigned char *s, const char *word, size_t length)
{
    size_t i = 0;
    while (i < length && s[i] == (unsigned char) word[i])
        i++;
    return i == length;
}

/* Steps over word when it is next. */
static bool take(struct gate *g, const char *word)
{
    size_t length = strlen(word);
    if ((size_t) (g->end - g->at) < length || !same(g->at, word, length))
        return false;
    g->at += length;
    return true;
}

static bool take_byte(struct gate *g, char c)
{
    bool is = g->at < g->end && *g->at == (unsigned char) c;
    g->at += is;
    return is;
}

/* = and one of the quotes, both around word; blanks around the sign, as XML has it. */
static bool take_quoted(struct gate *g, const char *word)
{
    skip_blanks(g);
    if (!take(g, "="))
        return false;
    skip_blanks(g);
    size_t length = strlen(word);
    if ((size_t) (g->end - g->at) < length + 2 || (*g->at != '"' && *g->at != '\'') || g->at[length + 1] != *g->at)
        return false;
    if (strncasecmp((const char *) g->at + 1, word, length) != 0)
        return false;
    g->at += length + 2;
    return true;
}

/* The declaration, when there is one: version 1.0, and UTF-8 if it names an encoding. */
static int prolog(struct gate *g)
{
    if (!take(g, "<?"))
        return 0;
    bool fits = take(g, "xml") && g->at < g->end && is_blank(*g->at);
    skip_blanks(g);
    fits = fits && take(g, "version") && take_quoted(g, "1.0");
    const unsigned char *after = g->at;
    skip_blanks(g);
    if (fits && take(g, "encoding"))
        fits = g->at - after > (ptrdiff_t) strlen("encoding") && take_quoted(g, "UTF-8");
    skip_blanks(g);
    if (!fits || !take(g, "?>"))
        return refuse(g, g->at, "the XML declaration may say version 1.0 and encoding UTF-8, nothing else");
    g->run.start = g->run.end = g->at;
    return 0;
}

/* &#…; at the digits; 0 is no character. */
static uint32_t numeric(struct gate *g)
{
    bool hex = take(g, "x");
    uint32_t c = 0;
    const unsigned char *from = g->at;
    for (; g->at < g->end && (hex ? isxdigit(*g->at) : isdigit(*g->at)); g->at++) {
        unsigned digit = isdigit(*g->at) ? *g->at - (unsigned) '0' : (*g->at | 0x20U) - 'a' + 10U;
        if (c <= 0x10ffff)
            c = c * (hex ? 16 : 10) + digit;
    }
    return g->at > from && take(g, ";") ? c : 0;
}

static int reference(struct gate *g)
{
    const unsigned char *from = g->at++;
    if (take(g, "amp;") || take(g, "lt;") || take(g, "gt;") || take(g, "quot;") || take(g, "apos;")) {
        g->run.decoded++;
        return 0;
    }
    uint32_t c = take(g, "#") ? numeric(g) : 0;
    if (!utf8_is_character(c))
        return refuse(g, from, "a reference is neither one of the five of XML nor the number of a character");
    g->run.decoded += utf8_size(c);
    return 0;
}

/* What a byte of text asks for; 0 is plain. */
enum { TEXT_PLAIN, TEXT_END, TEXT_REFERENCE, TEXT_RETURN, TEXT_BRACKET, TEXT_OTHER };

static const unsigned char text_class[256] = {
    [0 ... 8] = TEXT_OTHER, [11] = TEXT_OTHER,        [12] = TEXT_OTHER,
    [13] = TEXT_RETURN,     [14 ... 31] = TEXT_OTHER, [128 ... 255] = TEXT_OTHER,
    ['<'] = TEXT_END,       ['&'] = TEXT_REFERENCE,   [']'] = TEXT_BRACKET,
};

/* One character that is not plain. */
static int special(struct gate *g)
{
    size_t left = (size_t) (g->end - g->at), size = 1;
    switch (text_class[*g->at]) {
    case TEXT_REFERENCE:
        return reference(g);
    case TEXT_RETURN:
        /* XML reads \r\n as \n. */
        g->run.decoded += !(left > 1 && g->at[1] == '\n');
        g->at++;
        return 0;
    case TEXT_BRACKET:
        if (left > 2 && memcmp(g->at, "]]>", 3) == 0)
            return refuse(g, g->at, "]]> may not stand in text");
        break;
    default:
        size = utf8_length(g->at, left);
        if (size == 0)
            return refuse(g, g->at, "a byte is not UTF-8 or no character of XML");
    }
    g->at += size;
    g->run.decoded += size;
    return 0;
}

/* Up to the next tag. */
static int text(struct gate *g)
{
    g->run.start = g->at;
    while (g->at < g->end && *g->at != '<') {
        const unsigned char *s = g->at, *end = g->end;
        while (s < end && text_class[*s] == TEXT_PLAIN)
            s++;
        g->run.decoded += (size_t) (s - g->at);
        g->at = s;
        if (g->at < g->end && *g->at != '<' && special(g) < 0)
            return -1;
    }
    g->run.end = g->at;
    return 0;
}

static int blanks(struct gate *g)
{
    skip_blanks(g);
    if (g->at < g->end && *g->at != '<')
        return refuse(g, g->at, "text where only elements may stand");
    return 0;
}

/* The innermost element ends here, tag and all. */
static int close_element(struct gate *g)
{
    const struct open *o = top(g);
    const struct place_row *here = &places[o->place];
    const struct element_row *row = &elements[o->element];
    if (!here->whole)
        return refuse(g, g->at, "%s ends before its %s", row->name, elements[here->child].name);
    const char *wrong = here->text && row->check ? row->check(&g->run) : NULL;
    if (wrong)
        return refuse(g, g->run.start, "%s", wrong);
    g->depth--;
    g->run = (struct run){g->at, g->at, 0};
    return 0;
}

static bool is_name_byte(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '.';
}

/* Steps over the whole name of an element when it is next. */
static bool take_name(struct gate *g, const struct element_row *row)
{
    size_t left = (size_t) (g->end - g->at);
    if (left < row->length || !same(g->at, row->name, row->length))
        return false;
    if (left > row->length && is_name_byte(g->at[row->length]))
        return false;
    g->at += row->length;
    return true;
}

static int refuse_tag(const struct gate *g, const unsigned char *after_name, bool slash)
{
    if (g->at == g->end)
        return refuse(g, after_name, "the body ends inside a tag");
    if (*after_name == ':')
        return refuse(g, after_name, "namespaces are not accepted");
    if (slash || !is_blank(*after_name))
        return refuse(g, g->at, "a tag has a character it may not");
    return refuse(g, g->at, "attributes are not accepted");
}

/* The rest of a tag after its name: blanks, perhaps '/', '>'. 1 when there was a '/', 0 when not. */
static int tag_rest(struct gate *g, bool opening)
{
    const unsigned char *from = g->at;
    skip_blanks(g);
    bool slash = opening && take_byte(g, '/');
    return take_byte(g, '>') ? slash : refuse_tag(g, from, slash);
}

/* Steps over the name of a child that may open here and returns it, or NOTHING. */
static unsigned take_child(struct gate *g)
{
    unsigned wanted = places[top(g)->place].child;
    if (wanted < ELEMENT_COUNT)
        return take_name(g, &elements[wanted]) ? wanted : NOTHING;
    unsigned e = wanted == ANY_TYPE ? ELEMENT_FIRST_TYPE : ELEMENT_COUNT;
    while (e < ELEMENT_COUNT && !take_name(g, &elements[e]))
        e++;
    return e;
}

/* Does not say the name: behind a '<' that was to be text, it is a piece of somebody's password. */
static int refuse_child(struct gate *g)
{
    const unsigned char *name = g->at;
    while (g->at < g->end && is_name_byte(*g->at))
        g->at++;
    if (g->at < g->end && *g->at == ':')
        return refuse(g, name, "namespaces are not accepted");
    if (g->at == name)
        return refuse(g, name, "a tag has no name");
    g->at = name;
    for (unsigned e = 0; e < ELEMENT_COUNT; e++)
        if (take_name(g, &elements[e]))
            return refuse(g, name, "the element %s may not stand here", elements[e].name);
    return refuse(g, name, "an element is not known");
}

static int push(struct gate *g, enum element e)
{
    struct open *parent = top(g);
    if (++g->elements > WIRE_ELEMENT_MAX)
        return refuse(g, g->at, "more than %u elements", WIRE_ELEMENT_MAX);
    if (g->depth == WIRE_DEPTH_MAX)
        return refuse(g, g->at, "elements are nested deeper than %u", WIRE_DEPTH_MAX);
    if (e == ELEMENT_MEMBER && ++parent->members > WIRE_MEMBER_MAX)
        return refuse(g, g->at, "a struct has more than %u members", WIRE_MEMBER_MAX);
    parent->place = places[parent->place].next;
    g->open[++g->depth] = (struct open){e, elements[e].place, 0};
    return 0;
}

/* Text before the child of a value must be blank. */
static int no_text_before(const struct gate *g)
{
    for (const unsigned char *s = g->run.start; s < g->run.end; s++)
        if (!is_blank(*s))
            return refuse(g, s, "a value holds text beside an element");
    return 0;
}

static int open_tag(struct gate *g)
{
    g->at++;
    unsigned e = take_child(g);
    if (e == NOTHING)
        return refuse_child(g);
    if (no_text_before(g) < 0 || push(g, (enum element) e) < 0)
        return -1;
    int empty = tag_rest(g, true);
    g->run = (struct run){g->at, g->at, 0};
    return empty == 1 ? close_element(g) : empty;
}

static int close_tag(struct gate *g)
{
    if (g->depth == 0)
        return refuse(g, g->at, "a closing tag with nothing open");
    const struct element_row *row = &elements[top(g)->element];
    g->at += 2;
    if (!take_name(g, row))
        return refuse(g, g->at, "the closing tag of %s is due", row->name);
    return tag_rest(g, false) < 0 ? -1 : close_element(g);
}

static int tag(struct gate *g)
{
    switch (g->end - g->at > 1 ? g->at[1] : '\0') {
    case '/':
        return close_tag(g);
    case '!':
        return refuse(g, g->at, "<! (document type, comment, CDATA) is not accepted");
    case '?':
        return refuse(g, g->at, "processing instructions are not accepted");
    default:
        return open_tag(g);
    }
}

static int ending(struct gate *g)
{
    if (g->depth > 0)
        return refuse(g, g->end, "the body ends inside %s", elements[top(g)->element].name);
    if (g->open[0].place != COMPLETE)
        return refuse(g, g->end, "the body holds no methodCall");
    return 0;
}

int wire_gate(const char *body, size_t length, struct fault *f)
{
    const unsigned char *start = (const unsigned char *) body;
    struct gate g = {.start = start, .at = start, .end = start + length, .fault = f};
    g.open[0] = (struct open){ELEMENT_COUNT, BEFORE_CALL, 0};
    if (length > WIRE_BODY_MAX)
        return refuse(&g, start + WIRE_BODY_MAX, "the body is longer than %u bytes", WIRE_BODY_MAX);
    if (prolog(&g) < 0)
        return -1;
    while (g.at < g.end) {
        int (*step)(struct gate *) = *g.at == '<' ? tag : places[top(&g)->place].text ? text : blanks;
        if (step(&g) < 0)
            return -1;
    }
    return ending(&g);
}
