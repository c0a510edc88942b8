/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/args.h"
#include "tests/unit/check.h"
#include <string.h>

static struct arena *arena;

static int make(void **state)
{
    (void) state;
    arena = arena_new(1 << 20);
    return 0;
}

static int drop(void **state)
{
    (void) state;
    arena_free(arena);
    return 0;
}

#define SR "11111111-2222-3333-4444-555555555555"

static struct value *call_struct(void)
{
    struct value *v = value_struct(arena);
    value_put(arena, v, "sr_uuid", value_string(arena, SR));
    value_put(arena, v, "device_config", value_struct(arena));
    return v;
}

static struct value *with_args(struct value *v, struct value *first, struct value *second)
{
    struct value *list = value_array(arena);
    if (first)
        value_append(arena, list, first);
    if (second)
        value_append(arena, list, second);
    value_put(arena, v, "args", list);
    return v;
}

/* Decodes and expects BadRequest (or code) with a sentence that holds part. */
static void refused_as(const char *method, struct value *v, enum fault_code code, const char *part)
{
    void *out;
    struct fault f = {0};
    assert_int_equal(args_decode(method_find(method), &v, 1, arena, &out, &f), -1);
    assert_int_equal(f.code, code);
    if (!strstr(f.detail, part))
        fail_msg("\"%s\" does not name %s", f.detail, part);
}

static void both_dialects_of_vdi_create_are_read(void **state)
{
    (void) state;
    void *out;
    struct fault f;
    struct value *v = with_args(call_struct(), value_string(arena, "1048576"), NULL);
    assert_int_equal(args_decode(method_find("vdi_create"), &v, 1, arena, &out, &f), 0);
    const struct vdi_create_args *args = out;
    assert_int_equal(args->size, 1048576);
    assert_null(args->name_label);
    v = with_args(call_struct(), value_integer(arena, 4096), value_string(arena, "label"));
    assert_int_equal(args_decode(method_find("vdi_create"), &v, 1, arena, &out, &f), 0);
    args = out;
    assert_int_equal(args->size, 4096);
    assert_string_equal(args->name_label, "label");
    assert_string_equal(args->sr_uuid.text, SR);
}

static void what_is_missing_unknown_or_ill_typed_is_named(void **state)
{
    (void) state;
    struct value *v = value_struct(arena);
    value_put(arena, v, "device_config", value_struct(arena));
    refused_as("sr_attach", v, FAULT_BadRequest, "sr_uuid");
    v = call_struct();
    value_put(arena, v, "colour", value_string(arena, "red"));
    refused_as("sr_attach", v, FAULT_BadRequest, "colour");
    v = call_struct();
    v->members[0].value = value_string(arena, "not-a-uuid");
    refused_as("sr_attach", v, FAULT_BadRequest, "sr_uuid must be a uuid, not \"not-a-uuid\"");
    v = call_struct();
    v->members[1].value = value_string(arena, "x");
    refused_as("sr_attach", v, FAULT_BadRequest, "device_config");
    v = call_struct();
    value_put(arena, v, "host_ref", value_array(arena));
    refused_as("sr_attach", v, FAULT_BadRequest, "host_ref");
    v = call_struct();
    value_put(arena, v, "command", value_string(arena, "sr_detach"));
    refused_as("sr_attach", v, FAULT_BadRequest, "command");
}

static void the_number_of_args_is_checked(void **state)
{
    (void) state;
    refused_as("sr_create", call_struct(), FAULT_BadRequest, "args[0] is missing: size");
    refused_as("sr_attach", with_args(call_struct(), value_string(arena, "x"), NULL), FAULT_BadRequest, "args");
    refused_as("vdi_resize", with_args(call_struct(), value_string(arena, "12x"), NULL), FAULT_BadRequest, "size");
    refused_as("vdi_resize", with_args(call_struct(), value_string(arena, "99999999999999999999"), NULL),
               FAULT_BadRequest, "size");
}

static void a_negative_size_is_a_size_no_disk_has(void **state)
{
    (void) state;
    refused_as("vdi_resize", with_args(call_struct(), value_integer(arena, -1), NULL), FAULT_VDISize, "size");
    refused_as("vdi_resize", with_args(call_struct(), value_string(arena, "-4096"), NULL), FAULT_VDISize, "size");
}

static void introspection_takes_plain_parameters(void **state)
{
    (void) state;
    void *out;
    struct fault f;
    struct value *name = value_string(arena, "sr_scan");
    assert_int_equal(args_decode(method_find("system.methodHelp"), &name, 1, arena, &out, &f), 0);
    assert_string_equal(((const struct system_methodHelp_args *) out)->method, "sr_scan");
    assert_int_equal(args_decode(method_find("system.listMethods"), NULL, 0, arena, &out, &f), 0);
    assert_int_equal(args_decode(method_find("system.listMethods"), &name, 1, arena, &out, &f), -1);
    assert_int_equal(args_decode(method_find("system.methodHelp"), NULL, 0, arena, &out, &f), -1);
}

static void every_row_has_what_readers_need(void **state)
{
    (void) state;
    size_t count;
    const struct method *rows = method_rows(&count);
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(method_find(rows[i].name), &rows[i]);
        assert_true(rows[i].text[0] != '\0');
        assert_true(rows[i].effect == EFFECT_READS || rows[i].lock != LOCK_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_dialects_of_vdi_create_are_read, make, drop),
        cmocka_unit_test_setup_teardown(what_is_missing_unknown_or_ill_typed_is_named, make, drop),
        cmocka_unit_test_setup_teardown(the_number_of_args_is_checked, make, drop),
        cmocka_unit_test_setup_teardown(a_negative_size_is_a_size_no_disk_has, make, drop),
        cmocka_unit_test_setup_teardown(introspection_takes_plain_parameters, make, drop),
        cmocka_unit_test(every_row_has_what_readers_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
