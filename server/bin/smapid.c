/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of the daemon; what it does then is daemon.c's. */
#include "handlers/dispatch.h"
#include "server/base/point.h"
#include "server/bin/daemon.h"
#include "server/bin/fsck.h"
#include "server/bin/rebuild.h"
#include "server/bin/take_over.h"
#include <getopt.h>
#include <string.h>

#define TEXT_MAX (4U << 20)

/* What the command line asks for. */
struct order {
    enum { SERVE, CHECK, PRINT, FSCK, REBUILD, TAKE_OVER, DESCRIBE, VERSION, HELP } what;
    struct settings_source source; /* with as many sets as argv has words */
    struct fsck_order fsck;
    struct rebuild_order rebuild; /* with as many srs as argv has words */
    struct take_over_order take_over;
};

static const char help[] =
    "usage: smapid [--config FILE] [--set SECTION.KEY=VALUE]... [--check-config | --print-config]\n"
    "       smapid [--config FILE] [--set SECTION.KEY=VALUE]... --fsck [--strict] [--json] [SR]\n"
    "       smapid [--config FILE] [--set SECTION.KEY=VALUE]... --rebuild [--sr TYPE,uuid=UUID,KEY=VALUE...]...\n"
    "       smapid [--config FILE] [--set SECTION.KEY=VALUE]... --take-over SR [--sr TYPE,KEY=VALUE...]\n"
    "              [--owner SERVER --reason TEXT]\n"
    "       smapid --describe | --version | --help\n"
    "\n"
    "  --config FILE       read the settings from FILE, not from " CONFIG_FILE "\n"
    "  --set S.KEY=VALUE   change one setting; stands above the file\n"
    "  --check-config      say whether it could start with these settings, and exit\n"
    "  --print-config      print all settings with their sentences, and exit\n"
    "  --fsck              say where database, media and leases differ, one line each, and exit: 0 for no difference\n"
    "  --strict            with --fsck: read every image to its last block, and every page of the database\n"
    "  --json              with --fsck: each line a JSON object\n"
    "  --rebuild           make a lost or damaged database anew from the media that this host shows to be this "
    "server's\n"
    "  --sr TYPE,...       with --rebuild: also this repository, its uuid and device_config\n"
    "  --take-over SR      say which server owns the repository, and with --owner make this one its owner\n"
    "  --sr TYPE,...       with --take-over: how this host reaches it, when this server does not know it\n"
    "  --owner SERVER      with --take-over: the server that owns it and is gone for good\n"
    "  --reason TEXT       with --owner: a sentence for the audit trail\n"
    "  --describe          print methods, faults, types, settings and fault points as JSON, and exit\n";

/* What has an argument; false for another. */
static bool read_word(struct order *o, int c)
{
    switch (c) {
    case 'c':
        o->source.config = optarg;
        return true;
    case 's':
        o->source.sets[o->source.count++] = optarg;
        return true;
    case 'R':
        o->rebuild.srs[o->rebuild.count++] = o->take_over.word = optarg;
        return true;
    case 'O':
        o->take_over.owner = optarg;
        return true;
    case 'W':
        o->take_over.reason = optarg;
        return true;
    case TAKE_OVER:
        o->take_over.sr = optarg;
        break;
    default:
        break;
    }
    return false;
}

static bool read_flag(struct order *o, int c)
{
    if (c == 'S')
        o->fsck.strict = true;
    else if (c == 'J')
        o->fsck.json = true;
    else
        o->what = (unsigned) c;
    return true;
}

static int read_order(int argc, char **argv, struct order *o)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"set", required_argument, NULL, 's'},
                                            {"check-config", no_argument, NULL, CHECK},
                                            {"print-config", no_argument, NULL, PRINT},
                                            {"describe", no_argument, NULL, DESCRIBE},
                                            {"version", no_argument, NULL, VERSION},
                                            {"help", no_argument, NULL, HELP},
                                            {"fsck", no_argument, NULL, FSCK},
                                            {"strict", no_argument, NULL, 'S'},
                                            {"json", no_argument, NULL, 'J'},
                                            {"rebuild", no_argument, NULL, REBUILD},
                                            {"sr", required_argument, NULL, 'R'},
                                            {"take-over", required_argument, NULL, TAKE_OVER},
                                            {"owner", required_argument, NULL, 'O'},
                                            {"reason", required_argument, NULL, 'W'},
                                            {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (c == '?' || (!read_word(o, c) && !read_flag(o, c)))
            return -1;
    if (o->what == FSCK && optind < argc)
        o->fsck.sr = argv[optind++];
    if (optind < argc)
        fprintf(stderr, "smapid: \"%s\" is no option\n", argv[optind]);
    return optind < argc ? -1 : 0;
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
    if (settings_gather(&o->source, &s, &f) < 0) {
        fprintf(stderr, "smapid: %s\n", f.detail);
        return EXIT_SETTINGS;
    }
    if (o->what == PRINT)
        return print_settings(&s);
    if (o->what == REBUILD)
        return rebuild_run(&s, &o->rebuild);
    if (o->what == TAKE_OVER)
        return take_over_run(&s, &o->take_over);
    if (o->what == FSCK)
        return fsck_run(&s, &o->fsck);
    if (o->what == CHECK)
        return daemon_check(&s);
    return daemon_serve(&o->source, &s);
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
    case FSCK:
    case REBUILD:
    case TAKE_OVER:
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
    AUTO_FREE const char **srs = calloc((size_t) argc, sizeof *srs);
    struct order o = {.what = SERVE, .source = {.sets = sets}, .rebuild = {.srs = srs}};
    if (!sets || !srs || read_order(argc, argv, &o) < 0) {
        fprintf(stderr, "Try smapid --help.\n");
        return EXIT_USAGE;
    }
    return obey(&o);
}
