/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A mount base, a location and an SR of type file in a temporary directory, for the tests of the file layout. */
#ifndef SMAPI_TESTS_FILE_BENCH_H
#define SMAPI_TESTS_FILE_BENCH_H

#include "backends/guard.h"
#include "tests/unit/check.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

#define SR_UUID     "aaaaaaaa-2222-3333-4444-555555555555"
#define SERVER_UUID "bbbbbbbb-2222-3333-4444-555555555555"
#define DISK_UUID   "cccccccc-2222-3333-4444-555555555555"
#define OTHER_UUID  "dddddddd-2222-3333-4444-555555555555"

static inline struct uuid U(const char *text) {
    struct uuid u;
    assert_true(uuid_parse_text(text, &u));
    return u;
}

struct bench {
    char top[64], base[80], location[80];
    struct backend_settings settings;
    struct arena *arena; /* of the SR and of everything a test asks for */
    struct sr *sr;
    struct deletion deleted;
    struct fault fault;
};

static inline void shell(const char *fmt, ...) PRINTF(1, 2);
static inline void shell(const char *fmt, ...)
{
    char command[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* The SR as a daemon that just started has it. */
static inline void bench_restart(struct bench *b)
{
    if (b->sr)
        backend_sr_release(b->sr);
    free(b->sr);
    b->sr = calloc(1, sizeof *b->sr);
    *b->sr = (struct sr){.uuid = U(SR_UUID),
                         .type = sr_type_find("file"),
                         .settings = &b->settings,
                         .arena = b->arena,
                         .place = {.dir = -1}};
    pairs_set(b->arena, &b->sr->config, "location", b->location);
    b->fault = (struct fault){.code = FAULT_NONE};
}

static inline struct bench *bench_new(void)
{
    struct bench *b = calloc(1, sizeof *b);
    snprintf(b->top, sizeof b->top, "/tmp/smapi-file-XXXXXX");
    assert_non_null(mkdtemp(b->top));
    snprintf(b->base, sizeof b->base, "%s/base", b->top);
    snprintf(b->location, sizeof b->location, "%s/sr", b->top);
    b->settings = (struct backend_settings){.mount_base = b->base, .server = U(SERVER_UUID)};
    b->arena = arena_new(256U << 20);
    bench_restart(b);
    return b;
}

static inline void bench_free(struct bench *b)
{
    backend_sr_release(b->sr);
    free(b->sr);
    arena_free(b->arena);
    umount2(b->location, MNT_DETACH);
    shell("rm -rf %s", b->top);
    free(b);
}

static inline struct plan bench_plan(const char *method, const char *vdi)
{
    return (struct plan){.op = uuid_random(),
                         .method = method,
                         .sr = U(SR_UUID),
                         .vdi = vdi ? U(vdi) : UUID_NONE,
                         .format = "",
                         .name = ""};
}

static inline void must(struct bench *b, int r)
{
    if (r < 0)
        fail_msg("fault %d: %s", b->fault.code, b->fault.detail);
}

/* A call that is to be refused with this code; a sentence comes with it. */
static inline void must_fail(struct bench *b, int r, enum fault_code code)
{
    assert_int_equal(r, -1);
    if (b->fault.code != code)
        fail_msg("fault %d: %s", b->fault.code, b->fault.detail);
    assert_true(b->fault.detail[0] != '\0');
    b->fault = (struct fault){.code = FAULT_NONE};
}

static inline void bench_create_sr(struct bench *b)
{
    struct plan p = bench_plan("sr_create", NULL);
    must(b, backend_sr_create(b->sr, &p, &b->fault));
}

static inline struct bench *bench_attached(void)
{
    struct bench *b = bench_new();
    bench_create_sr(b);
    must(b, backend_sr_attach(b->sr, &b->fault));
    return b;
}

static inline struct vdi wanted_disk(const char *uuid, uint64_t size)
{
    struct vdi vdi = vdi_blank();
    vdi.uuid = U(uuid);
    vdi.location = uuid;
    vdi.format = "raw";
    vdi.size = size;
    vdi.label = "label <&> \xc3\xa4";
    vdi.description = "line\nline";
    return vdi;
}

static inline struct vdi bench_create_disk(struct bench *b, const char *uuid, uint64_t size)
{
    struct plan p = bench_plan("vdi_create", uuid);
    struct vdi wanted = wanted_disk(uuid, size), out;
    p.size = size;
    must(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault));
    return out;
}

static inline struct vdi_list bench_scan(struct bench *b, const struct vdi_list *known)
{
    const struct vdi_list none = {0};
    struct vdi_list out;
    struct sr_totals totals;
    must(b, backend_sr_scan(b->sr, known ? known : &none, b->arena, &out, &totals, &b->fault));
    return out;
}

/* Whether name is in the location. */
static inline bool stands(const struct bench *b, const char *name)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", b->location, name);
    return lstat(path, &st) == 0;
}

/* Names in the location, but for "." and "..". */
static inline int entries(const struct bench *b)
{
    int n = 0;
    AUTO_DIR DIR *d = opendir(b->location);
    if (!d)
        return -1;
    while (readdir(d))
        n++;
    return n - 2;
}

#endif
