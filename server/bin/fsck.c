/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/fsck.h"

#include "handlers/dispatch.h"
#include "server/bin/ask.h"
#include "server/bin/daemon.h"
#include "server/wire/write.h"
#include <string.h>
#include <sys/prctl.h>

enum { MEMORY = 1 << 30 };

/* Whom it asks, and what it found so far. */
struct fsck {
    const struct settings *settings;
    const struct fsck_order *order;
    struct dispatch *d; /* NULL: the daemon */
    struct arena *arena;
    size_t printed;
};

/* ------------------------------------------------------------------ printing */

static void print_json(const char *kind, const char *sr, const char *object, const char *text)
{
    AUTO_TEXT struct text t = TEXT_OF(64 << 10);
    text_add(&t, "{\"kind\": ");
    text_add_json(&t, kind);
    text_add(&t, ", \"sr\": ");
    text_add_json(&t, sr);
    text_add(&t, ", \"object\": ");
    text_add_json(&t, object);
    text_add(&t, ", \"text\": ");
    text_add_json(&t, text);
    text_add(&t, "}");
    puts(t.data);
}

static void print_one(struct fsck *k, const char *kind, const char *sr, const char *object, const char *text)
{
    k->printed++;
    if (k->order->json)
        print_json(kind, sr, object, text);
    else
        printf("%s%s%s%s%s: %s\n", kind, sr[0] ? " SR " : "", sr, object[0] ? " " : "", object, text);
}

/* ------------------------------------------------------------------ the daemon */

static const char *text_of(const struct value *v, const char *name)
{
    const struct value *member = value_get(v, name);
    return member && member->kind == VALUE_STRING ? member->text : "";
}

static void write_body(struct text *t, const struct fsck *k, const char *method, const char *sr, size_t skip,
                       const char *after)
{
    text_printf(t, "<?xml version=\"1.0\"?><methodCall><methodName>%s</methodName><params><param><value><struct>",
                method);
    if (sr[0])
        text_printf(t, "<member><name>sr_uuid</name><value>%s</value></member>", sr);
    if (after[0])
        text_printf(t, "<member><name>after</name><value>%s</value></member>", after);
    text_printf(t, "<member><name>strict</name><value>%s</value></member>", k->order->strict ? "true" : "false");
    text_printf(t, "<member><name>skip</name><value>%zu</value></member>", skip);
    text_add(t, "</struct></value></param></params></methodCall>");
}

static int ask(struct fsck *k, const char *method, const char *sr, size_t skip, const char *after, struct value **out,
               struct fault *f)
{
    bool asked;
    AUTO_TEXT struct text body = TEXT_OF(4096);
    write_body(&body, k, method, sr, skip, after);
    return ask_daemon(k->settings, k->arena, &body, out, &asked, f);
}

/* Prints a page; whether there are more. */
static bool print_page(struct fsck *k, const struct value *v, size_t *skip)
{
    const struct value *list = value_get(v, "differences");
    for (size_t i = 0; list && i < list->count; i++) {
        const struct value *one = list->items[i];
        print_one(k, text_of(one, "kind"), text_of(one, "sr"), text_of(one, "object"), text_of(one, "text"));
    }
    *skip += list ? list->count : 0;
    return list && list->count && *skip < strtoull(text_of(v, "count"), NULL, 10);
}

/* A repository that does not answer is a difference too. */
static void ask_sr(struct fsck *k, const char *sr)
{
    struct fault f = {0};
    struct value *v;
    size_t skip = 0;
    do {
        if (ask(k, "smapi.sr_fsck", sr, skip, "", &v, &f) < 0) {
            print_one(k, finding_rows[FINDING_sr_unsettled].kind, sr, "", f.detail);
            return;
        }
    } while (print_page(k, v, &skip));
}

/* All repositories after this one, a page at a time; *after becomes the last. */
static int ask_page(struct fsck *k, char after[UUID_TEXT + 1], bool *more, struct fault *f)
{
    struct value *v;
    size_t skip = 0;
    bool first = !after[0];
    do {
        if (ask(k, "smapi.fsck", "", skip, after, &v, f) < 0)
            return -1;
    } while (first && print_page(k, v, &skip));
    const struct value *srs = value_get(v, "srs");
    *more = srs && srs->count > 0;
    for (size_t i = 0; *more && i < srs->count; i++) {
        ask_sr(k, srs->items[i]->text);
        snprintf(after, UUID_TEXT + 1, "%s", srs->items[i]->text);
    }
    return 0;
}

static int ask_all(struct fsck *k, struct fault *f)
{
    char after[UUID_TEXT + 1] = "";
    bool more = true;
    if (k->order->sr) {
        ask_sr(k, k->order->sr);
        return 0;
    }
    while (more)
        if (ask_page(k, after, &more, f) < 0)
            return -1;
    return 0;
}

/* ------------------------------------------------------------------ without one */

static void print_findings(struct fsck *k, const struct findings *found)
{
    for (size_t i = 0; i < found->count; i++) {
        const struct finding *one = &found->items[i];
        print_one(k, finding_rows[one->kind].kind, one->sr.text, one->object, one->text);
    }
}

static void look_at_sr(struct fsck *k, const struct uuid *sr)
{
    struct fault f = {0};
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    struct findings found = {.arena = a};
    if (dispatch_look(k->d, sr, &f) < 0)
        print_one(k, finding_rows[FINDING_sr_unreachable].kind, sr->text, "", f.detail);
    else if (dispatch_fsck_sr(k->d, sr, k->order->strict, &found, &f) < 0)
        print_one(k, finding_rows[FINDING_sr_unsettled].kind, sr->text, "", f.detail);
    print_findings(k, &found);
}

static int look_at_all(struct fsck *k, struct fault *f)
{
    struct findings found = {.arena = k->arena};
    struct uuid *srs;
    size_t count;
    if (k->order->sr) {
        struct uuid sr = UUID_NONE;
        uuid_parse_text(k->order->sr, &sr);
        look_at_sr(k, &sr);
        return 0;
    }
    if (dispatch_fsck(k->d, k->order->strict, &found, &srs, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        look_at_sr(k, &srs[i]);
    print_findings(k, &found);
    return 0;
}

static int look(struct fsck *k, bool *in_use, struct fault *f)
{
    struct store *store = NULL;
    if (store_look(k->settings->server_state, &store, in_use, f) < 0)
        return -1;
    const struct dispatch_settings calls = {.store = store,
                                            .backend = {k->settings->server_mount_base, store_meta(store).server},
                                            .looks = true,
                                            .write_result = wire_write_result,
                                            .write_fault = wire_write_fault};
    int r = dispatch_new(&calls, &k->d, f);
    if (r == 0)
        r = look_at_all(k, f);
    dispatch_free(k->d);
    store_close(store);
    return r;
}

/* ------------------------------------------------------------------ both */

/* A database that is in use has a daemon, which is to be asked. */
static int check(struct fsck *k, struct fault *f)
{
    bool in_use = false;
    struct fault looked = {0};
    if (k->settings->server_socket[0] && ask_all(k, f) == 0)
        return 0;
    if (k->settings->server_socket[0] && f->code != FAULT_SRUnavailable)
        return -1;
    if (look(k, &in_use, &looked) == 0)
        return 0;
    if (!in_use || !k->settings->server_socket[0])
        *f = looked;
    return -1;
}

int fsck_run(const struct settings *s, const struct fsck_order *o)
{
    struct fault f = {0};
    struct uuid sr;
    AUTO_ARENA struct arena *arena = arena_new(MEMORY);
    struct fsck k = {.settings = s, .order = o, .arena = arena};
    log_set_level(LOG_ERROR);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (o->sr && !uuid_parse_text(o->sr, &sr)) {
        fprintf(stderr, "smapid: \"%.40s\" is no uuid of a repository\n", o->sr);
        return EXIT_USAGE;
    }
    int r = check(&k, &f);
    if (fflush(stdout) != 0)
        return EXIT_SYSTEM;
    if (r < 0)
        fprintf(stderr, "smapid: %s\n", f.detail);
    return r < 0 ? EXIT_SYSTEM : k.printed ? FSCK_DIFFERENCES : 0;
}
