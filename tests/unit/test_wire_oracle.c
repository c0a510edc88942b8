/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two other readers as judges of ours: libxml2's DOM and xmlrpc-c, over mutants of the corpus from a fixed seed.
   xmlrpc-c is fed only what the gate passed: its parser is not made for hostile bytes. */
#include "tests/unit/wire_check.h"
#include <libxml/parser.h>
#include <xmlrpc-c/base.h>

enum { MUTANTS = 1500, CHANGES_MAX = 3 };

static uint64_t random_state = 20261122;

static size_t below(size_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (size_t) (random_state >> 33) % n;
}

static const char *const words[] = {
    "<value>",
    "</value>",
    "<value/>",
    "<string>",
    "</string>",
    "<string/>",
    "<nil/>",
    "<struct>",
    "</struct>",
    "<struct/>",
    "<array><data>",
    "</data></array>",
    "<array><data/></array>",
    "<data/>",
    "<member>",
    "</member>",
    "<member><name>n</name><value>v</value></member>",
    "<name>",
    "</name>",
    "<name/>",
    "<param>",
    "</param>",
    "<param><value>x</value></param>",
    "<int>7</int>",
    "<i4>-0</i4>",
    "<i8>9000000000</i8>",
    "<int>007</int>",
    "<boolean>0</boolean>",
    "<double>-1.5e3</double>",
    "<double>2</double>",
    "<base64/>",
    "<base64>AAA=</base64>",
    "<base64>AA AA\n</base64>",
    "<dateTime.iso8601>20260101T00:00:00</dateTime.iso8601>",
    " ",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "&amp;",
    "&#13;",
    "&#10;",
    "&#x41;",
    "&lt;",
    "&#38;amp;",
    "&#60;",
    "&bad;",
    "&",
    "<",
    ">",
    "]]>",
    "]]",
    "<!",
    "<?",
    "/",
    "\xc3\xa9",
    "\xe2\x82\xac",
    "\xf0\x9f\x92\xbe",
    "\x7f",
    "\xc2\x85",
    "\xff",
    "=\"\"",
    ":",
    "a",
};

/* The bytes with a stretch removed, doubled, or replaced by a word. */
static void mutate(struct text *t)
{
    size_t from = below(t->length), stretch = below(4) ? below(20) : 0;
    if (stretch > t->length - from)
        stretch = t->length - from;
    AUTO_TEXT struct text made = TEXT_OF(WIRE_BODY_MAX);
    text_add_bytes(&made, t->data, from);
    switch (below(5)) {
    case 0:
        break;
    case 1:
        text_add_bytes(&made, t->data + from, stretch);
        text_add_bytes(&made, t->data + from, stretch);
        break;
    case 2:
        text_add(&made, words[below(COUNT_OF(words))]);
        break;
    default:
        /* A word where an element ends: the mutants that stay close to the grammar. */
        text_add_bytes(&made, t->data + from, stretch = strcspn(t->data + from, ">") + 1U);
        if (stretch > t->length - from)
            return;
        text_add(&made, words[below(COUNT_OF(words))]);
    }
    text_add_bytes(&made, t->data + from + stretch, t->length - from - stretch);
    struct text old = *t;
    *t = made;
    made = old;
}

static void assert_same(const struct value *ours, xmlrpc_value *theirs, const char *body);

static void assert_same_integer(const struct value *ours, xmlrpc_value *theirs, xmlrpc_env *env)
{
    if (xmlrpc_value_type(theirs) == XMLRPC_TYPE_I8) {
        xmlrpc_int64 wide;
        xmlrpc_read_i8(env, theirs, &wide);
        assert_true(ours->integer == wide);
    } else {
        int n;
        xmlrpc_read_int(env, theirs, &n);
        assert_int_equal(ours->integer, n);
    }
}

/* xmlrpc-c reads \r\n and \r as \n even where a reference says \r; that difference is meant. */
static size_t without_returns(const struct value *v, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < v->length; i++)
        if (v->text[i] != '\r' || i + 1 == v->length || v->text[i + 1] != '\n')
            out[n++] = v->text[i] == '\r' ? '\n' : v->text[i];
    return n;
}

static void assert_same_string(const struct value *ours, xmlrpc_value *theirs, xmlrpc_env *env)
{
    const char *text;
    size_t length;
    xmlrpc_read_string_lp(env, theirs, &length, &text);
    assert_false(env->fault_occurred);
    AUTO_FREE char *plain = malloc(ours->length + 1);
    assert_non_null(plain);
    assert_int_equal(without_returns(ours, plain), length);
    assert_memory_equal(plain, text, length);
    free((void *) (uintptr_t) text);
}

static void assert_same_bytes(const struct value *ours, xmlrpc_value *theirs, xmlrpc_env *env)
{
    size_t length;
    const unsigned char *bytes;
    xmlrpc_read_base64(env, theirs, &length, &bytes);
    xmlrpc_mem_block *decoded = xmlrpc_base64_decode(env, ours->text, ours->length);
    assert_false(env->fault_occurred);
    assert_int_equal(XMLRPC_MEMBLOCK_SIZE(char, decoded), length);
    assert_memory_equal(XMLRPC_MEMBLOCK_CONTENTS(char, decoded), bytes, length);
    XMLRPC_MEMBLOCK_FREE(char, decoded);
    free((void *) (uintptr_t) bytes);
}

static void assert_same_items(const struct value *ours, xmlrpc_value *theirs, xmlrpc_env *env, const char *body)
{
    assert_int_equal(ours->count, xmlrpc_array_size(env, theirs));
    for (size_t i = 0; i < ours->count; i++) {
        xmlrpc_value *item;
        xmlrpc_array_read_item(env, theirs, (unsigned) i, &item);
        assert_same(ours->items[i], item, body);
        xmlrpc_DECREF(item);
    }
}

static void assert_same_members(const struct value *ours, xmlrpc_value *theirs, xmlrpc_env *env, const char *body)
{
    assert_int_equal(ours->count, xmlrpc_struct_size(env, theirs));
    for (size_t i = 0; i < ours->count; i++) {
        xmlrpc_value *name, *item;
        xmlrpc_struct_read_member(env, theirs, (unsigned) i, &name, &item);
        struct value expected = {.text = ours->members[i].name, .length = strlen(ours->members[i].name)};
        assert_same_string(&expected, name, env);
        assert_same(ours->members[i].value, item, body);
        xmlrpc_DECREF(name);
        xmlrpc_DECREF(item);
    }
}

static const xmlrpc_type types[] = {
    [VALUE_NIL] = XMLRPC_TYPE_NIL,       [VALUE_BOOLEAN] = XMLRPC_TYPE_BOOL,  [VALUE_INTEGER] = XMLRPC_TYPE_INT,
    [VALUE_DOUBLE] = XMLRPC_TYPE_DOUBLE, [VALUE_STRING] = XMLRPC_TYPE_STRING, [VALUE_DATETIME] = XMLRPC_TYPE_DATETIME,
    [VALUE_BASE64] = XMLRPC_TYPE_BASE64, [VALUE_ARRAY] = XMLRPC_TYPE_ARRAY,   [VALUE_STRUCT] = XMLRPC_TYPE_STRUCT,
};

static void assert_same(const struct value *ours, xmlrpc_value *theirs, const char *body)
{
    xmlrpc_env env;
    xmlrpc_env_init(&env);
    xmlrpc_type type = xmlrpc_value_type(theirs);
    xmlrpc_bool truth;
    double real;
    if (type != types[ours->kind] && !(type == XMLRPC_TYPE_I8 && ours->kind == VALUE_INTEGER))
        fail_msg("kind %s against type %d in %s", value_kind_name(ours->kind), type, body);
    switch (ours->kind) {
    case VALUE_BOOLEAN:
        xmlrpc_read_bool(&env, theirs, &truth);
        assert_int_equal(ours->boolean, truth != 0);
        break;
    case VALUE_DOUBLE:
        xmlrpc_read_double(&env, theirs, &real);
        assert_true(ours->real - real < 1e-9 && real - ours->real < 1e-9);
        break;
    case VALUE_INTEGER:
        assert_same_integer(ours, theirs, &env);
        break;
    case VALUE_STRING:
        assert_same_string(ours, theirs, &env);
        break;
    case VALUE_BASE64:
        assert_same_bytes(ours, theirs, &env);
        break;
    case VALUE_ARRAY:
        assert_same_items(ours, theirs, &env, body);
        break;
    case VALUE_STRUCT:
        assert_same_members(ours, theirs, &env, body);
        break;
    case VALUE_NIL:
    case VALUE_DATETIME:
        break;
    }
    assert_false(env.fault_occurred);
    xmlrpc_env_clean(&env);
}

static void assert_xmlrpc_c_agrees(const struct wire_call *call, const struct text *t)
{
    xmlrpc_env env;
    xmlrpc_env_init(&env);
    const char *method;
    xmlrpc_value *params;
    xmlrpc_parse_call(&env, t->data, t->length, &method, &params);
    if (env.fault_occurred && strstr(env.fault_string, "Basic Multilingual Plane")) {
        /* It cannot hold them; we can. */
        xmlrpc_env_clean(&env);
        return;
    }
    if (env.fault_occurred)
        fail_msg("xmlrpc-c refuses (%s) %s", env.fault_string, t->data);
    assert_string_equal(method, call->method);
    struct value ours = {.kind = VALUE_ARRAY, .items = call->params, .count = call->count};
    assert_same(&ours, params, t->data);
    free((void *) (uintptr_t) method);
    xmlrpc_DECREF(params);
    xmlrpc_env_clean(&env);
}

static void assert_libxml2_accepts(const struct text *t)
{
    xmlDocPtr doc = xmlReadMemory(t->data, (int) t->length, NULL, NULL, XML_PARSE_NONET);
    if (!doc)
        fail_msg("libxml2 refuses %s", t->data);
    xmlFreeDoc(doc);
}

/* Whether ours accepts it; then the judges must agree. */
static bool judge(const struct text *t)
{
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    struct wire_call call;
    struct fault f;
    if (wire_gate(t->data, t->length, &f) < 0)
        return false;
    assert_libxml2_accepts(t);
    if (wire_read_call(a, t->data, t->length, &call, &f) < 0) {
        assert_non_null(strstr(f.detail, "two members of one name"));
        return false;
    }
    assert_xmlrpc_c_agrees(&call, t);
    return true;
}

static void whatever_is_accepted_reads_the_same_elsewhere(void **state)
{
    (void) state;
    static const char *const files[] = {"vdi_create.xml", "vdi_attach.xml", "driver_info.xml",
                                        "every_type.xml", "no_params.xml",  "attach.python.xml"};
    size_t accepted = 0, refused = 0;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        AUTO_TEXT struct text original = corpus_file(files[i]);
        assert_true(judge(&original));
        for (int n = 0; n < MUTANTS; n++) {
            AUTO_TEXT struct text t = TEXT_OF(WIRE_BODY_MAX);
            text_add_bytes(&t, original.data, original.length);
            for (size_t changes = 1 + below(CHANGES_MAX); changes > 0; changes--)
                mutate(&t);
            judge(&t) ? accepted++ : refused++;
        }
    }
    /* Mutants that are all accepted, or all refused, would prove nothing. */
    if (accepted < 500 || refused < 500)
        fail_msg("%zu mutants accepted, %zu refused", accepted, refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(whatever_is_accepted_reads_the_same_elsewhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
