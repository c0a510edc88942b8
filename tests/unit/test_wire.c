/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/wire/write.h"
#include "tests/unit/wire_check.h"
#include <libxml/parser.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

static struct wire_call read_body(struct arena *a, const char *body, size_t length)
{
    struct wire_call call = {0};
    struct fault f = {0};
    if (wire_read_call(a, body, length, &call, &f) < 0)
        fail_msg("refused with '%s'", f.detail);
    return call;
}

static const char *text_of(const struct value *object, const char *name)
{
    const struct value *v = value_get(object, name);
    assert_non_null(v);
    assert_int_equal(v->kind, VALUE_STRING);
    assert_int_equal(strlen(v->text), v->length);
    return v->text;
}

static void a_call_of_xapi_is_read_whole(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    AUTO_TEXT struct text t = corpus_file("vdi_create.xml");
    struct wire_call call = read_body(a, t.data, t.length);
    assert_string_equal(call.method, "vdi_create");
    assert_int_equal(call.count, 1);
    const struct value *p = call.params[0];
    assert_string_equal(text_of(p, "command"), "vdi_create");
    const struct value *args = value_get(p, "args");
    assert_int_equal(args->kind, VALUE_ARRAY);
    assert_int_equal(args->count, 8);
    assert_string_equal(args->items[0]->text, "10737418240");
    assert_string_equal(args->items[1]->text, "data <disk>");
    assert_string_equal(args->items[3]->text, "");
    assert_int_equal(args->items[3]->kind, VALUE_STRING);
    const struct value *config = value_get(p, "device_config");
    assert_string_equal(config->members[0].name, "SRmaster");
    assert_string_equal(text_of(config, "serverpath"), "/exports/xen/production & test");
    assert_string_equal(text_of(value_get(p, "vdi_sm_config"), "type"), "vhd");
    assert_null(value_get(p, "vdi_uuid"));
}

static void every_type_is_read_as_sent(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    AUTO_TEXT struct text t = corpus_file("every_type.xml");
    struct wire_call call = read_body(a, t.data, t.length);
    struct value **p = call.params;
    assert_int_equal(call.count, 12);
    static const enum value_kind kinds[] = {VALUE_INTEGER, VALUE_INTEGER,  VALUE_INTEGER, VALUE_BOOLEAN,
                                            VALUE_DOUBLE,  VALUE_DATETIME, VALUE_BASE64,  VALUE_NIL,
                                            VALUE_STRING,  VALUE_STRING,   VALUE_ARRAY,   VALUE_STRUCT};
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        assert_string_equal(value_kind_name(p[i]->kind), value_kind_name(kinds[i]));
    assert_true(p[0]->integer == INT32_MIN && p[1]->integer == INT32_MAX && p[2]->integer == INT64_MIN);
    assert_true(p[3]->boolean);
    assert_true(p[4]->real == -3.25e-2);
    assert_string_equal(p[5]->text, "20260102T03:04:05");
    assert_string_equal(p[6]->text, "AAECA/7/");
    assert_string_equal(p[8]->text, "a\rb &\xe2\x82\xac'");
    assert_string_equal(p[9]->text, "  ");
    assert_string_equal(p[10]->items[0]->text, "");
    assert_int_equal(p[10]->items[1]->kind, VALUE_STRUCT);
    assert_string_equal(text_of(p[11], ""), "");
}

static void a_call_without_params_has_none(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    AUTO_TEXT struct text t = corpus_file("no_params.xml");
    struct wire_call call = read_body(a, t.data, t.length);
    assert_string_equal(call.method, "system.listMethods");
    assert_int_equal(call.count, 0);
}

static void one_name_may_stand_in_two_structs(void **state)
{
    (void) state;
    static const char body[] =
        ONE("<value><struct><member><name>a</name><value><struct><member><name>a</name><value>in</value></member>"
            "</struct></value></member><member><name>A</name><value>out</value></member></struct></value>");
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    struct wire_call call = read_body(a, body, sizeof body - 1);
    assert_string_equal(text_of(value_get(call.params[0], "a"), "a"), "in");
    assert_string_equal(text_of(call.params[0], "A"), "out");
}

static void line_ends_are_read_as_xml_reads_them(void **state)
{
    (void) state;
    static const char body[] = ONE("<value>a\r\nb\rc&#13;\nd</value>");
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    assert_string_equal(read_body(a, body, sizeof body - 1).params[0]->text, "a\nb\nc\r\nd");
}

static void outputs_stay_untouched_on_refusal(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    struct wire_call call = {.method = "before", .count = 7};
    struct fault f;
    assert_int_equal(wire_read_call(a, "<a/>", 4, &call, &f), -1);
    assert_string_equal(call.method, "before");
    assert_int_equal(call.count, 7);
}

static void *read_often(void *unused)
{
    (void) unused;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    AUTO_TEXT struct text t = corpus_file("vdi_create.xml");
    for (int i = 0; i < 200; i++) {
        struct wire_call call;
        struct fault f;
        size_t length = i % 3 ? t.length : t.length / 2;
        bool good = wire_read_call(a, t.data, length, &call, &f) == 0;
        if (good != (length == t.length) || (good && strcmp(call.method, "vdi_create") != 0))
            return a;
        arena_reset(a);
    }
    return NULL;
}

static void threads_read_at_the_same_time(void **state)
{
    (void) state;
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_often, NULL), 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
}

/* Bytes written, without the declaration and line ends, which carry no meaning. */
static void assert_reply(const struct value *v, const char *wanted)
{
    size_t length, kept = 0;
    AUTO_FREE char *reply = wire_write_result(v, &length);
    assert_int_equal(strlen(reply), length);
    assert_int_equal(strncmp(reply, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>", 38), 0);
    for (char *s = reply + 38; *s; s++)
        if (*s != '\r' && *s != '\n')
            reply[kept++] = *s;
    reply[kept] = '\0';
    AUTO_TEXT struct text whole = TEXT_OF(4096);
    text_printf(&whole, "<methodResponse><params><param>%s</param></params></methodResponse>", wanted);
    assert_string_equal(reply, whole.data);
}

static void nil_is_exactly_what_xapi_wants(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    assert_reply(value_nil(a), "<value><nil/></value>");
}

static void scalars_are_written_typed_and_plain(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    assert_reply(value_string(a, ""), "<value><string></string></value>");
    assert_reply(value_string(a, "a<b> & \"c\""), "<value><string>a&lt;b&gt; &amp; \"c\"</string></value>");
    assert_reply(value_size(a, UINT64_MAX), "<value><string>18446744073709551615</string></value>");
    assert_reply(value_integer(a, INT32_MIN), "<value><i4>-2147483648</i4></value>");
    assert_reply(value_integer(a, INT32_MAX), "<value><i4>2147483647</i4></value>");
    assert_reply(value_boolean(a, true), "<value><boolean>1</boolean></value>");
    assert_reply(value_boolean(a, false), "<value><boolean>0</boolean></value>");
}

static void a_struct_keeps_its_order(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    struct value *object = value_struct(a), *list = value_array(a);
    value_append(a, list, value_string(a, "VDI_CREATE"));
    value_put(a, object, "z & z", list);
    value_put(a, object, "a", value_struct(a));
    assert_reply(object, "<value><struct><member><name>z &amp; z</name><value><array><data>"
                         "<value><string>VDI_CREATE</string></value></data></array></value></member>"
                         "<member><name>a</name><value><struct></struct></value></member></struct></value>");
}

static void carriage_returns_are_written_as_references(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    size_t length;
    AUTO_FREE char *reply = wire_write_result(value_string(a, "a\r\nb\rc"), &length);
    assert_non_null(strstr(reply, "<string>a&#x0d;\nb&#x0d;c</string>"));
}

static void what_xml_cannot_carry_is_written_as_a_question_mark(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    assert_reply(value_string(a, "a\x01\xff\xed\xa0\x80z\xe2\x82\xac\xc3"),
                 "<value><string>a?????z\xe2\x82\xac?</string></value>");
}

static void characters_past_u_ffff_are_written_as_references(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    struct value *object = value_struct(a);
    value_put(a, object, "\xf0\x9f\x92\xbe", value_string(a, "\xf4\x8f\xbf\xbf\xf0\x90\x80\x80"));
    assert_reply(object, "<value><struct><member><name>&#x1f4be;</name><value><string>&#x10ffff;&#x10000;</string>"
                         "</value></member></struct></value>");
    struct fault f;
    fault_set(&f, FAULT_VDIInUse, "\xf0\x9f\x92\xbe");
    size_t length;
    AUTO_FREE char *reply = wire_write_fault(&f, &length);
    assert_non_null(strstr(reply, "[opterr=&#x1f4be;]</string>"));
}

/* A reply read by libxml2: no attributes anywhere, as xapi's parser wants it. */
static void assert_no_attributes(const xmlNode *node)
{
    for (; node; node = node->next) {
        if (node->type == XML_ELEMENT_NODE)
            assert_true(!node->properties && !node->ns && !node->nsDef);
        assert_no_attributes(node->children);
    }
}

static void what_was_read_is_written_without_attributes(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
    AUTO_TEXT struct text t = corpus_file("every_type.xml");
    struct wire_call call = read_body(a, t.data, t.length);
    for (size_t i = 0; i < call.count; i++) {
        if (call.params[i]->kind == VALUE_INTEGER && call.params[i]->integer < INT32_MIN)
            continue;
        size_t length;
        AUTO_FREE char *reply = wire_write_result(call.params[i], &length);
        xmlDocPtr doc = xmlReadMemory(reply, (int) length, NULL, NULL, XML_PARSE_NONET);
        assert_non_null(doc);
        assert_no_attributes(xmlDocGetRootElement(doc));
        xmlFreeDoc(doc);
    }
}

static void an_integer_past_32_bits_aborts(void **state)
{
    (void) state;
    pid_t child = fork();
    if (child == 0) {
        AUTO_ARENA struct arena *a = arena_new(CALL_MEMORY);
        size_t length;
        signal(SIGABRT, SIG_DFL);
        free(wire_write_result(value_integer(a, INT64_C(1) << 31), &length));
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void a_fault_is_written_with_code_and_sentence(void **state)
{
    (void) state;
    struct fault f;
    fault_set(&f, FAULT_VDIInUse, "held by <host> & co");
    size_t length;
    AUTO_FREE char *reply = wire_write_fault(&f, &length);
    assert_int_equal(strlen(reply), length);
    assert_int_equal(strncmp(reply, "<?xml", 5), 0);
    assert_non_null(strstr(reply, "<name>faultCode</name>\r\n<value><i4>24</i4></value>"));
    assert_non_null(strstr(reply, "[opterr=held by &lt;host&gt; &amp; co]</string>"));
}

static void a_document_stands_behind_the_sentence_on_lines_of_its_own(void **state)
{
    (void) state;
    struct fault f;
    fault_set(&f, FAULT_ConfigTargetIQNMissing, "two");
    fault_document(&f, "<?xml version=\"1.0\" ?>\n<a>\n\t<b>x &amp; y</b>\n</a>\n");
    size_t length;
    AUTO_FREE char *reply = wire_write_fault(&f, &length);
    assert_non_null(
        strstr(reply, "[opterr=two]\n&lt;?xml version=\"1.0\" ?&gt;\n&lt;a&gt;\n\t&lt;b&gt;x &amp;amp; y&lt;/b&gt;\n"
                      "&lt;/a&gt;\n</string>"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_of_xapi_is_read_whole),
        cmocka_unit_test(every_type_is_read_as_sent),
        cmocka_unit_test(a_call_without_params_has_none),
        cmocka_unit_test(one_name_may_stand_in_two_structs),
        cmocka_unit_test(line_ends_are_read_as_xml_reads_them),
        cmocka_unit_test(outputs_stay_untouched_on_refusal),
        cmocka_unit_test(threads_read_at_the_same_time),
        cmocka_unit_test(nil_is_exactly_what_xapi_wants),
        cmocka_unit_test(scalars_are_written_typed_and_plain),
        cmocka_unit_test(a_struct_keeps_its_order),
        cmocka_unit_test(carriage_returns_are_written_as_references),
        cmocka_unit_test(what_xml_cannot_carry_is_written_as_a_question_mark),
        cmocka_unit_test(characters_past_u_ffff_are_written_as_references),
        cmocka_unit_test(what_was_read_is_written_without_attributes),
        cmocka_unit_test(an_integer_past_32_bits_aborts),
        cmocka_unit_test(a_fault_is_written_with_code_and_sentence),
        cmocka_unit_test(a_document_stands_behind_the_sentence_on_lines_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
