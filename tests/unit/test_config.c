/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/config.h"
#include "tests/unit/check.h"
#include <string.h>
#include <unistd.h>

/* Reads an ini file of this text; the fault's detail, or "" when it was taken. The file is called F in it. */
static const char *reading(struct settings *s, const char *text)
{
    static char answer[FAULT_DETAIL + 16];
    char path[] = "/tmp/test_config.XXXXXX";
    struct fault f;
    settings_default(s);
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t) strlen(text));
    close(fd);
    int r = settings_read(s, path, &f);
    unlink(path);
    if (r == 0)
        return "";
    assert_int_equal(f.code, FAULT_InvalidArg);
    assert_int_equal(strncmp(f.detail, path, strlen(path)), 0);
    snprintf(answer, sizeof answer, "F%s", f.detail + strlen(path));
    return answer;
}

static void mistakes_are_told_with_file_and_line(void **state)
{
    (void) state;
    static const char *const cases[][2] = {
        {"[server]\nprot = 1\n", "F:2: section server has no key \"prot\""},
        {"# c\n\n[sever]\nport = 1\n", "F:4: there is no section \"sever\""},
        {"port = 1\n", "F:1: \"port\" stands in no section"},
        {"[server]\nport = 65536\n", "F:2: server.port: 65536 is not within 0 to 65535"},
        {"[limits]\nworkers = 0\n", "F:2: limits.workers: 0 is not within 1 to 512"},
        {"[limits]\nworkers = -1\n", "F:2: limits.workers: \"-1\" is not a number"},
        {"[limits]\nworkers = 4k\n", "F:2: limits.workers: \"4k\" is not a number"},
        {"[limits]\nworkers =\n", "F:2: limits.workers: \"\" is not a number"},
        {"[limits]\nworkers = 18446744073709551617\n",
         "F:2: limits.workers: 18446744073709551617 is not within 1 to 512"},
        {"[server]\nstate = var/lib\n", "F:2: server.state: \"var/lib\" is not an absolute path"},
        {"[server]\nhost = 12\n", "F:2: server.host: \"12\" is not a uuid"},
        {"[log]\nlevel = loud\n", "F:2: log.level: \"loud\" is none of error, warning, info, debug"},
        {"[server]\nport = 1\nport = 2\n",
         "F:3: server.port was given before (an indented line continues the one above it)"},
        {"[server]\nsocket = /a\n  /b\n",
         "F:3: server.socket was given before (an indented line continues the one above it)"},
        {"[server]\nnonsense\n[log]\nlevel = info\n", "F:2: neither \"[section]\" nor \"key = value\""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct settings s;
        assert_string_equal(reading(&s, cases[i][0]), cases[i][1]);
    }
}

static void a_line_too_long_is_refused_not_cut(void **state)
{
    (void) state;
    char text[2000] = "[server]\nstate = /";
    memset(text + strlen(text), 'x', 1000);
    struct settings s;
    assert_non_null(strstr(reading(&s, text), "F:2: the line is longer than"));
}

static void what_is_written_is_taken(void **state)
{
    (void) state;
    struct settings s;
    assert_string_equal(reading(&s, "; c\n[server]\nport=0\nsocket =\nlisten = ::1 \n"
                                    "host = AAAAAAAA-2222-3333-4444-555555555555\n[log]\nlevel = debug"),
                        "");
    assert_int_equal(s.server_port, 0);
    assert_string_equal(s.server_socket, "");
    assert_string_equal(s.server_listen, "::1");
    assert_string_equal(s.server_host.text, "aaaaaaaa-2222-3333-4444-555555555555");
    assert_int_equal(s.log_level, LOG_DEBUG);
    assert_int_equal(s.limits_workers, 64);
}

static void a_file_that_is_not_there_is_named(void **state)
{
    (void) state;
    struct settings s;
    struct fault f;
    settings_default(&s);
    assert_int_equal(settings_read(&s, "/nonexistent/x.conf", &f), -1);
    assert_string_equal(f.detail, "open /nonexistent/x.conf: No such file or directory");
}

static void the_command_line_says_section_key_value(void **state)
{
    (void) state;
    struct settings s;
    struct fault f;
    settings_default(&s);
    assert_int_equal(settings_assign(&s, "server.port=1234", &f), 0);
    assert_int_equal(s.server_port, 1234);
    assert_int_equal(settings_assign(&s, "server.state=/a=b.c", &f), 0);
    assert_string_equal(s.server_state, "/a=b.c");
    static const char *const bad[] = {"",        "port=1",    "server.port",  "server=1.2",
                                      ".port=1", "server.=1", "server.port=x"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(settings_assign(&s, bad[i], &f), -1);
    char wide[SETTING_MAX + 32] = "server.state=/";
    memset(wide + strlen(wide), 'x', SETTING_MAX - 2);
    assert_int_equal(settings_assign(&s, wide, &f), 0);
    wide[strlen(wide)] = 'x'; /* the rest of the array is NUL */
    assert_int_equal(settings_assign(&s, wide, &f), -1);
    assert_int_equal(s.server_port, 1234);
}

static void settings_that_need_each_other_are_checked(void **state)
{
    (void) state;
    struct settings s;
    struct fault f;
    settings_default(&s);
    assert_int_equal(settings_check(&s, &f), 0);
    settings_assign(&s, "tls.key=", &f);
    assert_int_equal(settings_check(&s, &f), -1);
    settings_assign(&s, "server.listen=", &f);
    assert_int_equal(settings_check(&s, &f), 0);
    settings_assign(&s, "server.socket=", &f);
    assert_int_equal(settings_check(&s, &f), -1);
}

static void what_is_printed_can_be_read_again(void **state)
{
    (void) state;
    struct settings s, again;
    AUTO_TEXT struct text printed = TEXT_OF(65536), twice = TEXT_OF(65536);
    struct fault f;
    settings_default(&s);
    settings_assign(&s, "server.port=0", &f);
    settings_assign(&s, "server.socket=", &f);
    settings_print(&s, &printed);
    assert_string_equal(reading(&again, printed.data), "");
    settings_print(&again, &twice);
    assert_string_equal(printed.data, twice.data);
}

static void a_reload_takes_what_may_change_and_names_the_rest(void **state)
{
    (void) state;
    struct settings s, fresh;
    struct fault f;
    AUTO_TEXT struct text left = TEXT_OF(1024);
    settings_default(&s);
    settings_default(&fresh);
    settings_renew(&s, &fresh, &left);
    assert_int_equal(left.length, 0);
    static const char *const changes[] = {"log.level=debug", "tls.crl=/c", "limits.call_seconds=7", "server.port=1",
                                          "limits.workers=2"};
    for (size_t i = 0; i < COUNT_OF(changes); i++)
        assert_int_equal(settings_assign(&fresh, changes[i], &f), 0);
    settings_renew(&s, &fresh, &left);
    assert_string_equal(left.data, "server.port limits.workers");
    assert_string_equal(s.tls_crl, "/c");
    assert_int_equal(s.log_level, LOG_DEBUG);
    assert_int_equal(s.limits_call_seconds, 7);
    assert_int_equal(s.server_port, 8443);
    assert_int_equal(s.limits_workers, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_told_with_file_and_line),
        cmocka_unit_test(a_line_too_long_is_refused_not_cut),
        cmocka_unit_test(what_is_written_is_taken),
        cmocka_unit_test(a_file_that_is_not_there_is_named),
        cmocka_unit_test(the_command_line_says_section_key_value),
        cmocka_unit_test(settings_that_need_each_other_are_checked),
        cmocka_unit_test(what_is_printed_can_be_read_again),
        cmocka_unit_test(a_reload_takes_what_may_change_and_names_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
