/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount.nfs, showmount, mount.cifs, umount, mkfs.ext4 and e2fsck, as recorded: what they are told, and what their
 * answers mean. */
#include "backends/tools/ext.h"
#include "backends/tools/mounts.h"
#include "backends/tools/nfs.h"
#include "backends/tools/smb.h"
#include "tests/unit/check.h"
#include "tests/unit/replay_help.h"
#include <string.h>

struct fixture {
    struct arena *a;
    struct fault f;
};

static int setup(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    x->a = arena_new(64U << 20);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    arena_free(x->a);
    free(x);
    return 0;
}

static void mount_nfs_is_told_all_and_its_reasons_have_their_codes(void **state)
{
    struct fixture *x = *state;
    struct nfs_source s = {
        .server = "127.0.0.1", .path = "/export/sr", .version = "4.2", .hard = true, .options = "", .hold = -1};
    struct nfs_source more = s, six = s, nowhere = s;
    more.options = "noac";
    six.server = "::1";
    six.hard = false;
    six.version = "3";
    nowhere.server = "nowhere.invalid";
    const struct {
        const struct nfs_source *source;
        enum fault_code code;
    } refused[] = {{&s, FAULT_NFSVersion}, {&s, FAULT_ConfigServerPathBad}, {&s, FAULT_NFSMount},
                   {&s, FAULT_NFSTarget},  {&nowhere, FAULT_DNSError},      {&s, FAULT_NFSMount},
                   {&s, FAULT_InvalidDev}};
    replay_start("nfs/mounts");
    assert_int_equal(nfs_mount(&s, "/run/sr-mount/sr", x->a, &x->f), 0);
    assert_int_equal(nfs_mount(&more, "/run/sr-mount/sr", x->a, &x->f), 0);
    assert_int_equal(nfs_mount(&six, "/run/sr-mount/sr", x->a, &x->f), 0);
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        assert_int_equal(nfs_mount(refused[i].source, "/run/sr-mount/sr", x->a, &x->f), -1);
        assert_int_equal(x->f.code, refused[i].code);
        assert_true(x->f.code == FAULT_InvalidDev || strstr(x->f.detail, refused[i].source->server));
    }
    replay_end();
}

static void exports_are_a_document(void **state)
{
    struct fixture *x = *state;
    replay_start("nfs/exports");
    assert_string_equal(nfs_exports("filer", x->a),
                        "<?xml version=\"1.0\" ?>\n<nfs-exports>\n"
                        "\t<Export>\n\t\t<Target>filer</Target>\n\t\t<Path>/a&lt;b</Path>\n"
                        "\t\t<Accesslist>*</Accesslist>\n\t</Export>\n"
                        "\t<Export>\n\t\t<Target>filer</Target>\n\t\t<Path>/export</Path>\n"
                        "\t\t<Accesslist>*</Accesslist>\n\t</Export>\n"
                        "\t<Export>\n\t\t<Target>filer</Target>\n\t\t<Path>/</Path>\n"
                        "\t\t<Accesslist>*</Accesslist>\n\t</Export>\n"
                        "\t<Export>\n\t\t<Target>filer</Target>\n\t\t<Path>/with blank</Path>\n"
                        "\t\t<Accesslist>10.1.0.0/16,10.0.0.0/8</Accesslist>\n\t</Export>\n"
                        "</nfs-exports>\n");
    assert_null(nfs_exports("filer", x->a));
    replay_end();
}

static void mount_cifs_gets_its_password_on_standard_input(void **state)
{
    struct fixture *x = *state;
    struct smb_source s = {
        .share = "//filer/iso", .version = "3.0", .user = "user", .password = {"p,w"}, .options = "", .hold = -1};
    struct smb_source domain = s, guest = s, nothing = s, nowhere = s, forged = s;
    domain.user = "DOM\\user";
    domain.options = "seal";
    guest.user = nowhere.user = "";
    nothing.share = "//filer/nothing";
    nowhere.share = "//nowhere.invalid/iso";
    forged.password.hidden = "p\nusername=root";
    replay_start("smb/mounts");
    assert_int_equal(smb_mount(&s, "/run/sr-mount/sr", x->a, &x->f), 0);
    assert_int_equal(smb_mount(&domain, "/run/sr-mount/sr", x->a, &x->f), 0);
    const struct {
        const struct smb_source *source;
        enum fault_code code;
    } refused[] = {{&guest, FAULT_ISOSharenameFailure},
                   {&nothing, FAULT_ISOSharenameFailure},
                   {&nowhere, FAULT_DNSError},
                   {&guest, FAULT_ISOMountFailure}}; /* nobody is there any more */
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        assert_int_equal(smb_mount(refused[i].source, "/run/sr-mount/sr", x->a, &x->f), -1);
        assert_int_equal(x->f.code, refused[i].code);
    }
    replay_end();
    assert_int_equal(smb_mount(&forged, "/run/sr-mount/sr", x->a, &x->f), -1);
    assert_int_equal(x->f.code, FAULT_BadCharacter);
}

static void what_does_not_let_go_is_taken_out_by_force(void **state)
{
    struct fixture *x = *state;
    replay_start("mounts/unmounts");
    assert_int_equal(mounts_unmount("/run/sr-mount/sr", -1, FAULT_NFSUnMount, x->a, &x->f), 0);
    assert_int_equal(mounts_unmount("/run/sr-mount/sr", -1, FAULT_NFSUnMount, x->a, &x->f), -1);
    assert_int_equal(x->f.code, FAULT_NFSUnMount);
    assert_non_null(strstr(x->f.detail, "target is busy"));
    assert_int_equal(mounts_unmount("/run/sr-mount/sr", -1, FAULT_NFSUnMount, x->a, &x->f), 0);
    replay_end();
}

static void what_is_mounted_is_known_from_the_kernel(void **state)
{
    struct fixture *x = *state;
    struct mounted m;
    assert_int_equal(mounts_find("/proc", x->a, &m, &x->f), 0);
    assert_true(m.there);
    assert_string_equal(m.type, "proc");
    assert_int_equal(mounts_find("/proc/self", x->a, &m, &x->f), 0);
    assert_false(m.there);
}

static void a_file_system_is_made_unforced_and_checked_unasked(void **state)
{
    struct fixture *x = *state;
    struct uuid op;
    assert_true(uuid_parse_text("01234567-89ab-4def-8123-456789abcdef", &op));
    replay_start("ext/file_systems");
    assert_int_equal(ext_make("/dev/g/v", &op, -1, x->a, &x->f), 0);
    assert_int_equal(ext_make("/dev/g/v", &op, -1, x->a, &x->f), -1);
    assert_int_equal(x->f.code, FAULT_LVMFilesystem);
    assert_int_equal(ext_check("/dev/g/v", -1, x->a, &x->f), 0);
    assert_int_equal(ext_check("/dev/g/v", -1, x->a, &x->f), 0);
    assert_int_equal(ext_check("/dev/g/v", -1, x->a, &x->f), -1);
    assert_int_equal(x->f.code, FAULT_LVMMount);
    assert_non_null(strstr(x->f.detail, "RUN fsck MANUALLY"));
    assert_int_equal(ext_check("/dev/g/v", -1, x->a, &x->f), -1);
    assert_int_equal(x->f.code, FAULT_InvalidDev);
    replay_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(mount_nfs_is_told_all_and_its_reasons_have_their_codes, setup, teardown),
        cmocka_unit_test_setup_teardown(exports_are_a_document, setup, teardown),
        cmocka_unit_test_setup_teardown(mount_cifs_gets_its_password_on_standard_input, setup, teardown),
        cmocka_unit_test_setup_teardown(what_does_not_let_go_is_taken_out_by_force, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_system_is_made_unforced_and_checked_unasked, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_mounted_is_known_from_the_kernel, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
