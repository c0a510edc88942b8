/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/types.h"
#include "server/base/secret.h"
#include "tests/unit/check.h"
#include <string.h>

#define HIDDEN "S3cr3t"

static const struct config_key keys[] = {
    {"target", "path", false, FAULT_InvalidArg, FAULT_InvalidArg, "where"},
    {"chapkey", "secret", true, FAULT_ConfigLocationMissing, FAULT_InvalidArg, "what it is logged in with"},
};
static const struct sr_type type = {.name = "vault", .keys = keys, .key_count = COUNT_OF(keys)};

static void a_key_is_secret_by_its_row_or_by_its_name(void **state)
{
    (void) state;
    static const char *const secret[] = {"password", "chappassword", "CIFSPassword", "x_secret", "PASSWORD_SECRET"};
    static const char *const open[] = {"target", "secret", "passwords", "password_file", ""};
    for (size_t i = 0; i < COUNT_OF(secret); i++)
        assert_true(config_key_is_secret(NULL, secret[i]) && config_key_is_secret(&type, secret[i]));
    for (size_t i = 0; i < COUNT_OF(open); i++)
        assert_false(config_key_is_secret(NULL, open[i]) || config_key_is_secret(&type, open[i]));
    assert_true(config_key_is_secret(&type, "chapkey"));
    assert_false(config_key_is_secret(NULL, "chapkey"));
}

static void no_refusal_shows_a_secret_value(void **state)
{
    (void) state;
    static const char *const odd[] = {HIDDEN, "../" HIDDEN "\n", ""};
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        struct pair items[] = {{"chapkey", odd[i]}, {"target", "relative"}};
        struct fault f = {0};
        assert_int_equal(backend_config_check(&type, &(struct pairs){items, 2}, &f), -1);
        assert_null(strstr(f.detail, HIDDEN));
        items[1] = (struct pair){"password", HIDDEN};
        assert_int_equal(backend_config_check(&type, &(struct pairs){items, 2}, &f), -1);
        assert_null(strstr(f.detail, HIDDEN));
        assert_int_equal(f.code, FAULT_InvalidArg);
    }
    struct pair sound[] = {{"chapkey", "any\ntext"}};
    struct fault f;
    assert_int_equal(backend_config_check(&type, &(struct pairs){sound, 1}, &f), 0);
}

static void what_is_shown_says_only_whether_there_is_one(void **state)
{
    (void) state;
    assert_string_equal(secret_show((struct secret){HIDDEN}), SECRET_SHOWN);
    assert_string_equal(secret_show((struct secret){""}), "");
    assert_string_equal(secret_show((struct secret){NULL}), "");
    assert_string_equal(secret_reveal((struct secret){HIDDEN}), HIDDEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_secret_by_its_row_or_by_its_name),
        cmocka_unit_test(no_refusal_shows_a_secret_value),
        cmocka_unit_test(what_is_shown_says_only_whether_there_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
