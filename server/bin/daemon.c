/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/daemon.h"

#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/host.h"
#include "server/wire/write.h"
#include "store/schema.h"
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Descriptors beside two for each connection: images, the store, pipes of children. */
enum { SPARE_FILES = 4096, ARENAS = 2, LARGE_BLOCK = 128 * 1024 };

int settings_gather(const struct settings_source *source, struct settings *out, struct fault *f)
{
    struct settings s;
    settings_default(&s);
    bool there = source->config || access(CONFIG_FILE, F_OK) == 0;
    if (there && settings_read(&s, source->config ? source->config : CONFIG_FILE, f) < 0)
        return -1;
    for (size_t i = 0; i < source->count; i++)
        if (settings_assign(&s, source->sets[i], f) < 0)
            return -1;
    if (settings_check(&s, f) < 0)
        return -1;
    *out = s;
    return 0;
}

struct https_limits daemon_limits(const struct settings *s)
{
    return (struct https_limits){
        .connections = {.seconds = {[STAGE_HANDSHAKE] = s->limits_handshake_seconds,
                                    [STAGE_IDLE] = s->limits_idle_seconds,
                                    [STAGE_HEAD] = s->limits_head_seconds,
                                    [STAGE_BODY] = s->limits_body_seconds,
                                    [STAGE_ANSWER] = s->limits_answer_seconds},
                        .handshakes = s->limits_handshakes,
                        .per_identity = s->limits_identity_connections},
        .body_bytes = s->limits_body_bytes,
        .call_seconds = s->limits_call_seconds,
    };
}

bool daemon_has_https(const struct daemon *d, const struct settings *s)
{
    return s->server_listen[0] || d->systemd.https >= 0;
}

int daemon_load_tls(const struct daemon *d, const struct settings *s, struct tls **out, struct fault *f)
{
    const struct tls_files files = {s->tls_certificate, s->tls_key, s->tls_client_ca, s->tls_crl};
    return daemon_has_https(d, s) ? tls_load(&files, out, f) : 0;
}

/* As many open files as the connections may need, as far as the kernel lets us. */
static void raise_files(const struct settings *s)
{
    const rlim_t wanted = 2 * (rlim_t) s->limits_connections + SPARE_FILES;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return;
    struct rlimit more = {.rlim_cur = wanted > files.rlim_max ? wanted : files.rlim_max, .rlim_max = files.rlim_max};
    more.rlim_max = more.rlim_cur > files.rlim_max ? more.rlim_cur : files.rlim_max;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &more) == 0 || setrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_max >= wanted)
        return;
    log_line(LOG_WARNING, "limits.connections may need %llu open files, %llu are allowed", (unsigned long long) wanted,
             (unsigned long long) files.rlim_max);
}

/* No core file and no debugger may see keys and secrets; a broken connection is an error, not a signal. The signals
   that are for us are blocked in every thread and waited for in main. Few arenas: what threads free goes back. */
static void harden(sigset_t *ours)
{
    const struct rlimit no_core = {0, 0};
    umask(077);
    mallopt(M_ARENA_MAX, ARENAS);
    /* The C library raises this limit by itself when a larger block is freed, and from then on keeps the most memory
       that a call ever took: 37 MB after a scan of 100,000 disks. */
    mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(ours);
    sigaddset(ours, SIGTERM);
    sigaddset(ours, SIGINT);
    sigaddset(ours, SIGHUP);
    pthread_sigmask(SIG_BLOCK, ours, NULL);
}

/* Makes the last component of path when it is missing. */
static int make_directory(const char *path, mode_t mode, struct fault *f)
{
    if (mkdir(path, mode) < 0)
        return errno == EEXIST ? 0 : fault_errno(f, FAULT_EIO, "make %s", path);
    return chmod(path, mode) < 0 ? fault_errno(f, FAULT_EIO, "set the mode of %s", path) : 0;
}

static int make_places(struct daemon *d, struct fault *f)
{
    const struct settings *s = &d->settings;
    d->holds = arena_printf(d->arena, "%s/ops", s->server_state);
    if (make_directory(s->server_state, 0700, f) < 0 || make_directory(d->holds, 0700, f) < 0 ||
        make_directory(s->server_mount_base, 0755, f) < 0)
        return -1;
    return host_uuid(&s->server_host, HOST_INVENTORY, s->server_state, &d->host, f);
}

static int submit(void *arg, const struct turn *turn, void (*run)(void *), void *job, struct fault *f)
{
    const struct daemon *d = arg;
    const struct job_order order = {.turn = *turn, .run = run, .arg = job};
    return workers_submit(d->workers, &order, f);
}

#define SECONDS(n) ((int64_t) (n) *1000000000)

struct lease_terms settings_terms(const struct settings *s)
{
    return (struct lease_terms){.renew = SECONDS(s->lease_renew),
                                .warn = SECONDS(s->lease_warn),
                                .stop = SECONDS(s->lease_stop),
                                .ttl = SECONDS(s->lease_ttl),
                                .watchdog = SECONDS(s->lease_watchdog),
                                .dead = SECONDS(s->lease_dead)};
}

static bool is_silent(void *dispatch, const struct uuid *sr)
{
    struct fault ignored;
    return dispatch_answers(dispatch, sr, &ignored) < 0;
}

static int start_calls(struct daemon *d, struct fault *f)
{
    const struct settings *s = &d->settings;
    const struct dispatch_settings calls = {.store = d->store,
                                            .backend = {s->server_mount_base, store_meta(d->store).server},
                                            .holds = d->holds,
                                            .hold_seconds = s->limits_recovery_seconds,
                                            .permissions = d->permissions,
                                            .multicall_max = s->limits_multicall,
                                            .terms = settings_terms(s),
                                            .operator_word = s->lease_operator_word == 1,
                                            .submit = submit,
                                            .submit_arg = d,
                                            .write_result = wire_write_result,
                                            .write_fault = wire_write_fault,
                                            .write_multicall = wire_write_multicall};
    d->metrics = metrics_new();
    if (dispatch_new(&calls, &d->dispatch, f) < 0)
        return -1;
    const struct workers_settings pool = {.threads = s->limits_workers,
                                          .lease_threads = s->limits_lease_workers,
                                          .running = s->limits_sr_workers,
                                          .waiting = s->limits_sr_queue,
                                          .silent = is_silent,
                                          .silent_arg = d->dispatch};
    return workers_new(&pool, &d->workers, f);
}

struct recovery {
    struct dispatch *dispatch;
    struct uuid sr;
};

static void recover(void *arg)
{
    const struct recovery *r = arg;
    dispatch_recover_sr(r->dispatch, &r->sr);
}

/* Hands each SR that needs it to a worker; one that hangs keeps nothing else from starting. */
static int start_recoveries(struct daemon *d, struct fault *f)
{
    struct uuid *srs = NULL;
    size_t count = 0;
    if (dispatch_recoveries(d->dispatch, d->arena, &srs, &count) < 0)
        return fault_set(f, FAULT_EIO, "the list of repositories to recover cannot be read");
    for (size_t i = 0; i < count; i++) {
        struct recovery *r = ARENA_NEW(d->arena, struct recovery);
        *r = (struct recovery){d->dispatch, srs[i]};
        const struct job_order order = {.turn = {.lock = LOCK_WHOLE, .sr = srs[i]}, .run = recover, .arg = r};
        if (workers_submit(d->workers, &order, f) < 0)
            return -1;
    }
    if (count > 0)
        log_line(LOG_INFO, "repositories to recover: %zu", count);
    return 0;
}

static void tell_store(void *arg, struct text *out)
{
    const struct daemon *d = arg;
    struct store_counts c = store_counted(d->store);
    metrics_one(out, "smapid_store_commits_total", "counter", "Transactions committed.", c.commits);
    metrics_one(out, "smapid_store_writes_total", "counter", "Pieces of work that were committed.", c.writes);
    metrics_one(out, "smapid_store_reads_total", "counter", "Pieces of work that read.", c.reads);
    metrics_head(out, "smapid_info", "gauge", "The program.");
    metrics_value(out, "smapid_info", "version=\"" SMAPI_VERSION "\"", 1);
}

static int open_doors(struct daemon *d, struct fault *f)
{
    const struct settings *s = &d->settings;
    snprintf(d->versions, sizeof d->versions, "{\"smapid\": \"%s\", \"api\": \"1.1\", \"schema\": %zu}\n",
             SMAPI_VERSION, schema_newest());
    const struct https_settings doors = {.address = s->server_listen,
                                         .port = s->server_port,
                                         .tls = d->tls,
                                         .socket = s->server_socket,
                                         .passed_https = d->systemd.https,
                                         .passed_socket = d->systemd.socket,
                                         .connections = s->limits_connections,
                                         .limits = daemon_limits(s),
                                         .host = d->host,
                                         .dispatch = d->dispatch,
                                         .workers = d->workers,
                                         .metrics = d->metrics,
                                         .more_metrics = tell_store,
                                         .arg = d,
                                         .versions = d->versions};
    return https_start(&doors, &d->https, f);
}

/* 0, or the exit status that says why not. */
static int start(struct daemon *d, struct fault *f)
{
    bool in_use = false;
    d->arena = arena_new(64U << 20);
    d->permissions = permissions_new();
    if (systemd_meet(&d->systemd, f) < 0 || daemon_load_tls(d, &d->settings, &d->tls, f) < 0 ||
        permissions_load(d->permissions, d->settings.server_permissions, f) < 0)
        return EXIT_SETTINGS;
    if (d->tls)
        d->crl_tried = tls_crl_mark(d->tls);
    if (make_places(d, f) < 0)
        return EXIT_SYSTEM;
    if (store_open(d->settings.server_state, &d->store, &in_use, f) < 0)
        return in_use ? EXIT_IN_USE : f->code == FAULT_SRUnavailable ? EXIT_LOST : EXIT_SYSTEM;
    if (start_calls(d, f) < 0 || start_recoveries(d, f) < 0 || open_doors(d, f) < 0)
        return f->code == FAULT_InvalidArg ? EXIT_SETTINGS : EXIT_SYSTEM;
    return 0;
}

/* Answers what is under way, then takes everything down; also after a start that failed half way. */
static void stop(struct daemon *d)
{
    if (d->https)
        https_quiesce(d->https);
    if (d->workers)
        workers_drain(d->workers);
    if (d->https)
        https_stop(d->https);
    workers_stop(d->workers);
    if (d->dispatch)
        dispatch_free(d->dispatch);
    store_close(d->store);
    metrics_free(d->metrics);
    arena_free(d->arena);
    permissions_free(d->permissions);
    tls_release(d->tls);
}

static void say_ready(const struct daemon *d)
{
    const struct settings *s = &d->settings;
    bool tcp = daemon_has_https(d, s), v6 = strchr(s->server_listen, ':');
    const char *address = d->systemd.https >= 0 ? "passed" : s->server_listen;
    const char *path = d->systemd.socket >= 0 ? "passed" : s->server_socket;
    char where[SETTING_MAX + 32] = "";
    if (tcp)
        snprintf(where, sizeof where, v6 ? " https [%s]:%u" : " https %s:%u", address, https_port(d->https));
    log_line(LOG_INFO, "smapid %s ready:%s%s%s host %s", SMAPI_VERSION, where, path[0] ? " socket " : "", path,
             d->host.text);
    systemd_tell(&d->systemd, "READY=1\nSTATUS=Serving%s%s%s", where, path[0] ? " socket " : "", path);
}

static void run_tell_programs(void *arg)
{
    (void) arg;
    dispatch_tell_programs();
}

/* On a worker: nobody waits for it. */
static void tell_programs(const struct daemon *d)
{
    const struct job_order order = {.turn = {.lock = LOCK_ROWS}, .run = run_tell_programs};
    struct fault ignored;
    if (d->settings.log_programs && workers_submit(d->workers, &order, &ignored) < 0)
        log_line(LOG_DEBUG, "versions of programs are not told: %s", ignored.detail);
}

/* ---- while it serves ---- */

/* The clock sd_notify(3) asks for. */
static int64_t monotonic_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void reload(struct daemon *d)
{
    systemd_tell(&d->systemd, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, monotonic_us());
    smapid_reload(d);
    systemd_tell(&d->systemd, "READY=1");
}

static int nothing(struct txn *t, void *arg, struct fault *f)
{
    (void) t;
    (void) arg;
    (void) f;
    return 0;
}

/* Tells the watchdog that all is well, when it is: the store answers. If it never does, this never returns. */
static void tell_alive(const struct daemon *d)
{
    struct fault f;
    if (store_write(d->store, nothing, NULL, &f) == 0)
        systemd_tell(&d->systemd, "WATCHDOG=1");
}

/* Does what comes up, until a signal says that it is over; returns that. */
static int watch(struct daemon *d, const sigset_t *ours)
{
    const struct timespec second = {1, 0};
    int64_t told = clock_boot_ns();
    for (;;) {
        int number = sigtimedwait(ours, NULL, &second);
        if (number == SIGTERM || number == SIGINT)
            return number;
        if (number == SIGHUP)
            reload(d);
        smapid_reload_crl(d);
        if (d->systemd.watchdog_seconds == 0 ||
            clock_boot_ns() - told < (int64_t) d->systemd.watchdog_seconds * 1000000000)
            continue;
        told = clock_boot_ns();
        tell_alive(d);
    }
}

int daemon_serve(const struct settings_source *source, const struct settings *settings)
{
    struct daemon d = {.source = source, .settings = *settings, .systemd = {.https = -1, .socket = -1}};
    struct fault f = {0};
    sigset_t ours;
    log_set_level(settings->log_level);
    harden(&ours);
    raise_files(settings);
    int status = start(&d, &f);
    if (status == 0) {
        say_ready(&d);
        tell_programs(&d);
        int number = watch(&d, &ours);
        log_line(LOG_INFO, "%s: answering what is under way", strsignal(number));
    } else {
        log_line(LOG_ERROR, "%s", f.detail);
    }
    systemd_tell(&d.systemd, "STOPPING=1");
    stop(&d);
    return status;
}

int daemon_check(const struct settings *s)
{
    const struct daemon d = {.systemd = {.https = -1, .socket = -1}};
    struct tls *tls = NULL;
    struct fault f;
    struct permission_table *table = NULL;
    int r = daemon_load_tls(&d, s, &tls, &f);
    if (r == 0)
        r = permissions_read(s->server_permissions, &table, &f);
    if (r < 0)
        fprintf(stderr, "smapid: %s\n", f.detail);
    permission_table_free(table);
    tls_release(tls);
    return r < 0 ? EXIT_SETTINGS : 0;
}
