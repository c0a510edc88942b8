/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon: reads its settings, wires the parts together, waits for the signal to end. */
#include "handlers/dispatch.h"
#include "server/base/log.h"
#include "server/base/point.h"
#include "server/config.h"
#include "server/host.h"
#include "server/https.h"
#include "server/permissions.h"
#include "server/tls.h"
#include "server/wire/write.h"
#include "server/workers.h"
#include "store/schema.h"
#include "store/store.h"
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Exit statuses, of sysexits(3). */
enum { EXIT_USAGE = 64, EXIT_SYSTEM = 71, EXIT_IN_USE = 75, EXIT_SETTINGS = 78 };

enum { LARGE_BLOCK = 128 * 1024 };

#define CONFIG_FILE "/etc/smapid/smapid.conf"
#define TEXT_MAX    (4U << 20)

/* What the command line asks for. */
struct order {
    enum { SERVE, CHECK, PRINT, DESCRIBE, VERSION, HELP } what;
    const char *config; /* NULL: CONFIG_FILE, if it is there */
    const char **sets;  /* of --set, in order; count of them */
    size_t count;
};

static const char help[] =
    "usage: smapid [--config FILE] [--set SECTION.KEY=VALUE]... [--check-config | --print-config]\n"
    "       smapid --describe | --version | --help\n"
    "\n"
    "  --config FILE       read the settings from FILE, not from " CONFIG_FILE "\n"
    "  --set S.KEY=VALUE   change one setting; stands above the file\n"
    "  --check-config      say whether it could start with these settings, and exit\n"
    "  --print-config      print all settings with their sentences, and exit\n"
    "  --describe          print methods, faults, types, settings and fault points as JSON, and exit\n";

static int read_order(int argc, char **argv, struct order *o)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},   {"set", required_argument, NULL, 's'},
        {"check-config", no_argument, NULL, CHECK}, {"print-config", no_argument, NULL, PRINT},
        {"describe", no_argument, NULL, DESCRIBE},  {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},          {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == '?')
            return -1;
        if (c == 'c')
            o->config = optarg;
        else if (c == 's')
            o->sets[o->count++] = optarg;
        else
            o->what = (unsigned) c;
    }
    if (optind < argc)
        fprintf(stderr, "smapid: \"%s\" is no option\n", argv[optind]);
    return optind < argc ? -1 : 0;
}

static int read_settings(const struct order *o, struct settings *s, struct fault *f)
{
    bool there = o->config || access(CONFIG_FILE, F_OK) == 0;
    if (there && settings_read(s, o->config ? o->config : CONFIG_FILE, f) < 0)
        return -1;
    for (size_t i = 0; i < o->count; i++)
        if (settings_assign(s, o->sets[i], f) < 0)
            return -1;
    return settings_check(s, f);
}

/* Everything that lives as long as the daemon, in the order in which it is made. */
struct daemon {
    const struct settings *settings;
    struct tls *tls;
    struct permissions *permissions;
    struct uuid host;
    struct store *store;
    struct workers *workers;
    struct dispatch *dispatch;
    struct arena *arena; /* what recoveries need */
    struct https *https;
    char versions[256];
};

/* No core file and no debugger may see keys and secrets; a broken connection is an error, not a signal. The signals
   we obey are blocked in every thread and waited for in main. */
static void harden(sigset_t *ends)
{
    const struct rlimit no_core = {0, 0};
    struct rlimit files;
    umask(077);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &no_core);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(ends);
    sigaddset(ends, SIGTERM);
    sigaddset(ends, SIGINT);
    sigaddset(ends, SIGHUP);
    pthread_sigmask(SIG_BLOCK, ends, NULL);
}

/* Makes the last component of path when it is missing. */
static int make_directory(const char *path, mode_t mode, struct fault *f)
{
    if (mkdir(path, mode) < 0)
        return errno == EEXIST ? 0 : fault_errno(f, FAULT_EIO, "make %s", path);
    return chmod(path, mode) < 0 ? fault_errno(f, FAULT_EIO, "set the mode of %s", path) : 0;
}

static int load_tls(const struct settings *s, struct tls **out, struct fault *f)
{
    const struct tls_files files = {s->tls_certificate, s->tls_key, s->tls_client_ca};
    return s->server_listen[0] ? tls_load(&files, out, f) : 0;
}

static int make_places(struct daemon *d, struct fault *f)
{
    const struct settings *s = d->settings;
    if (make_directory(s->server_state, 0700, f) < 0 || make_directory(s->server_mount_base, 0755, f) < 0)
        return -1;
    return host_uuid(&s->server_host, HOST_INVENTORY, s->server_state, &d->host, f);
}

static int start_calls(struct daemon *d, struct fault *f)
{
    const struct settings *s = d->settings;
    const struct workers_settings pool = {s->limits_workers, s->limits_sr_workers, s->limits_sr_queue};
    const struct dispatch_settings calls = {.store = d->store,
                                            .backend = {s->server_mount_base, store_meta(d->store).server},
                                            .permissions = d->permissions,
                                            .multicall_max = s->limits_multicall,
                                            .write_result = wire_write_result,
                                            .write_fault = wire_write_fault,
                                            .write_multicall = wire_write_multicall};
    if (dispatch_new(&calls, &d->dispatch, f) < 0)
        return -1;
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
    d->arena = arena_new(64U << 20);
    if (dispatch_recoveries(d->dispatch, d->arena, &srs, &count) < 0)
        return fault_set(f, FAULT_EIO, "the list of repositories to recover cannot be read");
    for (size_t i = 0; i < count; i++) {
        struct recovery *r = ARENA_NEW(d->arena, struct recovery);
        *r = (struct recovery){d->dispatch, srs[i]};
        struct turn turn = {.lock = LOCK_WHOLE, .sr = srs[i]};
        if (workers_submit(d->workers, &turn, recover, r, f) < 0)
            return -1;
    }
    if (count > 0)
        log_line(LOG_INFO, "repositories to recover: %zu", count);
    return 0;
}

static int open_doors(struct daemon *d, struct fault *f)
{
    const struct settings *s = d->settings;
    snprintf(d->versions, sizeof d->versions, "{\"smapid\": \"%s\", \"api\": \"1.1\", \"schema\": %zu}\n",
             SMAPI_VERSION, schema_newest());
    const struct https_settings doors = {.address = s->server_listen,
                                         .port = s->server_port,
                                         .tls = d->tls,
                                         .socket = s->server_socket,
                                         .connections = s->limits_connections,
                                         .idle_seconds = s->limits_idle_seconds,
                                         .host = d->host,
                                         .dispatch = d->dispatch,
                                         .workers = d->workers,
                                         .versions = d->versions};
    return https_start(&doors, &d->https, f);
}

/* 0, or the exit status that says why not. */
static int start(struct daemon *d, struct fault *f)
{
    bool in_use = false;
    d->permissions = permissions_new();
    if (load_tls(d->settings, &d->tls, f) < 0 ||
        permissions_load(d->permissions, d->settings->server_permissions, f) < 0)
        return EXIT_SETTINGS;
    if (make_places(d, f) < 0)
        return EXIT_SYSTEM;
    if (store_open(d->settings->server_state, &d->store, &in_use, f) < 0)
        return in_use ? EXIT_IN_USE : EXIT_SYSTEM;
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
    arena_free(d->arena);
    permissions_free(d->permissions);
    tls_free(d->tls);
}

static void log_ready(const struct daemon *d)
{
    const struct settings *s = d->settings;
    bool tcp = s->server_listen[0], v6 = strchr(s->server_listen, ':');
    char where[128] = "";
    if (tcp)
        snprintf(where, sizeof where, v6 ? " https [%s]:%u" : " https %s:%u", s->server_listen, https_port(d->https));
    log_line(LOG_INFO, "smapid %s ready:%s%s%s host %s", SMAPI_VERSION, where, s->server_socket[0] ? " socket " : "",
             s->server_socket, d->host.text);
}

/* What cannot be read leaves what was there in force. */
static void reload(const struct daemon *d)
{
    struct fault f;
    if (permissions_load(d->permissions, d->settings->server_permissions, &f) < 0)
        log_line(LOG_ERROR, "the permissions stay as they were: %s", f.detail);
    else
        log_line(LOG_INFO, "reloaded");
}

static int serve(const struct settings *settings)
{
    struct daemon d = {.settings = settings};
    struct fault f = {0};
    sigset_t ends;
    int signal_number = 0;
    harden(&ends);
    /* The C library raises this limit by itself when a larger block is freed, and from then on each worker thread keeps
       the most memory that a call ever took on it: 37 MB after a scan of 100,000 disks. */
    mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK);
    int status = start(&d, &f);
    if (status == 0) {
        log_ready(&d);
        while (sigwait(&ends, &signal_number) == 0 && signal_number == SIGHUP)
            reload(&d);
        log_line(LOG_INFO, "%s: answering what is under way", strsignal(signal_number));
    } else {
        log_line(LOG_ERROR, "%s", f.detail);
    }
    stop(&d);
    return status;
}

static int check(const struct settings *s)
{
    struct tls *tls = NULL;
    struct permissions *permissions = permissions_new();
    struct fault f;
    int r = load_tls(s, &tls, &f);
    if (r == 0)
        r = permissions_load(permissions, s->server_permissions, &f);
    if (r < 0)
        fprintf(stderr, "smapid: %s\n", f.detail);
    permissions_free(permissions);
    tls_free(tls);
    return r < 0 ? EXIT_SETTINGS : 0;
}

static int print(const struct text *t)
{
    bool written = t->data && !t->full && fputs(t->data, stdout) >= 0 && fflush(stdout) == 0;
    return written ? 0 : EXIT_SYSTEM;
}

static int describe(void)
{
    AUTO_TEXT struct text t = TEXT_OF(TEXT_MAX);
    dispatch_describe(&t);
    return print(&t);
}

static int print_settings(const struct settings *s)
{
    AUTO_TEXT struct text t = TEXT_OF(TEXT_MAX);
    settings_print(s, &t);
    return print(&t);
}

static int obey_with_settings(const struct order *o)
{
    struct settings s;
    struct fault f;
    settings_default(&s);
    if (read_settings(o, &s, &f) < 0) {
        fprintf(stderr, "smapid: %s\n", f.detail);
        return EXIT_SETTINGS;
    }
    if (o->what == PRINT)
        return print_settings(&s);
    if (o->what == CHECK)
        return check(&s);
    log_set_level(s.log_level);
    return serve(&s);
}

static int obey(const struct order *o)
{
    switch (o->what) {
    case HELP:
        return fputs(help, stdout) < 0;
    case VERSION:
        return puts("smapid " SMAPI_VERSION) < 0;
    case DESCRIBE:
        return describe();
    case SERVE:
    case CHECK:
    case PRINT:
        break;
    }
    if (point_arm_from_environment() < 0) {
        fprintf(stderr, "smapid: SMAPI_POINT names no fault point and action\n");
        return EXIT_SETTINGS;
    }
    return obey_with_settings(o);
}

int main(int argc, char **argv)
{
    AUTO_FREE const char **sets = calloc((size_t) argc, sizeof *sets);
    struct order o = {.what = SERVE, .sets = sets};
    if (!sets || read_order(argc, argv, &o) < 0) {
        fprintf(stderr, "Try smapid --help.\n");
        return EXIT_USAGE;
    }
    return obey(&o);
}
