/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/guard.h"
#include "backends/images/image.h"
#include "backends/temporary.h"
#include "tests/unit/check.h"
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

/* ------------------------------------------------------------------ types */

static const char *const offered[] = {
    "SR_PROBE",      "SR_UPDATE",         "VDI_CREATE",     "VDI_DELETE",          "VDI_ATTACH",         "VDI_DETACH",
    "VDI_ACTIVATE",  "VDI_RESIZE",        "VDI_DEACTIVATE", "VDI_UPDATE",          "VDI_SNAPSHOT",       "VDI_CLONE",
    "VDI_INTRODUCE", "THIN_PROVISIONING", "VDI_COMPOSE",    "VDI_RESET_ON_BOOT/2", "VDI_GENERATE_CONFIG"};

static bool claims(const struct sr_type *type, const char *name)
{
    for (size_t i = 0; i < type->capability_count; i++)
        if (strcmp(type->capabilities[i], name) == 0)
            return true;
    return false;
}

static void capabilities_are_those_of_the_filled_slots(void **state)
{
    (void) state;
    size_t count;
    const struct sr_type *types = sr_types(&count);
    assert_true(count >= 2);
    for (size_t i = 0; i < count; i++) {
        size_t filled = 0;
        for (size_t c = 0; c < COUNT_OF(offered); c++) {
            bool has = backend_offers_named(&types[i], offered[c]);
            if (has != claims(&types[i], offered[c]))
                fail_msg("type %s and capability %s", types[i].name, offered[c]);
            filled += has;
        }
        assert_int_equal(filled, types[i].capability_count);
    }
}

static void an_empty_slot_offers_nothing(void **state)
{
    (void) state;
    struct layout l = *sr_type_find("file")->layout;
    struct sr_type type = *sr_type_find("file");
    type.layout = &l;
    assert_true(backend_offers(&type, CAP_vdi_resize));
    l.vdi_resize = NULL;
    assert_false(backend_offers(&type, CAP_vdi_resize));
    assert_false(backend_offers_named(&type, "VDI_RESIZE"));
    assert_false(backend_offers(&type, CAP_disk_write));
    assert_true(backend_offers(&type, CAP_NONE));
    assert_false(backend_offers_named(&type, "NOTHING"));
}

static void types_are_found_by_name_only(void **state)
{
    (void) state;
    assert_string_equal(sr_type_find("file")->content, "vhd");
    assert_string_equal(sr_type_find("dummy")->content, "phy");
    assert_null(sr_type_find("File"));
    assert_null(sr_type_find(""));
}

static enum fault_code check_config(const char *type, const char *key, const char *value)
{
    struct fault f = {.code = FAULT_NONE};
    struct pair items[] = {{key, value}};
    struct pairs p = {items, key ? 1 : 0};
    int r = backend_config_check(sr_type_find(type), &p, &f);
    assert_int_equal(r, f.code == FAULT_NONE ? 0 : -1);
    assert_true(r == 0 || f.detail[0]);
    return f.code;
}

static void locations_must_be_plain_absolute_paths(void **state)
{
    (void) state;
    char longest[PATH_MAX + 2] = "";
    for (size_t i = 0; i + 1 < sizeof longest; i += 2)
        memcpy(longest + i, "/a", 2);
    longest[PATH_MAX] = '\0';
    static const char *const bad[] = {"srv",    "./srv",   "/srv/", "//srv",    "/srv//x",    "/srv/./x",
                                      "/srv/.", "/srv/..", "/../x", "/srv/\nx", "/srv/\x7fx", "/srv/\x01"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(check_config("file", "location", bad[i]), FAULT_BadCharacter);
    assert_int_equal(check_config("file", "location", longest), FAULT_BadCharacter);
    longest[PATH_MAX - 2] = '\0';
    assert_int_equal(check_config("file", "location", longest), FAULT_NONE);
    assert_int_equal(check_config("file", "location", "/srv/...x/ä b"), FAULT_NONE);
}

static void missing_and_unknown_keys_have_their_own_faults(void **state)
{
    (void) state;
    struct fault f;
    struct pair items[] = {{"location", "/srv/x"}, {"locaton", "/srv/y"}, {"adopt", "maybe"}, {"SRmaster", "true"}};
    struct pairs p = {items, 2};
    assert_int_equal(check_config("file", NULL, NULL), FAULT_ConfigLocationMissing);
    assert_int_equal(check_config("file", "location", ""), FAULT_ConfigLocationMissing);
    assert_int_equal(check_config("dummy", NULL, NULL), FAULT_NONE);
    assert_int_equal(check_config("dummy", "SRmaster", "anything"), FAULT_NONE);
    assert_int_equal(backend_config_check(sr_type_find("file"), &p, &f), -1);
    assert_int_equal(f.code, FAULT_InvalidArg);
    assert_non_null(strstr(f.detail, "locaton"));
    assert_non_null(strstr(f.detail, "location, adopt"));
    items[1] = items[2];
    assert_int_equal(backend_config_check(sr_type_find("file"), &p, &f), -1);
    assert_int_equal(f.code, FAULT_InvalidArg);
    items[1] = items[3];
    assert_int_equal(backend_config_check(sr_type_find("file"), &p, &f), 0);
}

/* ------------------------------------------------------------------ names, formats */

static void only_our_temporary_names_are_read(void **state)
{
    (void) state;
    struct uuid op = uuid_random(), vdi = uuid_random();
    struct temporary t;
    char name[TEMPORARY_NAME];
    for (int kind = 0; kind < TEMPORARY_KINDS; kind++) {
        temporary_name(name, &op, (enum temporary_kind) kind, &vdi);
        assert_true(temporary_parse(name, &t));
        assert_true((int) t.kind == kind && uuid_equal(&t.uuid, &vdi) && memcmp(t.op8, op.text, 8) == 0);
    }
    static const char *const bad[] = {
        "",
        "sr.smapi",
        "aaaaaaaa-2222-3333-4444-555555555555.smapi",
        "aaaaaaaa-neu-aaaaaaaa-2222-3333-4444-555555555555.smapi",
        "aaaaaaaa-new-aaaaaaaa-2222-3333-4444-555555555555.smap",
        "aaaaaaaa-new-aaaaaaaa-2222-3333-4444-555555555555.smapi2",
        "AAAAAAAA-new-aaaaaaaa-2222-3333-4444-555555555555.smapi",
        "aaaaaaaa-new-AAAAAAAA-2222-3333-4444-555555555555.smapi",
        "aaaaaaaaa-new-aaaaaaaa-2222-3333-4444-555555555555.smapi",
        "aaaaaaaa-new",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(temporary_parse(bad[i], &t));
}

static void only_canonical_names_are_images(void **state)
{
    (void) state;
    struct uuid u;
    assert_ptr_equal(image_format_of_file("aaaaaaaa-2222-3333-4444-555555555555.raw", &u), &image_raw);
    assert_string_equal(u.text, "aaaaaaaa-2222-3333-4444-555555555555");
    assert_null(image_format_of_file("AAAAAAAA-2222-3333-4444-555555555555.raw", &u));
    assert_null(image_format_of_file("aaaaaaaa-2222-3333-4444-555555555555.raw2", &u));
    assert_null(image_format_of_file("aaaaaaaa-2222-3333-4444-555555555555", &u));
    assert_null(image_format_of_file("x.raw", &u));
    assert_ptr_equal(image_format_find("raw"), &image_raw);
    assert_null(image_format_find("cow"));
}

static void raw_sizes_round_up_to_sectors_within_limits(void **state)
{
    (void) state;
    struct fault f;
    uint64_t size;
    assert_int_equal(image_raw.round(0, &size, &f), -1);
    assert_int_equal(f.code, FAULT_VDISize);
    assert_int_equal(image_raw.round(1, &size, &f), 0);
    assert_int_equal(size, 512);
    assert_int_equal(image_raw.round(512, &size, &f), 0);
    assert_int_equal(size, 512);
    assert_int_equal(image_raw.round(INT64_MAX - 511, &size, &f), 0);
    assert_int_equal(size, (uint64_t) INT64_MAX - 511);
    assert_int_equal(image_raw.round((uint64_t) INT64_MAX - 510, &size, &f), -1);
    assert_int_equal(image_raw.round(UINT64_MAX, &size, &f), -1);
}

/* ------------------------------------------------------------------ dummy */

struct dummy {
    struct arena *arena;
    struct backend_settings settings;
    struct sr sr;
    struct deletion deleted;
    struct fault f;
};

static struct dummy *dummy_new(void)
{
    struct dummy *d = calloc(1, sizeof *d);
    d->arena = arena_new(64U << 20);
    d->settings = (struct backend_settings){.mount_base = "/nonexistent", .server = uuid_random()};
    d->sr =
        (struct sr){.uuid = uuid_random(), .type = sr_type_find("dummy"), .settings = &d->settings, .arena = d->arena};
    return d;
}

static void dummy_free(struct dummy *d)
{
    assert_int_equal(backend_sr_detach(&d->sr, &d->f), 0);
    arena_free(d->arena);
    free(d);
}

static struct plan plan_of(const char *method)
{
    return (struct plan){.op = uuid_random(),
                         .method = method,
                         .vdi = uuid_random(),
                         .made = uuid_random(),
                         .base = uuid_random(),
                         .format = "",
                         .name = ""};
}

static struct vdi dummy_disk(struct dummy *d, uint64_t size)
{
    struct plan p = plan_of("vdi_create");
    struct vdi wanted = vdi_blank(), out;
    wanted.uuid = p.vdi;
    wanted.size = size;
    assert_int_equal(backend_vdi_create(&d->sr, &p, &wanted, d->arena, &out, &d->f), 0);
    return out;
}

static void every_call_on_a_dummy_works(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    struct plan p = plan_of("sr_create");
    struct vdi made, base, out;
    struct found_list found = {0};
    const char *path;
    assert_int_equal(backend_sr_create(&d->sr, &p, &d->f), 0);
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    struct vdi disk = dummy_disk(d, 1);
    assert_string_equal(disk.location, disk.uuid.text);

    struct vdi wanted = disk;
    wanted.location = "";
    wanted.read_only = true;
    p = plan_of("vdi_snapshot");
    p.read_only = true;
    assert_int_equal(backend_vdi_fork(&d->sr, &p, &wanted, &disk, d->arena, &made, &base, &d->f), 0);
    assert_true(made.read_only && uuid_equal(&made.parent, &disk.uuid));
    assert_true(uuid_equal(&made.uuid, &p.made) && !uuid_is(&base.uuid));
    wanted.read_only = false;
    p = plan_of("vdi_clone");
    assert_int_equal(backend_vdi_fork(&d->sr, &p, &wanted, &disk, d->arena, &made, &base, &d->f), 0);
    assert_true(!made.read_only && made.size == 1 && uuid_equal(&made.parent, &disk.uuid));

    p = plan_of("vdi_resize");
    p.size = 4096;
    assert_int_equal(backend_vdi_resize(&d->sr, &p, &disk, d->arena, &out, &d->f), 0);
    assert_int_equal(out.size, 4096);
    p.size = 10;
    assert_int_equal(backend_vdi_resize(&d->sr, &p, &out, d->arena, &out, &d->f), -1);
    assert_int_equal(d->f.code, FAULT_VDISize);
    p = plan_of("vdi_introduce");
    assert_int_equal(backend_vdi_introduce(&d->sr, &p, "anywhere", d->arena, &out, &d->f), 0);
    assert_string_equal(out.location, "anywhere");
    assert_int_equal(backend_vdi_update(&d->sr, &p, &disk, d->arena, &out, &d->f), 0);
    assert_int_equal(backend_vdi_attach(&d->sr, &disk, true, d->arena, &path, &d->f), 0);
    assert_string_equal(path, "/dev/null");
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 1, true, &d->f), 0);
    assert_int_equal(backend_vdi_deactivate(&d->sr, &disk, &d->f), 0);
    assert_int_equal(backend_vdi_detach(&d->sr, &disk, &d->f), 0);
    assert_int_equal(backend_sr_probe(d->sr.type, &d->sr.config, NULL, &d->settings, d->arena, &found, &d->f), 0);
    assert_int_equal(found.count, 0);
    p = plan_of("vdi_delete");
    p.vdi = disk.uuid;
    assert_int_equal(backend_vdi_delete(&d->sr, &p, &disk, d->arena, &d->deleted, &d->f), 0);
    p = plan_of("sr_delete");
    assert_int_equal(backend_sr_delete(&d->sr, &p, &d->f), 0);
    assert_false(d->sr.connected);
    dummy_free(d);
}

static void a_dummy_scan_reports_the_rows_that_are_served(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    struct vdi_list known = {0}, out;
    struct sr_totals t;
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    for (int i = 0; i < VDI_STATE_COUNT; i++) {
        struct vdi *v = vdi_list_add(d->arena, &known);
        *v = dummy_disk(d, 1000);
        v->state = (enum vdi_state) i;
    }
    assert_int_equal(backend_sr_scan(&d->sr, &known, d->arena, &out, &t, &d->f), 0);
    assert_int_equal(out.count, 3);
    assert_int_equal(t.physical_size, 2000000000000);
    assert_int_equal(t.virtual_allocation, 3000);
    dummy_free(d);
}

static void a_dummy_disk_refuses_writes_of_an_older_epoch(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    struct disk_write *log;
    size_t count;
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    struct vdi disk = dummy_disk(d, 512);
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 5, true, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 5, "first", &d->f), 0);
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 7, true, &d->f), 0);
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 6, true, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 6, "late", &d->f), -1);
    assert_int_equal(d->f.code, FAULT_LockErr);
    assert_non_null(strstr(d->f.detail, "epoch 7"));
    assert_int_equal(backend_disk_write(&d->sr, &disk, 7, "second", &d->f), 0);
    assert_int_equal(backend_disk_log(&d->sr, &disk, d->arena, &log, &count, &d->f), 0);
    assert_int_equal(count, 2);
    assert_string_equal(log[0].data, "first");
    assert_int_equal(log[1].epoch, 7);
    dummy_free(d);
}

static void a_dummy_disk_takes_no_epoch_that_was_not_activated(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    struct vdi disk = dummy_disk(d, 512);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 5, "before", &d->f), -1);
    assert_int_equal(d->f.code, FAULT_LockErr);
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 5, true, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 6, "never given", &d->f), -1);
    assert_int_equal(d->f.code, FAULT_LockErr);
    dummy_free(d);
}

static void a_dummy_disk_takes_only_what_its_writer_writes(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    struct vdi disk = dummy_disk(d, 512);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 5, "no lease", &d->f), -1);
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 5, false, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 5, "a reader", &d->f), -1);
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 6, true, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 7, "never granted", &d->f), -1);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 6, "x", &d->f), 0);
    assert_int_equal(backend_vdi_fence(&d->sr, &disk, "host", 6, &d->f), 0);
    assert_int_equal(backend_vdi_fence(&d->sr, &disk, "host", 6, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 6, "fenced", &d->f), -1);
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 6, true, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 6, "still fenced", &d->f), -1);
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 7, true, &d->f), 0);
    assert_int_equal(backend_vdi_fence(&d->sr, &disk, "host", 6, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 7, "y", &d->f), 0);
    assert_int_equal(backend_vdi_deactivate(&d->sr, &disk, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 7, "released", &d->f), -1);
    dummy_free(d);
}

static void a_type_that_cannot_fence_says_so_and_one_that_can_does(void **state)
{
    (void) state;
    size_t count;
    const struct sr_type *types = sr_types(&count);
    for (size_t i = 0; i < count; i++) {
        bool fences = types[i].fencing == FENCING_VDI || types[i].fencing == FENCING_HOST;
        if (fences != backend_offers(&types[i], CAP_vdi_fence))
            fail_msg("type %s: fencing %s", types[i].name, fencing_name(types[i].fencing));
    }
    struct dummy *d = dummy_new();
    struct vdi disk = vdi_blank();
    assert_int_equal(backend_vdi_fence(&d->sr, &disk, "host", 6, &d->f), -1); /* not attached: nothing is known */
    assert_int_equal(d->f.code, FAULT_SRUnavailable);
    dummy_free(d);
}

static void a_dummy_disk_keeps_a_bounded_log(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    char *big = calloc(1, (1 << 20) + 1);
    memset(big, 'x', 1 << 20);
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    struct vdi disk = dummy_disk(d, 512);
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 1, true, &d->f), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(backend_disk_write(&d->sr, &disk, 1, big, &d->f), 0);
    assert_int_equal(backend_disk_write(&d->sr, &disk, 1, "x", &d->f), -1);
    assert_int_equal(d->f.code, FAULT_SRNoSpace);
    free(big);
    dummy_free(d);
}

struct writer {
    struct dummy *d;
    struct vdi disk;
};

static void *write_many(void *arg)
{
    struct writer *w = arg;
    struct fault f;
    for (uint64_t i = 1; i <= 500; i++) {
        backend_vdi_activate(&w->d->sr, &w->disk, i, true, &f);
        backend_disk_write(&w->d->sr, &w->disk, i, "data", &f);
    }
    return NULL;
}

static void epochs_in_a_dummy_log_never_go_back(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    pthread_t threads[4];
    struct disk_write *log;
    size_t count;
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    struct writer w = {d, dummy_disk(d, 512)};
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_create(&threads[i], NULL, write_many, &w);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(backend_disk_log(&d->sr, &w.disk, d->arena, &log, &count, &d->f), 0);
    assert_true(count >= 500);
    for (size_t i = 1; i < count; i++)
        assert_true(log[i].epoch >= log[i - 1].epoch);
    dummy_free(d);
}

/* ------------------------------------------------------------------ guard */

static void what_is_not_attached_is_refused(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    struct vdi disk = vdi_blank();
    disk.uuid = uuid_random();
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 1, true, &d->f), -1);
    assert_int_equal(d->f.code, FAULT_SRUnavailable);
    assert_int_equal(backend_sr_check(&d->sr, &d->f), -1);
    assert_int_equal(d->f.code, FAULT_SRUnavailable);
    dummy_free(d);
}

static void damaged_disks_are_refused_but_can_be_given_back(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    const char *path;
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    struct vdi disk = dummy_disk(d, 512);
    disk.state = VDI_DAMAGED;
    disk.damage = "torn in two";
    assert_int_equal(backend_vdi_attach(&d->sr, &disk, true, d->arena, &path, &d->f), -1);
    assert_int_equal(d->f.code, FAULT_VDIUnavailable);
    assert_non_null(strstr(d->f.detail, "torn in two"));
    disk.state = VDI_QUARANTINED;
    assert_int_equal(backend_vdi_activate(&d->sr, &disk, 1, true, &d->f), -1);
    assert_int_equal(d->f.code, FAULT_VDIUnavailable);
    assert_int_equal(backend_vdi_deactivate(&d->sr, &disk, &d->f), 0);
    assert_int_equal(backend_vdi_detach(&d->sr, &disk, &d->f), 0);
    dummy_free(d);
}

static void calls_without_a_slot_are_unimplemented(void **state)
{
    (void) state;
    struct dummy *d = dummy_new();
    struct layout empty = {.name = "empty"};
    struct sr_type type = *sr_type_find("dummy");
    struct vdi disk = vdi_blank(), out;
    struct plan p = plan_of("vdi_create");
    type.layout = &empty;
    d->sr.type = &type;
    assert_int_equal(backend_vdi_create(&d->sr, &p, &disk, d->arena, &out, &d->f), -1);
    assert_int_equal(d->f.code, FAULT_Unimplemented);
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), -1);
    assert_int_equal(d->f.code, FAULT_Unimplemented);
    assert_int_equal(backend_vdi_update(&d->sr, &p, &disk, d->arena, &out, &d->f), 0);
    dummy_free(d);
}

static int says_nothing(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                        struct vdi *out, struct fault *f)
{
    (void) sr, (void) plan, (void) wanted, (void) a, (void) out, (void) f;
    return -1;
}

static int makes_another(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                         struct vdi *out, struct fault *f)
{
    (void) sr, (void) plan, (void) a, (void) f;
    *out = *wanted;
    out->uuid = uuid_random();
    return 0;
}

static bool aborts(int (*create)(struct sr *, const struct plan *, const struct vdi *, struct arena *, struct vdi *,
                                 struct fault *))
{
    struct dummy *d = dummy_new();
    struct layout liar = *sr_type_find("dummy")->layout;
    struct sr_type type = *sr_type_find("dummy");
    liar.vdi_create = create;
    type.layout = &liar;
    d->sr.type = &type;
    assert_int_equal(backend_sr_attach(&d->sr, &d->f), 0);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        dummy_disk(d, 1);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    dummy_free(d);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void a_driver_that_breaks_its_promise_ends_the_process(void **state)
{
    (void) state;
    assert_true(aborts(says_nothing));
    assert_true(aborts(makes_another));
    assert_false(aborts(sr_type_find("dummy")->layout->vdi_create));
}

static void versions_are_found_in_what_programs_print(void **state)
{
    (void) state;
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    static const char *const said[][2] = {
        {"  LVM version:     2.03.16(2) (2022-05-18)\n  Library version: 1.02.185\n", "2.03.16"},
        {"mke2fs 1.47.0 (5-Feb-2023)\n", "1.47.0"},
        {"mount.nfs: (linux nfs-utils 2.6.2)\n", "2.6.2"},
        {"umount from util-linux 2.38.1 (libmount 2.38.1)\n", "2.38.1"},
        {"no number, 12, 13. 14 and .5", ""},
        {"", ""},
    };
    for (size_t i = 0; i < COUNT_OF(said); i++)
        assert_string_equal(version_in(said[i][0], a), said[i][1]);
}

static void a_type_whose_program_is_missing_names_it_and_its_package(void **state)
{
    (void) state;
    static const struct program there = {true, "/bin/sh", "dash", "-V"},
                                optional = {false, "/no/such/program", "none", "-V"},
                                gone = {true, "/no/such/program", "some-package", "-V"};
    struct fault f;
    assert_int_equal(sr_type_ready(&(struct sr_type){.name = "x", .programs = &there, .program_count = 1}, &f), 0);
    assert_int_equal(sr_type_ready(&(struct sr_type){.name = "x", .programs = &optional, .program_count = 1}, &f), 0);
    assert_int_equal(sr_type_ready(&(struct sr_type){.name = "x", .programs = &gone, .program_count = 1}, &f), -1);
    assert_int_equal(f.code, FAULT_InvalidDev);
    assert_string_equal(f.detail, "type x needs /no/such/program, of package some-package, which is not installed on "
                                  "this host");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capabilities_are_those_of_the_filled_slots),
        cmocka_unit_test(an_empty_slot_offers_nothing),
        cmocka_unit_test(types_are_found_by_name_only),
        cmocka_unit_test(locations_must_be_plain_absolute_paths),
        cmocka_unit_test(missing_and_unknown_keys_have_their_own_faults),
        cmocka_unit_test(only_our_temporary_names_are_read),
        cmocka_unit_test(only_canonical_names_are_images),
        cmocka_unit_test(raw_sizes_round_up_to_sectors_within_limits),
        cmocka_unit_test(every_call_on_a_dummy_works),
        cmocka_unit_test(a_dummy_scan_reports_the_rows_that_are_served),
        cmocka_unit_test(a_dummy_disk_refuses_writes_of_an_older_epoch),
        cmocka_unit_test(a_dummy_disk_takes_no_epoch_that_was_not_activated),
        cmocka_unit_test(a_dummy_disk_keeps_a_bounded_log),
        cmocka_unit_test(a_dummy_disk_takes_only_what_its_writer_writes),
        cmocka_unit_test(a_type_that_cannot_fence_says_so_and_one_that_can_does),
        cmocka_unit_test(epochs_in_a_dummy_log_never_go_back),
        cmocka_unit_test(what_is_not_attached_is_refused),
        cmocka_unit_test(damaged_disks_are_refused_but_can_be_given_back),
        cmocka_unit_test(calls_without_a_slot_are_unimplemented),
        cmocka_unit_test(a_driver_that_breaks_its_promise_ends_the_process),
        cmocka_unit_test(versions_are_found_in_what_programs_print),
        cmocka_unit_test(a_type_whose_program_is_missing_names_it_and_its_package),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
