/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which texts the kinds of device_config values take. */
#include "backends/kinds.h"

#include "server/base/own.h"
#include "tests/unit/check.h"
#include <string.h>

static const struct sample {
    const char *kind;
    const char *good[8], *bad[20];
} samples[] = {
    {"host",
     {"filer", "filer.example.org", "filer.example.org.", "10.0.0.1", "fe80::1", "1and1.com"},
     {"-filer", "filer-", "a..b", ".a", "a b", "a,b", "a/b", "a:b:c:zz", "$(id)", "`id`", "fil\xc3\xa9r", "a\nb",
      "[::1]", "_x", "%n"}},
    {"export",
     {"/", "/export", "/a/b-c_d.e", "/x:y"},
     {"export", "/a/../b", "/a/./b", "//a", "/a,b", "/a b", "/a\nb", "/a\\b", "/a'b", "/a\"b", "/\xc3\xa9", "-o",
      "/a/"}},
    {"options",
     {"noac", "rsize=65536,wsize=65536", "sec=krb5", "port=2049", "mountaddr=10.0.0.1"},
     {"-o",
      "a b",
      "a,,b",
      "a,",
      ",a",
      "=x",
      "remount",
      "noac,bind",
      "suid",
      "dev",
      "exec",
      "x=$(id)",
      "x=a;b",
      "x=\"y\"",
      "username=root",
      "password=x",
      "credentials=/etc/shadow",
      "x\ny",
      "X=1",
      "noac,exec"}},
    {"devices",
     {"/dev/sdb", "/dev/sdb,/dev/sdc1", "/dev/disk/by-id/scsi-3600:1", "/dev/mapper/a+b@c=d"},
     {"sdb", "/dev/", "/dev", "/etc/passwd", "/dev/../etc/passwd", "/dev/./sdb", "/dev//sdb", "/dev/sdb,", ",/dev/sdb",
      "/dev/sdb,/dev/sdb", "/dev/sd b", "/dev/sdb;id", "/dev/$(id)", "-a", "/dev/sdb,-f", "/dev/\xe2\x80\x90x",
      "/dev/sdb\n", "/dev/sdb,--config=x"}},
    {"subpath", {"a", "/a", "a/b"}, {"..", "../a", "a/..", "a//b", "./a", "a\nb"}},
    {"source", {"a", "\\\\server\\share", "filer:/x y"}, {"-o", "a\nb", "a\x7f", "\x01"}},
    {"nfs_version", {"3", "4", "4.0", "4.1", "4.2"}, {"2", "5", "3,soft", "4.2 ", "-3"}},
    {"nfs_mode", {"hard", "soft"}, {"Hard", "intr", "hard,soft"}},
    {"smb_version", {"1.0", "3.0"}, {"2.0", "3", "3.0,sec=none"}},
    {"iso_type", {"cifs", "nfs_iso"}, {"nfs", "smb"}},
    {"flag", {"true", "false"}, {"True", "1", "yes"}},
    {"secret", {"any, text\n at all"}, {NULL}},
};

static void each_kind_takes_what_it_should_and_nothing_else(void **state)
{
    (void) state;
    for (size_t i = 0; i < COUNT_OF(samples); i++) {
        const struct config_kind *kind = config_kind_find(samples[i].kind);
        assert_non_null(kind);
        for (size_t j = 0; j < COUNT_OF(samples[i].good) && samples[i].good[j]; j++)
            if (kind->bad(samples[i].good[j]))
                fail_msg("%s refuses %s: %s", kind->name, samples[i].good[j], kind->bad(samples[i].good[j]));
        for (size_t j = 0; j < COUNT_OF(samples[i].bad) && samples[i].bad[j]; j++)
            if (!kind->bad(samples[i].bad[j]))
                fail_msg("%s takes %s", kind->name, samples[i].bad[j]);
    }
    assert_null(config_kind_find("nothing"));
}

static void what_is_too_long_is_refused(void **state)
{
    (void) state;
    static const char *const kinds[] = {"host", "export", "devices", "subpath", "source", "path"};
    AUTO_FREE char *longest = malloc(70000);
    memset(longest, 'a', 69999);
    memcpy(longest, "/dev/", 5);
    longest[69999] = '\0';
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        assert_non_null(config_kind_find(kinds[i])->bad(longest));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_takes_what_it_should_and_nothing_else),
        cmocka_unit_test(what_is_too_long_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
