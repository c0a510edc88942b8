/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is said to open-iscsi and what its answers are taken for; identities of LUNs and answers to reservations, byte
   by byte; names and addresses. */
#include "backends/scsi/address.h"
#include "backends/scsi/command.h"
#include "backends/scsi/fence.h"
#include "backends/scsi/md5.h"
#include "backends/scsi/name.h"
#include "backends/scsi/sysfs.h"
#include "backends/tools/iscsiadm.h"
#include "backends/types.h"
#include "tests/unit/check.h"
#include "tests/unit/replay_help.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define IQN "iqn.2026-11.org.test:a"

static char database[] = "/tmp/smapi-iscsi-XXXXXX";

static int arena_setup(void **state)
{
    *state = arena_new(16U << 20);
    return 0;
}

static int arena_teardown(void **state)
{
    arena_free(*state);
    return 0;
}

static struct portal portal_of(const char *address)
{
    struct portal p;
    assert_true(portal_parse(address, ISCSI_PORT, &p));
    return p;
}

static struct iscsi_initiator initiator(void)
{
    return (struct iscsi_initiator){.iface = "smapi-x", .name = "iqn.2026-11.org.test:one", .hold = -1};
}

static struct iscsi_initiator with_password(void)
{
    struct iscsi_initiator who = initiator();
    who.user = "someone";
    who.password = (struct secret){"canary-out"};
    who.user_in = "target";
    who.password_in = (struct secret){"canary-in"};
    return who;
}

/* ------------------------------------------------------------------ conversations */

static void a_life_is_one_command_a_step(void **state)
{
    const struct iscsi_initiator who = initiator();
    const struct portal p = portal_of("10.0.0.1"), six = portal_of("fd00:0::1");
    struct iscsi_offer *offers;
    size_t count;
    struct fault f;
    replay_start("iscsiadm/life");
    assert_int_equal(iscsiadm_discover(&who, &p, *state, &offers, &count, &f), 0);
    assert_int_equal(count, 2);
    assert_string_equal(offers[0].target, IQN);
    assert_true(portal_equal(&offers[0].portal, &p) && portal_equal(&offers[1].portal, &six));
    assert_int_equal(offers[1].group, 1);
    for (int i = 0; i < 2; i++)
        assert_int_equal(iscsiadm_login(&who, &f), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(iscsiadm_logout(3, -1, &f), 0);
    replay_end();
}

static void what_refuses_has_its_code(void **state)
{
    const struct iscsi_initiator who = initiator();
    const struct portal p = portal_of("10.0.0.1");
    static const enum fault_code logins[] = {FAULT_ISCSILogin, FAULT_ISCSITarget, FAULT_ISCSILogin, FAULT_InvalidDev};
    struct iscsi_offer *offers;
    size_t count;
    struct fault f;
    replay_start("iscsiadm/faults");
    assert_int_equal(iscsiadm_discover(&who, &p, *state, &offers, &count, &f), -1);
    assert_int_equal(f.code, FAULT_ISCSILogin);
    assert_int_equal(iscsiadm_discover(&who, &p, *state, &offers, &count, &f), -1);
    assert_int_equal(f.code, FAULT_ISCSITarget);
    for (size_t i = 0; i < COUNT_OF(logins); i++) {
        assert_int_equal(iscsiadm_login(&who, &f), -1);
        assert_int_equal(f.code, logins[i]);
    }
    replay_end();
}

static void nothing_that_is_offered_is_no_daemon_that_does_not_run(void **state)
{
    const struct iscsi_initiator who = initiator();
    const struct portal p = portal_of("127.0.0.1");
    struct iscsi_offer *offers;
    size_t count = 1;
    struct fault f;
    replay_start("iscsiadm/nothing");
    assert_int_equal(iscsiadm_discover(&who, &p, *state, &offers, &count, &f), 0);
    assert_int_equal(count, 0);
    assert_int_equal(iscsiadm_discover(&who, &p, *state, &offers, &count, &f), -1);
    assert_int_equal(f.code, FAULT_ISCSIDaemon);
    replay_end();
}

static void offers_that_are_none_are_left_out(void **state)
{
    struct iscsi_offer *offers;
    assert_int_equal(iscsiadm_parse_offers("10.0.0.1:3260,1 ../../etc\n10.0.0.1:3260,1 iqn.2026-11.a:/b\nhello\n\n"
                                           "host:3260,1 " IQN "\n10.0.0.1:99999,1 " IQN "\n10.0.0.1:3261,7 " IQN,
                                           *state, &offers),
                     1);
    assert_int_equal(offers[0].portal.port, 3261);
    assert_int_equal(offers[0].group, 7);
}

/* ------------------------------------------------------------------ records */

static const char *record_path(struct arena *a, const char *iface)
{
    return arena_printf(a, "%s/nodes/" IQN "/10.0.0.1,3260,1/%s", database, iface);
}

static void passwords_are_in_records_that_only_their_owner_reads(void **state)
{
    const struct iscsi_initiator who = with_password();
    const struct iscsi_offer offer = {portal_of("10.0.0.1"), 1, IQN};
    struct stat st;
    struct fault f;
    assert_int_equal(iscsiadm_begin(&who, &f), 0);
    assert_int_equal(iscsiadm_add(&who, &offer, &f), 0);
    assert_int_equal(stat(record_path(*state, "smapi-x"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    const char *text = iscsiadm_record(&who, &offer, *state);
    assert_non_null(strstr(text, "\nnode.session.auth.username = someone\nnode.session.auth.password = canary-out\n"));
    assert_non_null(strstr(text, "auth.username_in = target\nnode.session.auth.password_in = canary-in\n"));
    assert_non_null(strstr(text, "iface.initiatorname = iqn.2026-11.org.test:one\n"));
    assert_non_null(strstr(text, "\nnode.session.timeo.replacement_timeout = 15\n"));
    const struct iscsi_initiator plain = initiator();
    assert_null(strstr(iscsiadm_record(&plain, &offer, *state), "auth"));
}

static void an_end_removes_what_bears_the_name_and_nothing_else(void **state)
{
    const struct iscsi_initiator who = with_password();
    const struct iscsi_offer offer = {portal_of("10.0.0.1"), 1, IQN};
    struct iscsi_initiator host = initiator();
    struct fault f;
    const char **names;
    size_t count;
    host.iface = "default";
    assert_int_equal(iscsiadm_begin(&who, &f) | iscsiadm_add(&who, &offer, &f), 0);
    assert_int_equal(iscsiadm_begin(&host, &f) | iscsiadm_add(&host, &offer, &f), 0);
    assert_int_equal(iscsiadm_end("smapi-x", &f), 0);
    assert_int_equal(access(record_path(*state, "smapi-x"), F_OK), -1);
    assert_int_equal(access(record_path(*state, "default"), F_OK), 0);
    iscsiadm_ifaces("smapi-", *state, &names, &count);
    assert_int_equal(count, 0);
    assert_int_equal(iscsiadm_end("default", &f), 0);
    assert_int_equal(iscsiadm_end("default", &f), 0);
    assert_int_equal(access(arena_printf(*state, "%s/nodes/" IQN, database), F_OK), -1);
}

static void a_password_cannot_become_two_lines(void **state)
{
    (void) state;
    struct iscsi_initiator who = with_password();
    struct fault f;
    who.password = (struct secret){"a\nnode.startup = automatic"};
    assert_int_equal(iscsiadm_begin(&who, &f), -1);
    assert_int_equal(f.code, FAULT_BadCharacter);
    assert_null(strstr(f.detail, "automatic"));
}

/* ------------------------------------------------------------------ names and addresses */

static void addresses_are_equal_when_they_mean_the_same(void **state)
{
    (void) state;
    static const char *const same[][2] = {
        {"fd00::1", "FD00:0:0:0:0:0:0:1"}, {"::ffff:10.0.0.1", "10.0.0.1"}, {"[::1]", "::1"}};
    static const char *const other[][2] = {{"10.0.0.1", "10.0.0.10"}, {"10.0.0.1", "110.0.0.1"}, {"::1", "::10"}};
    for (size_t i = 0; i < 3; i++) {
        const struct portal a = portal_of(same[i][0]), b = portal_of(same[i][1]);
        const struct portal c = portal_of(other[i][0]), d = portal_of(other[i][1]);
        assert_true(portal_equal(&a, &b));
        assert_false(portal_equal(&c, &d));
    }
    struct portal p;
    assert_false(portal_parse("10.0.0.256", 1, &p) || portal_parse("host", 1, &p) || portal_parse("", 1, &p));
}

static void portals_are_taken_apart(void **state)
{
    (void) state;
    static const struct {
        const char *word, *host;
        unsigned port;
    } good[] = {
        {"a.b", "a.b", 7}, {"a:3261", "a", 3261}, {"[::1]:1", "[::1]", 1}, {"[::1]", "[::1]", 7}, {"::1", "::1", 7}};
    static const char *const bad[] = {"", ":3260", "a:", "a:0", "a:65536", "a:x", "[::1", "[::1]x", "[::1]:"};
    char host[ADDRESS_NAME + 1];
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        unsigned port = 7;
        assert_true(portal_split(good[i].word, strlen(good[i].word), host, &port));
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        unsigned port = 7;
        assert_false(portal_split(bad[i], strlen(bad[i]), host, &port));
    }
}

static void names_are_as_rfc_3720_has_them(void **state)
{
    (void) state;
    static const char *const good[] = {IQN, "iqn.2001-04.com.example", "eui.02004567A425678D", "naa.52004567BA64678D",
                                       "naa.62004567BA64678D0123456789ABCDEF"};
    static const char *const bad[] = {"",
                                      "iqn.",
                                      "iqn.2026-13.org",
                                      "iqn.26-11.org.a",
                                      "iqn.2026-00.org",
                                      "iqn.2026-1.org",
                                      "eui.0200",
                                      "naa.5200",
                                      "IQN.2026-11.org",
                                      "iqn.2026-11.org:a b",
                                      "iqn.2026-11.org/..",
                                      "iqn.2026-11.org:$(x)",
                                      "-oProxyCommand"};
    char large[240] = "iqn.2026-11.org.";
    for (size_t i = 0; i < COUNT_OF(good); i++)
        assert_null(iscsi_name_bad(good[i]));
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (!iscsi_name_bad(bad[i]))
            fail_msg("taken: %s", bad[i]);
    memset(large + 16, 'a', 223 - 16);
    assert_null(iscsi_name_bad(large));
    large[223] = 'a';
    assert_non_null(iscsi_name_bad(large));
}

static void check_refused(const char *type, const char *key, const char *value, enum fault_code code)
{
    struct pair pairs[] = {{"target", "10.0.0.1"}, {key, value}};
    bool target = strcmp(key, "target") == 0;
    const struct pairs config = {target ? pairs + 1 : pairs, target ? 1 : 2};
    struct fault f = {0};
    assert_int_equal(backend_config_check(sr_type_find(type), &config, &f), -1);
    if (f.code != code)
        fail_msg("%s: %s=%s: %d", type, key, value, f.code);
}

static void what_device_config_gets_wrong_has_its_code(void **state)
{
    static const char *const names[] = {"iscsi", "lvmoiscsi", "extoiscsi"};
    (void) state;
    static const struct {
        const char *key, *value;
        enum fault_code code;
    } bad[] = {{"targetIQN", "iqn.x", FAULT_InvalidIQN},
               {"targetIQN", "$(reboot)", FAULT_BadCharacter},
               {"localIQN", "host", FAULT_InvalidIQN},
               {"port", "0", FAULT_ISCSIPort},
               {"port", "65536", FAULT_ISCSIPort},
               {"port", "3260;id", FAULT_BadCharacter},
               {"LUNid", "1,", FAULT_BadCharacter},
               {"LUNid", "-1", FAULT_BadCharacter},
               {"LUNid", "123456", FAULT_BadCharacter},
               {"SCSIid", "..", FAULT_BadCharacter},
               {"SCSIid", "a/b", FAULT_BadCharacter},
               {"target", "a,,b", FAULT_BadCharacter},
               {"target", "10.0.0.1 -x", FAULT_BadCharacter},
               {"target", "-h", FAULT_BadCharacter},
               {"chapuser", "a\nb", FAULT_BadCharacter},
               {"usediscoverynumber", "x", FAULT_BadCharacter}};
    for (size_t t = 0; t < COUNT_OF(names); t++)
        for (size_t i = 0; i < COUNT_OF(bad); i++)
            check_refused(names[t], bad[i].key, bad[i].value, bad[i].code);
    check_refused("lvmoiscsi", "allocation", "fat", FAULT_InvalidArg);
    check_refused("lvmoiscsi", "adopt", "yes", FAULT_InvalidArg);
    check_refused("extoiscsi", "adopt", "1", FAULT_InvalidArg);
    check_refused("extoiscsi", "allocation", "thin", FAULT_InvalidArg); /* no key of that type */
    for (size_t t = 0; t < COUNT_OF(names); t++) {
        struct fault f = {0};
        const struct pairs none = {NULL, 0};
        assert_int_equal(backend_config_check(sr_type_find(names[t]), &none, &f), -1);
        assert_int_equal(f.code, FAULT_ConfigTargetMissing);
    }
}

/* ------------------------------------------------------------------ bytes */

static void md5_is_md5(void **state)
{
    (void) state;
    static const char *const vectors[][2] = {
        {"", "d41d8cd98f00b204e9800998ecf8427e"},
        {"abc", "900150983cd24fb0d6963f7d28e17f72"},
        {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"},
        {"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
         "57edf4a22be3c955ac49da2e2107b67a"}};
    char out[33];
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        md5_hex(vectors[i][0], strlen(vectors[i][0]), out);
        assert_string_equal(out, vectors[i][1]);
    }
}

/* As the kernel's target gave it: NAA, T10 vendor, ports. */
static const unsigned char lio_page[] = {
    0x00, 0x83, 0x00, 0x48, 0x01, 0x03, 0x00, 0x10, 0x60, 0x01, 0x40, 0x55, 0x6a, 0x21, 0x07, 0xd0, 0x00, 0x00, 0x00,
    0x10, 0x00, 0x00, 0x00, 0x00, 0x02, 0x01, 0x00, 0x20, 0x4c, 0x49, 0x4f, 0x2d, 0x4f, 0x52, 0x47, 0x20, 0x46, 0x49,
    0x4c, 0x45, 0x49, 0x4f, 0x3a, 0x35, 0x36, 0x61, 0x32, 0x31, 0x30, 0x37, 0x64, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30,
    0x30, 0x31, 0x00, 0x51, 0x94, 0x00, 0x04, 0x00, 0x00, 0x00, 0x01, 0x51, 0x95, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00};

static void a_lun_is_known_by_its_best_designator(void **state)
{
    unsigned char page[sizeof lio_page];
    assert_string_equal(scsi_id_of_page(lio_page, sizeof lio_page, *state), "3600140556a2107d00000001000000000");
    memcpy(page, lio_page, sizeof page);
    page[5] = 0x13; /* of the port, not of the LUN */
    assert_string_equal(scsi_id_of_page(page, sizeof page, *state), "1LIO-ORG_FILEIO:56a2107d00000001");
    page[25] = 0x11;
    assert_string_equal(scsi_id_of_page(page, sizeof page, *state), "");
    for (size_t length = 0; length < sizeof lio_page; length++) /* cut anywhere: never past the end */
        assert_non_null(scsi_id_of_page(lio_page, length, *state));
    page[3] = 0xff;
    page[7] = 0xff;
    assert_non_null(scsi_id_of_page(page, sizeof page, *state));
}

static void answers_to_reservations_are_read_within_their_bounds(void **state)
{
    struct reservation *r = ARENA_NEW(*state, struct reservation);
    unsigned char keys[24] = {[7] = 16, [8] = 0x53, [15] = 1, [16] = 0x53, [23] = 2};
    unsigned char holder[24] = {[7] = 16, [8] = 0x53, [15] = 2, [21] = 0x05};
    assert_true(reservation_parse_keys(keys, sizeof keys, r));
    assert_int_equal(r->count, 2);
    assert_int_equal(r->keys[1], UINT64_C(0x5300000000000002));
    assert_true(reservation_parse_holder(holder, sizeof holder, r));
    assert_int_equal(r->holder, UINT64_C(0x5300000000000002));
    assert_int_equal(r->type, 5);
    assert_false(reservation_parse_keys(keys, 7, r) || reservation_parse_keys(keys, 16, r) ||
                 reservation_parse_holder(holder, 23, r));
    keys[7] = 15;
    assert_false(reservation_parse_keys(keys, sizeof keys, r));
    holder[7] = 0;
    assert_true(reservation_parse_holder(holder, sizeof holder, r));
    assert_int_equal(r->holder, 0);
}

static void a_key_names_server_and_epoch(void **state)
{
    (void) state;
    struct uuid server;
    assert_true(uuid_parse_text("abcd1234-2222-4333-8444-555555555555", &server));
    assert_int_equal(fence_key(&server, 7), UINT64_C(0x53abcd0000000007));
    assert_int_equal(fence_key(&server, (UINT64_C(1) << 39) + 7), fence_key(&server, 7));
    assert_int_equal(fence_key_after(&server, 7), UINT64_C(0x53abcd8000000007));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_life_is_one_command_a_step, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(what_refuses_has_its_code, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(nothing_that_is_offered_is_no_daemon_that_does_not_run, arena_setup,
                                        arena_teardown),
        cmocka_unit_test_setup_teardown(offers_that_are_none_are_left_out, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(passwords_are_in_records_that_only_their_owner_reads, arena_setup,
                                        arena_teardown),
        cmocka_unit_test_setup_teardown(an_end_removes_what_bears_the_name_and_nothing_else, arena_setup,
                                        arena_teardown),
        cmocka_unit_test(a_password_cannot_become_two_lines),
        cmocka_unit_test(addresses_are_equal_when_they_mean_the_same),
        cmocka_unit_test(portals_are_taken_apart),
        cmocka_unit_test(names_are_as_rfc_3720_has_them),
        cmocka_unit_test(what_device_config_gets_wrong_has_its_code),
        cmocka_unit_test(md5_is_md5),
        cmocka_unit_test_setup_teardown(a_lun_is_known_by_its_best_designator, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(answers_to_reservations_are_read_within_their_bounds, arena_setup,
                                        arena_teardown),
        cmocka_unit_test(a_key_names_server_and_epoch),
    };
    if (!mkdtemp(database))
        return 1;
    iscsiadm_database = database;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    rmdir(arena_printf(a, "%s/nodes", database));
    rmdir(arena_printf(a, "%s/ifaces", database));
    rmdir(database);
    return failed;
}
