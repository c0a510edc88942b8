/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/arena.h"
#include "server/base/fault.h"
#include "server/base/model.h"
#include "server/base/text.h"
#include "server/base/uuid.h"
#include "tests/unit/check.h"
#include <errno.h>
#include <string.h>

static void only_whole_uuids_are_read(void **state)
{
    (void) state;
    static const char *const bad[] = {"",
                                      "aaaaaaaa-2222-3333-4444-55555555555",
                                      "aaaaaaaa-2222-3333-4444-5555555555555",
                                      "aaaaaaaa-2222-3333-4444-55555555555g",
                                      "aaaaaaaa_2222-3333-4444-555555555555",
                                      "../../../../../../../../../../etc/pas",
                                      "aaaaaaaa-2222-3333-4444-555555555555\n"};
    struct uuid u = UUID_NONE;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(uuid_parse_text(bad[i], &u));
    assert_false(uuid_is(&u));
    assert_true(uuid_parse_text("AAAAAAAA-2222-3333-4444-55555555555F", &u));
    assert_string_equal(u.text, "aaaaaaaa-2222-3333-4444-55555555555f");
}

static void random_uuids_differ_and_are_version_4(void **state)
{
    (void) state;
    struct uuid a = uuid_random(), b = uuid_random(), again;
    assert_false(uuid_equal(&a, &b));
    assert_true(uuid_parse_text(a.text, &again));
    assert_int_equal(a.text[14], '4');
}

static void all_94_specified_faults_stand_first(void **state)
{
    (void) state;
    size_t count;
    const struct fault_row *rows = fault_rows(&count);
    assert_true(count > 94);
    assert_int_equal(rows[0].code, 1);
    assert_int_equal(rows[93].code, 223);
    assert_int_equal(FAULT_VDIInUse, 24);
    for (size_t i = 0; i < count; i++) {
        assert_true(strlen(rows[i].when) >= 10);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(rows[i].code, rows[j].code);
    }
}

static void a_fault_reads_description_and_detail(void **state)
{
    (void) state;
    struct fault f;
    char text[1024];
    errno = EACCES;
    assert_int_equal(fault_errno(&f, FAULT_FileSRCreate, "open %s", "/x"), -1);
    fault_string(&f, text, sizeof text);
    assert_string_equal(text, "File SR creation error [opterr=open /x: Permission denied]");
    errno = ENOSPC;
    fault_errno(&f, FAULT_EIO, "write");
    assert_int_equal(f.code, FAULT_SRNoSpace);
}

static void a_fault_never_carries_what_xml_cannot(void **state)
{
    (void) state;
    struct fault f;
    char text[1024];
    fault_set(&f, FAULT_InvalidArg, "a\001b\xff c\xc3\xa9 \xed\xa0\x80");
    fault_string(&f, text, sizeof text);
    assert_string_equal(text, "Invalid argument [opterr=a?b? c\xc3\xa9 ???]");
}

static void a_fault_is_one_line_whatever_a_program_printed(void **state)
{
    (void) state;
    struct fault f;
    char text[1024];
    fault_set(&f, FAULT_ISCSILogin, "iscsiadm said\r\n<?xml ?>\n");
    fault_string(&f, text, sizeof text);
    assert_null(strpbrk(text, "\r\n"));
    assert_non_null(strstr(text, "[opterr=iscsiadm said  <?xml ?> ]"));
}

static void a_document_stays_with_its_fault_until_that_is_replaced(void **state)
{
    (void) state;
    struct fault f;
    fault_set(&f, FAULT_ConfigTargetIQNMissing, "which target");
    assert_null(f.document);
    fault_document(&f, "<?xml ?><a/>");
    fault_prefix(&f, "SR x");
    assert_string_equal(f.document, "<?xml ?><a/>");
    assert_string_equal(f.detail, "SR x: which target");
    AUTO_FREE char *large = calloc(1, FAULT_DOCUMENT + 2);
    memset(large, 'x', FAULT_DOCUMENT + 1);
    fault_document(&f, large);
    assert_null(f.document);
    large[FAULT_DOCUMENT] = '\0';
    fault_document(&f, large);
    assert_ptr_equal(f.document, large);
    fault_set(&f, FAULT_EIO, "another");
    assert_null(f.document);
}

static void text_stops_at_its_ceiling(void **state)
{
    (void) state;
    AUTO_TEXT struct text t = TEXT_OF(8);
    text_add(&t, "12345");
    text_add(&t, "67890");
    assert_true(t.full);
    assert_string_equal(t.data, "12345");
}

static void xml_and_json_are_escaped(void **state)
{
    (void) state;
    AUTO_TEXT struct text t = TEXT_OF(100);
    text_add_xml(&t, "<a&\"b\">\001");
    text_add_json(&t, "q\"\\\n");
    assert_string_equal(t.data, "&lt;a&amp;&quot;b&quot;&gt;?\"q\\\"\\\\\\u000a\"");
}

static void pairs_replace_by_key(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    struct pairs p = {0};
    pairs_set(a, &p, "k", "1");
    pairs_set(a, &p, "l", "2");
    pairs_set(a, &p, "k", "3");
    assert_int_equal(p.count, 2);
    assert_string_equal(pairs_get(&p, "k"), "3");
    assert_null(pairs_get(&p, "m"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_whole_uuids_are_read),
        cmocka_unit_test(random_uuids_differ_and_are_version_4),
        cmocka_unit_test(all_94_specified_faults_stand_first),
        cmocka_unit_test(a_fault_reads_description_and_detail),
        cmocka_unit_test(a_fault_never_carries_what_xml_cannot),
        cmocka_unit_test(a_fault_is_one_line_whatever_a_program_printed),
        cmocka_unit_test(a_document_stays_with_its_fault_until_that_is_replaced),
        cmocka_unit_test(text_stops_at_its_ceiling),
        cmocka_unit_test(xml_and_json_are_escaped),
        cmocka_unit_test(pairs_replace_by_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
