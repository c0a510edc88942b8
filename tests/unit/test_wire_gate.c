/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/wire_check.h"
#include <pthread.h>
#include <time.h>

#ifdef SMAPI_SANITIZED
#define SLOWED 10
#else
#define SLOWED 1
#endif

enum { BUILD_MAX = 1 << 20, ATTACK_NS = 5 * 1000 * 1000 * SLOWED, TRIES = 3 /* on a machine that may be busy */ };

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Reads in a bounded arena; a refusal is 143 and says where. */
static int read_bytes(const char *body, size_t length, struct fault *f)
{
    AUTO_ARENA struct arena *arena = arena_new(CALL_MEMORY);
    struct wire_call call;
    if (wire_read_call(arena, body, length, &call, f) == 0)
        return 0;
    assert_int_equal(f->code, FAULT_BadRequest);
    assert_non_null(strstr(f->detail, "at byte "));
    return -1;
}

static void assert_refused(const char *body, size_t length, const char *because)
{
    struct fault f = {0};
    if (read_bytes(body, length, &f) == 0)
        fail_msg("accepted, though %s: %.200s", because, body);
    if (!strstr(f.detail, because))
        fail_msg("refused with '%s' instead of '%s': %.200s", f.detail, because, body);
}

static void assert_accepted(const char *body, size_t length)
{
    struct fault f = {0};
    if (read_bytes(body, length, &f) < 0)
        fail_msg("refused with '%s': %.200s", f.detail, body);
}

struct attack {
    const char *name, *because;
    void (*build)(struct text *t);
};

static void entity_bomb(struct text *t)
{
    text_add(t, "<?xml version=\"1.0\"?><!DOCTYPE m [<!ENTITY a \"aaaaaaaaaa\">");
    for (char c = 'b'; c < 'i'; c++) {
        text_printf(t, "<!ENTITY %c \"", c);
        for (int i = 0; i < 10; i++)
            text_printf(t, "&%c;", c - 1);
        text_add(t, "\">");
    }
    text_add(t, "]>" ONE("<value>&h;</value>"));
}

static void quadratic(struct text *t)
{
    text_add(t, "<!DOCTYPE m [<!ENTITY a \"");
    add_times(t, 32000, "a");
    text_add(t, "\">]>" CALL_HEAD "<param><value>");
    add_times(t, 10000, "&a;");
    text_add(t, "</value></param>" CALL_TAIL);
}

static void entity_without_a_type(struct text *t)
{
    text_add(t, ONE("<value>&h;</value>"));
}

static void outside_file(struct text *t)
{
    text_add(t, "<!DOCTYPE m [<!ENTITY a SYSTEM \"file:///etc/passwd\">]>" ONE("<value>&a;</value>"));
}

static void outside_address(struct text *t)
{
    text_add(t, "<!DOCTYPE m SYSTEM \"http://192.0.2.1/m.dtd\">" ONE("<value/>"));
}

static void parameter_entity(struct text *t)
{
    text_add(t, "<!DOCTYPE m [<!ENTITY % a SYSTEM \"ftp://192.0.2.1/x\"> %a;]>" ONE("<value/>"));
}

static void nested(struct text *t, size_t depth)
{
    text_add(t, CALL_HEAD "<param>");
    add_times(t, depth, "<value><array><data>");
    add_times(t, depth, "</data></array></value>");
    text_add(t, "</param>" CALL_TAIL);
}

static void deep_12000(struct text *t)
{
    nested(t, 12000);
}

static void deep_within_the_body_limit(struct text *t)
{
    nested(t, 2900);
}

static void deep_without_closing(struct text *t)
{
    text_add(t, CALL_HEAD "<param>");
    add_times(t, 6000, "<value><array><data>");
}

static void attributes(struct text *t, size_t count)
{
    text_add(t, "<methodCall");
    for (size_t i = 0; i < count; i++)
        text_printf(t, " a%zu=\"\"", i);
    text_add(t, "><methodName>m</methodName></methodCall>");
}

static void attributes_40000(struct text *t)
{
    attributes(t, 40000);
}

static void attributes_within_the_body_limit(struct text *t)
{
    attributes(t, 10000);
}

static void duplicate_key(struct text *t)
{
    text_add(t, ONE("<value><struct><member><name>sr_uuid</name><value>a</value></member>"
                    "<member><name>vdi_uuid</name><value>a</value></member>"
                    "<member><name>sr_&#117;uid</name><value>b</value></member></struct></value>"));
}

static void many_members_one_twice(struct text *t)
{
    text_add(t, CALL_HEAD "<param><value><struct>");
    for (unsigned i = 0; i < WIRE_MEMBER_MAX; i++)
        text_printf(t, "<member><name>key%u</name><value/></member>", i == WIRE_MEMBER_MAX - 1 ? 0 : i);
    text_add(t, "</struct></value></param>" CALL_TAIL);
}

static void overflow(struct text *t)
{
    text_add(t, ONE("<value><i4>2147483648</i4></value>"));
}

/* clang-format off */
static const struct attack attacks[] = {
    {"entity bomb", "<! ", entity_bomb},
    {"quadratic blow-up", "<! ", quadratic},
    {"an entity of one's own", "a reference is neither", entity_without_a_type},
    {"external entity, file", "<! ", outside_file},
    {"external document type", "<! ", outside_address},
    {"parameter entity", "<! ", parameter_entity},
    {"12,000 deep", "the body is longer", deep_12000},
    {"deep in 128 KiB", "nested deeper", deep_within_the_body_limit},
    {"deep, never closed", "nested deeper", deep_without_closing},
    {"40,000 attributes", "the body is longer", attributes_40000},
    {"attributes in 128 KiB", "attributes are not accepted", attributes_within_the_body_limit},
    {"duplicate key", "two members of one name", duplicate_key},
    {"a duplicate among many", "two members of one name", many_members_one_twice},
    {"i4 overflow", "32 bits", overflow},
};
/* clang-format on */

/* Of this thread, until a body is refused for that reason, or accepted; of several tries the first that is fast enough,
   or the last. */
static int64_t spent_on(const struct text *body, const char *because)
{
    int64_t spent = INT64_MAX;
    for (int tries = 0; tries < TRIES && spent > ATTACK_NS; tries++) {
        int64_t from = cpu_ns();
        if (because)
            assert_refused(body->data, body->length, because);
        else
            assert_accepted(body->data, body->length);
        spent = cpu_ns() - from;
    }
    return spent;
}

static void every_attack_is_refused_within_5_ms_and_1_mib(void **state)
{
    (void) state;
    assert_accepted(ONE("<value/>"), strlen(ONE("<value/>")));
    for (size_t i = 0; i < COUNT_OF(attacks); i++) {
        AUTO_TEXT struct text t = TEXT_OF(BUILD_MAX);
        attacks[i].build(&t);
        assert_false(t.full);
        int64_t spent = spent_on(&t, attacks[i].because);
        if (spent > ATTACK_NS)
            fail_msg("%s took %ld ns", attacks[i].name, (long) spent);
    }
}

static void only_utf_8_is_read(void **state)
{
    (void) state;
    static const char body[] = ONE("<value>a</value>");
    char wide[2 * sizeof body + 2] = "\xff\xfe";
    for (size_t i = 0; i < sizeof body; i++)
        wide[2 * i + 2] = body[i];
    size_t bytes = 2 * (sizeof body - 1);
    assert_refused(wide, 2 + bytes, "text where only elements may stand, at byte 0"); /* with a byte order mark */
    assert_refused(wide + 2, bytes, "a tag has no name, at byte 1");                  /* little-endian */
    assert_refused(wide + 1, bytes, "text where only elements may stand, at byte 0"); /* the other way round */
    static const char *const prologs[] = {"<?xml version=\"1.0\" encoding=\"UTF-16\"?>",
                                          "<?xml version=\"1.0\" encoding=\"UTF-7\"?>",
                                          "<?xml version=\"1.0\" encoding='ISO-8859-1'?>",
                                          "<?xml version=\"1.1\"?>",
                                          "<?xml version=\"1.0\" ?",
                                          "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>",
                                          "<?xml version=\"1.0'?>",
                                          "<?xml version=\"1.0\"encoding=\"UTF-8\"?>",
                                          "<?xml?>",
                                          "<?xml-stylesheet version=\"1.0\"?>"};
    for (size_t i = 0; i < COUNT_OF(prologs); i++) {
        AUTO_TEXT struct text t = TEXT_OF(1024);
        text_add(&t, prologs[i]);
        text_add(&t, body);
        assert_refused(t.data, t.length, "the XML declaration may say");
    }
}

static void a_declaration_of_utf_8_is_accepted_in_both_quotes(void **state)
{
    (void) state;
    static const char *const prologs[] = {"<?xml version=\"1.0\"?>\n", "<?xml version='1.0' encoding='utf-8' ?>\r\n",
                                          "<?xml\tversion = \"1.0\"\nencoding= \"Utf-8\"?>", " \n", ""};
    for (size_t i = 0; i < COUNT_OF(prologs); i++) {
        AUTO_TEXT struct text t = TEXT_OF(1024);
        text_add(&t, prologs[i]);
        text_add(&t, ONE("<value>a</value>") " \r\n");
        assert_accepted(t.data, t.length);
    }
}

static void only_characters_of_xml_are_read(void **state)
{
    (void) state;
    static const struct {
        const char *bytes;
        size_t length;
    } bad[] = {
        {"\0", 1},
        {"\x01", 1},
        {"\x1f", 1},
        {"\x80", 1},
        {"\xbf", 1},
        {"\xc0\x80", 2},
        {"\xc1\xbf", 2},
        {"\xc2", 1},
        {"\xc2\x41", 2},
        {"\xe0\x9f\xbf", 3},
        {"\xed\xa0\x80", 3},
        {"\xed\xbf\xbf", 3},
        {"\xef\xbf\xbe", 3},
        {"\xef\xbf\xbf", 3},
        {"\xe2\x82", 2},
        {"\xf0\x8f\xbf\xbf", 4},
        {"\xf4\x90\x80\x80", 4},
        {"\xf5\x80\x80\x80", 4},
        {"\xff", 1},
        {"\xfe", 1},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        AUTO_TEXT struct text t = TEXT_OF(1024);
        text_add(&t, CALL_HEAD "<param><value>");
        text_add_bytes(&t, bad[i].bytes, bad[i].length);
        text_add(&t, "</value></param>" CALL_TAIL);
        assert_refused(t.data, t.length, "a byte is not UTF-8");
    }
    assert_refused("\xef\xbb\xbf" ONE("<value/>"), sizeof "\xef\xbb\xbf" ONE("<value/>") - 1,
                   "text where only elements");
    static const char good[] = ONE("<value>"
                                   "\t\n\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd\xf0\x90"
                                   "\x80\x80\xf4\x8f\xbf\xbf</value>");
    assert_accepted(good, sizeof good - 1);
}

#define MEMBER(inside) ONE("<value><struct><member>" inside "</member></struct></value>")
#define DATE(inside)   TYPED("<dateTime.iso8601>" inside "</dateTime.iso8601>")
#define TYPED(inside)  ONE("<value>" inside "</value>")

static const struct {
    const char *body, *because;
} refusals[] = {
    {"", "holds no methodCall"},
    {" \n", "holds no methodCall"},
    {"x", "text where only elements"},
    {"<", "a tag has no name"},
    {"<methodCall", "ends inside a tag"},
    {"<methodCall>", "ends inside methodCall"},
    {"<methodCall></methodCall>", "methodCall ends before its methodName"},
    {"<methodCall/>", "methodCall ends before its methodName"},
    {"<methodResponse/>", "an element is not known"},
    {"<methodCall><params/></methodCall>", "the element params may not stand here"},
    {"<methodCall><methodName/></methodCall>", "methodName is empty"},
    {"<methodCall><methodName>a b</methodName></methodCall>", "holds a character that no method"},
    {"<methodCall><methodName>&#97;</methodName></methodCall>", "holds a character that no method"},
    {"</methodCall>", "nothing open"},
    {CALL("") "x", "text where only elements"},
    {CALL("") CALL(""), "may not stand here"},
    {CALL("") "<?a?>", "processing instructions"},
    {CALL("") "<!-- a -->", "<! "},
    {CALL("<param/>"), "param ends before its value"},
    {CALL("<value/>"), "the element value may not stand here"},
    {CALL("<param><value/><value/></param>"), "may not stand here"},
    {CALL("</params><params>"), "may not stand here"},
    {CALL("<param>x<value/></param>"), "text where only elements"},
    {TYPED("<![CDATA[x]]>"), "<! "},
    {TYPED("]]>"), "]]> may not stand"},
    {TYPED("<string>a</string><string>b</string>"), "may not stand here"},
    {TYPED("a<string>b</string>"), "text beside an element"},
    {TYPED("&#32;<string>b</string>"), "text beside an element"},
    {TYPED("<string>b</string>a"), "text where only elements"},
    {TYPED("<string>b<nil/></string>"), "may not stand here"},
    {TYPED("<nil>x</nil>"), "text where only elements"},
    {TYPED("<string a=\"1\">b</string>"), "attributes"},
    {TYPED("<string xmlns=\"x\"/>"), "attributes"},
    {TYPED("<ex:nil/>"), "namespaces"},
    {TYPED("<nil:x/>"), "namespaces"},
    {TYPED("<nil/ >"), "a tag has a character"},
    {TYPED("<string></string a>"), "attributes"},
    {TYPED("<string></string/>"), "a tag has a character"},
    {TYPED("<string></nil>"), "the closing tag of string is due"},
    {TYPED("<string></strings>"), "the closing tag of string is due"},
    {TYPED("<strings/>"), "an element is not known"},
    {TYPED("< string/>"), "a tag has no name"},
    {TYPED("<value/>"), "may not stand here"},
    {TYPED("<array/>"), "array ends before its data"},
    {TYPED("<array><value/></array>"), "may not stand here"},
    {TYPED("<array><data/><data/></array>"), "may not stand here"},
    {TYPED("<struct><value/></struct>"), "may not stand here"},
    {MEMBER(""), "member ends before its name"},
    {MEMBER("<name>a</name>"), "member ends before its value"},
    {MEMBER("<value/><name>a</name>"), "may not stand here"},
    {MEMBER("<name>a</name><value/><value/>"), "may not stand here"},
    {TYPED("&"), "a reference"},
    {TYPED("&amp"), "a reference"},
    {TYPED("&nbsp;"), "a reference"},
    {TYPED("&#;"), "a reference"},
    {TYPED("&#x;"), "a reference"},
    {TYPED("&#0;"), "a reference"},
    {TYPED("&#x1f;"), "a reference"},
    {TYPED("&#xD800;"), "a reference"},
    {TYPED("&#xFFFE;"), "a reference"},
    {TYPED("&#x110000;"), "a reference"},
    {TYPED("&#99999999999999999999;"), "a reference"},
    {TYPED("&#4294967361;"), "a reference"}, /* 65 in 32 bits */
    {TYPED("&#x100000041;"), "a reference"},
    {TYPED("&#65 ;"), "a reference"},
    {TYPED("&#X41;"), "a reference"},
    {TYPED("<int/>"), "32 bits"},
    {TYPED("<int>-</int>"), "32 bits"},
    {TYPED("<int>+1</int>"), "32 bits"},
    {TYPED("<int> 1</int>"), "32 bits"},
    {TYPED("<int>1.0</int>"), "32 bits"},
    {TYPED("<int>0x1</int>"), "32 bits"},
    {TYPED("<int>&#49;</int>"), "32 bits"},
    {TYPED("<int>00000000000000000001</int>"), "32 bits"},
    {TYPED("<i4>-2147483649</i4>"), "32 bits"},
    {TYPED("<i8>9223372036854775808</i8>"), "64 bits"},
    {TYPED("<i8>-9223372036854775809</i8>"), "64 bits"},
    {TYPED("<boolean/>"), "0 or 1"},
    {TYPED("<boolean>2</boolean>"), "0 or 1"},
    {TYPED("<boolean>true</boolean>"), "0 or 1"},
    {TYPED("<double/>"), "double holds"},
    {TYPED("<double>nan</double>"), "double holds"},
    {TYPED("<double>1.</double>"), "double holds"},
    {TYPED("<double>.5</double>"), "double holds"},
    {TYPED("<double>1e100</double>"), "double holds"},
    {TYPED("<double>1e</double>"), "double holds"},
    {TYPED("<double>11111111111111111111111111111111111111111</double>"), "double holds"},
    {TYPED("<dateTime.iso8601/>"), "dateTime"},
    {TYPED("<dateTime.iso8601>2026-01-01T00:00:00</dateTime.iso8601>"), "dateTime"},
    {DATE("20260101T00:00:00Z"), "dateTime"},
    {DATE("20260101t00:00:00"), "dateTime"},
    {DATE("2026010 T00:00:00"), "dateTime"},
    {DATE("09990101T00:00:00"), "dateTime"},
    {DATE("20260001T00:00:00"), "dateTime"},
    {DATE("20261301T00:00:00"), "dateTime"},
    {DATE("20260132T00:00:00"), "dateTime"},
    {DATE("20260101T24:00:00"), "dateTime"},
    {DATE("20260101T00:60:00"), "dateTime"},
    {DATE("20260101T00:00:60"), "dateTime"},
    {TYPED("<base64>A</base64>"), "base64 holds"},
    {TYPED("<base64>A===</base64>"), "base64 holds"},
    {TYPED("<base64>AA=A</base64>"), "base64 holds"},
    {TYPED("<base64>AA.A</base64>"), "base64 holds"},
};

static void what_is_no_xml_rpc_is_refused_with_its_reason(void **state)
{
    (void) state;
    for (size_t i = 0; i < COUNT_OF(refusals); i++)
        assert_refused(refusals[i].body, strlen(refusals[i].body), refusals[i].because);
}

static void empty_elements_and_blanks_are_accepted_where_they_may_stand(void **state)
{
    (void) state;
    static const char *const bodies[] = {
        CALL(""),
        "<methodCall><methodName>m</methodName></methodCall>",
        "<methodCall ><methodName\n>m</methodName\t><params /></methodCall >",
        "\n<methodCall>\n <methodName>a.b_c:d/9</methodName> <params> <param> <value> <nil/> </value> </param> "
        "</params> </methodCall>\n",
        TYPED("<string/>"),
        TYPED("<base64/>"),
        TYPED("<nil></nil>"),
        TYPED("<struct/>"),
        TYPED("<array><data/></array>"),
        MEMBER("<name/><value/>"),
        DATE("10000101T00:00:00"),
        DATE("99991231T23:59:59"),
        TYPED("a > b ]] \" '"),
        TYPED("&amp;&lt;&gt;&quot;&apos;&#x41;&#000000065;&#13;&#x10fFfF;"),
    };
    for (size_t i = 0; i < COUNT_OF(bodies); i++)
        assert_accepted(bodies[i], strlen(bodies[i]));
}

/* A body that meets a limit with n, and breaks it with n + 1. */
struct limit {
    const char *because;
    size_t n;
    void (*build)(struct text *t, size_t n);
};

static void body_of(struct text *t, size_t n)
{
    text_add(t, ONE("<value/>"));
    add_times(t, n - t->length, " ");
}

static void depth_of(struct text *t, size_t n)
{
    /* methodCall, params, param; then value, array, data in turn, or a struct where an array would have to go on. */
    static const char *const names[] = {"value", "array", "data"};
    size_t rest = n - 3;
    text_add(t, CALL_HEAD "<param>");
    for (size_t i = 0; i < rest; i++)
        text_printf(t, "<%s>", i % 3 == 1 && i == rest - 1 ? "struct" : names[i % 3]);
    for (size_t i = rest; i-- > 0;)
        text_printf(t, "</%s>", i % 3 == 1 && i == rest - 1 ? "struct" : names[i % 3]);
    text_add(t, "</param>" CALL_TAIL);
}

static void elements_of(struct text *t, size_t n)
{
    /* methodCall, methodName, params, param, value, array, data. */
    text_add(t, CALL_HEAD "<param><value><array><data>");
    add_times(t, n - 7, "<value/>");
    text_add(t, "</data></array></value></param>" CALL_TAIL);
}

static void members_of(struct text *t, size_t n)
{
    text_add(t, CALL_HEAD "<param><value><struct>");
    for (size_t i = 0; i < n; i++)
        text_printf(t, "<member><name>%zu</name><value/></member>", i);
    text_add(t, "</struct></value></param>" CALL_TAIL);
}

static void name_of(struct text *t, size_t n)
{
    text_add(t, CALL_HEAD "<param><value><struct><member><name>&#x20ac;");
    add_times(t, n - 3, "n");
    text_add(t, "</name><value/></member></struct></value></param>" CALL_TAIL);
}

static void string_of(struct text *t, size_t n)
{
    text_add(t, CALL_HEAD "<param><value><string>&amp;\r\n");
    add_times(t, n - 2, "s");
    text_add(t, "</string></value></param>" CALL_TAIL);
}

static void untyped_string_of(struct text *t, size_t n)
{
    text_add(t, CALL_HEAD "<param><value>&#65;\r");
    add_times(t, n - 2, "s");
    text_add(t, "</value></param>" CALL_TAIL);
}

static void base64_of(struct text *t, size_t n)
{
    text_add(t, CALL_HEAD "<param><value><base64>");
    add_times(t, WIRE_STRING_MAX / 4, "AAAA");
    add_times(t, n - WIRE_STRING_MAX, "\n");
    text_add(t, "</base64></value></param>" CALL_TAIL);
}

static void method_name_of(struct text *t, size_t n)
{
    text_add(t, "<methodCall><methodName>");
    add_times(t, n, "m");
    text_add(t, "</methodName></methodCall>");
}

static const struct limit limits[] = {
    {"the body is longer", WIRE_BODY_MAX, body_of},
    {"nested deeper than", WIRE_DEPTH_MAX, depth_of},
    {" elements, at byte", WIRE_ELEMENT_MAX, elements_of},
    {" members, at byte", WIRE_MEMBER_MAX, members_of},
    {"the name of a member is longer", WIRE_NAME_MAX, name_of},
    {"a string is longer", WIRE_STRING_MAX, string_of},
    {"a string is longer", WIRE_STRING_MAX, untyped_string_of},
    {"within the limit of strings", WIRE_STRING_MAX, base64_of},
    {"methodName is empty or longer", WIRE_NAME_MAX, method_name_of},
};

static void every_limit_holds_at_its_figure_and_refuses_one_past_it(void **state)
{
    (void) state;
    for (size_t i = 0; i < COUNT_OF(limits); i++) {
        AUTO_TEXT struct text at = TEXT_OF(BUILD_MAX);
        AUTO_TEXT struct text past = TEXT_OF(BUILD_MAX);
        limits[i].build(&at, limits[i].n);
        limits[i].build(&past, limits[i].n + 1);
        assert_accepted(at.data, at.length);
        assert_refused(past.data, past.length, limits[i].because);
    }
}

static void a_refusal_names_the_byte_and_quotes_nothing(void **state)
{
    (void) state;
    AUTO_TEXT struct text t = TEXT_OF(4096);
    text_add(&t, "<methodCall><");
    add_times(&t, 300, "q");
    struct fault f;
    assert_int_equal(wire_gate(t.data, t.length, &f), -1);
    assert_string_equal(f.detail, "an element is not known, at byte 13");
}

static void every_beginning_of_a_call_is_refused(void **state)
{
    (void) state;
    AUTO_TEXT struct text t = corpus_file("vdi_create.xml");
    for (size_t n = 0; n < t.length; n++) {
        /* Exactly n bytes of memory, so that a sanitizer sees a read past them. */
        AUTO_FREE char *cut = malloc(n + (n == 0));
        assert_non_null(cut);
        memcpy(cut, t.data, n);
        struct fault f;
        assert_int_equal(wire_gate(cut, n, &f), -1);
    }
    assert_accepted(t.data, t.length);
}

static void the_largest_calls_fit_one_mib_and_5_ms(void **state)
{
    (void) state;
    AUTO_TEXT struct text t = TEXT_OF(BUILD_MAX);
    elements_of(&t, WIRE_ELEMENT_MAX);
    add_times(&t, WIRE_BODY_MAX - t.length, " ");
    assert_accepted(t.data, t.length);
    AUTO_TEXT struct text m = TEXT_OF(BUILD_MAX);
    members_of(&m, WIRE_MEMBER_MAX);
    assert_true(spent_on(&m, NULL) <= ATTACK_NS);
}

/* A call of this depth, read on a thread whose stack was painted before. */
enum { STACK = 512 * 1024, PAINT = 0xa5 };

static void *read_on_thread(void *arg)
{
    const struct text *t = arg;
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    struct wire_call call;
    struct fault f;
    return wire_read_call(a, t->data, t->length, &call, &f) == 0 ? arg : NULL;
}

static size_t stack_used(size_t depth)
{
    AUTO_TEXT struct text t = TEXT_OF(BUILD_MAX);
    unsigned char *stack;
    pthread_attr_t attributes;
    pthread_t thread;
    void *accepted;
    depth_of(&t, depth);
    assert_int_equal(posix_memalign((void **) &stack, 4096, STACK), 0);
    memset(stack, PAINT, STACK);
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attributes, read_on_thread, &t), 0);
    pthread_join(thread, &accepted);
    pthread_attr_destroy(&attributes);
    assert_non_null(accepted);
    size_t untouched = 0;
    while (untouched < STACK && stack[untouched] == PAINT)
        untouched++;
    free(stack);
    return STACK - untouched;
}

static void the_reader_uses_no_more_stack_for_a_deep_call_than_for_a_flat_one(void **state)
{
    (void) state;
#ifdef __SANITIZE_THREAD__
    print_message("not measured: ThreadSanitizer keeps things of its own on the stack\n");
    skip();
#endif
    size_t flat = stack_used(4), deep = stack_used(WIRE_DEPTH_MAX);
    print_message("stack of the reader: %zu bytes at depth 4, %zu at depth %u\n", flat, deep, WIRE_DEPTH_MAX);
    assert_true(deep < flat + 512);
    assert_true(deep < STACK / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_attack_is_refused_within_5_ms_and_1_mib),
        cmocka_unit_test(only_utf_8_is_read),
        cmocka_unit_test(a_declaration_of_utf_8_is_accepted_in_both_quotes),
        cmocka_unit_test(only_characters_of_xml_are_read),
        cmocka_unit_test(what_is_no_xml_rpc_is_refused_with_its_reason),
        cmocka_unit_test(empty_elements_and_blanks_are_accepted_where_they_may_stand),
        cmocka_unit_test(every_limit_holds_at_its_figure_and_refuses_one_past_it),
        cmocka_unit_test(a_refusal_names_the_byte_and_quotes_nothing),
        cmocka_unit_test(every_beginning_of_a_call_is_refused),
        cmocka_unit_test(the_largest_calls_fit_one_mib_and_5_ms),
        cmocka_unit_test(the_reader_uses_no_more_stack_for_a_deep_call_than_for_a_flat_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
