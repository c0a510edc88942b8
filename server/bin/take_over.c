/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/take_over.h"

#include "handlers/dispatch.h"
#include "server/bin/ask.h"
#include "server/bin/daemon.h"
#include "server/wire/read.h"
#include "server/wire/write.h"
#include <string.h>
#include <sys/prctl.h>

enum { MEMORY = 64 << 20 };

struct take_over {
    const struct settings *settings;
    const struct take_over_order *order;
    struct arena *arena;
    struct uuid sr;
    struct text *body; /* of the methodCall */
    struct value *answer;
};

/* ------------------------------------------------------------------ the call */

static void add_member(struct text *t, const char *name, const char *value)
{
    text_printf(t, "<member><name>%s</name><value>", name);
    text_add_xml(t, value);
    text_add(t, "</value></member>");
}

static int write_body(struct take_over *k, struct fault *f)
{
    const struct take_over_order *o = k->order;
    struct sr_word word = {.type = NULL};
    struct text *t = k->body;
    if (o->word && sr_word_parse(k->arena, o->word, &word, f) < 0)
        return -1;
    text_add(t, "<?xml version=\"1.0\"?><methodCall><methodName>smapi.sr_take_over</methodName><params><param>"
                "<value><struct>");
    add_member(t, "sr_uuid", o->sr);
    if (o->owner)
        add_member(t, "owner", o->owner);
    if (o->reason)
        add_member(t, "reason", o->reason);
    text_add(t, "<member><name>device_config</name><value><struct>");
    if (word.type)
        add_member(t, "type", word.type);
    for (size_t i = 0; i < word.config.count; i++)
        add_member(t, word.config.items[i].key, word.config.items[i].value);
    text_add(t, "</struct></value></member></struct></value></param></params></methodCall>");
    return t->full ? fault_set(f, FAULT_InvalidArg, "the words of the command line are too long") : 0;
}

/* ------------------------------------------------------------------ without a daemon */

static bool recovers(struct dispatch *d, struct arena *a, const struct uuid *sr)
{
    struct uuid *srs = NULL;
    size_t count = 0;
    if (dispatch_recoveries(d, a, &srs, &count) < 0)
        return false;
    for (size_t i = 0; i < count; i++)
        if (uuid_equal(&srs[i], sr))
            return true;
    return false;
}

/* As the daemon would, for whoever may write its database. */
static int call_here(struct take_over *k, struct dispatch *d, struct fault *f)
{
    struct wire_call read;
    struct call c = {.arena = k->arena, .who = {.role = ROLE_ADMIN, .name = "local", .holder = "local"}};
    if (wire_read_call(k->arena, k->body->data, k->body->length, &read, f) < 0)
        return -1;
    if (recovers(d, k->arena, &k->sr))
        dispatch_recover_sr(d, &k->sr);
    if (!dispatch_prepare(d, &c, read.method, read.params, read.count))
        dispatch_run(d, &c);
    *f = c.fault;
    return c.fault.code ? -1 : wire_read_reply(k->arena, c.reply, c.reply_length, &k->answer, f);
}

static int act_here(struct take_over *k, bool *in_use, struct fault *f)
{
    const struct settings *s = k->settings;
    struct store *store = NULL;
    struct dispatch *d = NULL;
    if (store_open(s->server_state, &store, in_use, f) < 0)
        return -1;
    struct permissions *permissions = permissions_new();
    const struct dispatch_settings calls = {.store = store,
                                            .backend = {s->server_mount_base, store_meta(store).server},
                                            .holds = arena_printf(k->arena, "%s/ops", s->server_state),
                                            .hold_seconds = s->limits_recovery_seconds,
                                            .permissions = permissions,
                                            .terms = settings_terms(s),
                                            .write_result = wire_write_result,
                                            .write_fault = wire_write_fault};
    int r = dispatch_new(&calls, &d, f);
    if (r == 0)
        r = call_here(k, d, f);
    dispatch_free(d);
    permissions_free(permissions);
    store_close(store);
    return r;
}

/* ------------------------------------------------------------------ both */

static int act(struct take_over *k, struct fault *f)
{
    bool asked = false, in_use = false;
    struct fault here = {0};
    if (write_body(k, f) < 0)
        return -1;
    if (k->settings->server_socket[0]) {
        int r = ask_daemon(k->settings, k->arena, k->body, &k->answer, &asked, f);
        if (r == 0 || asked || f->code != FAULT_SRUnavailable)
            return r;
    }
    int r = act_here(k, &in_use, &here);
    if (r < 0 && (!in_use || !k->settings->server_socket[0]))
        *f = here;
    return r;
}

static const char *text_of(const struct value *v, const char *name)
{
    const struct value *member = value_get(v, name);
    return member && member->kind == VALUE_STRING ? member->text : "";
}

static int tell(const struct take_over *k)
{
    const struct value *taken = value_get(k->answer, "taken"), *ours = value_get(k->answer, "ours");
    const char *owner = text_of(k->answer, "owner"), *since = text_of(k->answer, "since");
    const char *at = since[0] ? since : "a time that it does not tell";
    if (ours && ours->boolean) {
        printf("SR %s belongs to this server, %s, since %s\n", k->sr.text, owner, at);
        return 0;
    }
    if (!taken || !taken->boolean) {
        printf("SR %s belongs to server %s, since %s; to take it over, name that one with --owner, and the --reason\n",
               k->sr.text, owner, at);
        return TAKE_OVER_NOT;
    }
    printf("SR %s belonged to server %s, since %s; it is this server's now, and can be attached\n", k->sr.text, owner,
           at);
    return 0;
}

int take_over_run(const struct settings *s, const struct take_over_order *o)
{
    struct fault f = {0};
    AUTO_ARENA struct arena *arena = arena_new(MEMORY);
    AUTO_TEXT struct text body = TEXT_OF(64 << 10);
    struct take_over k = {.settings = s, .order = o, .arena = arena, .body = &body};
    log_set_level(LOG_ERROR);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (!uuid_parse_text(o->sr, &k.sr)) {
        fprintf(stderr, "smapid: \"%.40s\" is no uuid of a repository\n", o->sr);
        return EXIT_USAGE;
    }
    int r = act(&k, &f);
    if (r < 0)
        fprintf(stderr, "smapid: %s\n", f.detail);
    int status =
        r < 0 ? (f.code == FAULT_SRUnavailable || f.code == FAULT_SRInUse ? TAKE_OVER_NOT : EXIT_SYSTEM) : tell(&k);
    return fflush(stdout) != 0 ? EXIT_SYSTEM : status;
}
