/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Introspection, from the rows. */
#include "handlers/state.h"

static int system_listMethods_act(struct dispatch *d, struct call *c, struct fault *f)
{
    size_t count;
    const struct method *rows = method_rows(&count);
    (void) d;
    (void) f;
    c->result = value_array(c->arena);
    for (size_t i = 0; i < count; i++)
        value_append(c->arena, c->result, value_string(c->arena, rows[i].name));
    return 0;
}

const struct phases system_listMethods_phases = {.act = system_listMethods_act};

static int asked_method(const struct call *c, const char *name, const struct method **out, struct fault *f)
{
    *out = method_find(name);
    return *out ? 0 : fault_set(f, FAULT_BadRequest, "%s: there is no method \"%.40s\"", c->method->name, name);
}

/* XML-RPC's own type names. */
static const char *param_type(enum param_kind kind)
{
    return kind == PARAM_array ? "array" : "string";
}

static const char *result_type(enum result_kind kind)
{
    static const char *const names[] = {"nil", "string", "struct", "struct", "struct", "array"};
    return names[kind];
}

static bool is_plain(const struct method *m)
{
    return !m->params->name || m->params->place == PLACE_PLAIN;
}

static int system_methodSignature_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct method *m;
    struct arena *a = c->arena;
    (void) d;
    if (asked_method(c, ARGS(c, system_methodSignature)->method, &m, f) < 0)
        return -1;
    struct value *signature = value_array(a);
    value_append(a, signature, value_string(a, result_type(m->result)));
    if (!is_plain(m))
        value_append(a, signature, value_string(a, "struct"));
    for (const struct param *p = m->params; p->name; p++)
        if (p->place == PLACE_PLAIN)
            value_append(a, signature, value_string(a, param_type(p->kind)));
    c->result = value_array(a);
    value_append(a, c->result, signature);
    return 0;
}

const struct phases system_methodSignature_phases = {.act = system_methodSignature_act};

static void help_param(struct text *out, const struct param *p, int argument)
{
    if (p->place == PLACE_ARG)
        text_printf(out, "  args[%d] %s", argument, p->name);
    else
        text_printf(out, "  %s", p->name);
    text_printf(out, " (%s%s): %s\n", param_kind_name(p->kind), p->required ? "" : ", optional", p->text);
}

static int system_methodHelp_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct method *m;
    int argument = 0;
    AUTO_TEXT struct text out = TEXT_OF(16 << 10);
    (void) d;
    if (asked_method(c, ARGS(c, system_methodHelp)->method, &m, f) < 0)
        return -1;
    text_printf(&out, "%s: %s.\n", m->name, m->text);
    for (const struct param *p = m->params; p->name; p++)
        help_param(&out, p, p->place == PLACE_ARG ? argument++ : 0);
    c->result = value_string(c->arena, out.data);
    return 0;
}

const struct phases system_methodHelp_phases = {.act = system_methodHelp_act};

/* Not faults_interop: the fault codes here are the specification's. */
static const struct {
    const char *name, *url;
    int version;
} conventions[] = {{"xmlrpc", "http://www.xmlrpc.com/spec", 1},
                   {"introspection", "http://xmlrpc-c.sourceforge.net/introspection.html", 1},
                   {"system.multicall", "http://www.xmlrpc.com/discuss/msgReader$1208", 1},
                   {"nil", "http://ontosys.com/xml-rpc/extensions.php", 1}};

static int system_getCapabilities_act(struct dispatch *d, struct call *c, struct fault *f)
{
    struct arena *a = c->arena;
    (void) d;
    (void) f;
    c->result = value_struct(a);
    for (size_t i = 0; i < COUNT_OF(conventions); i++) {
        struct value *v = value_struct(a);
        value_put(a, v, "specUrl", value_string(a, conventions[i].url));
        value_put(a, v, "specVersion", value_integer(a, conventions[i].version));
        value_put(a, c->result, conventions[i].name, v);
    }
    return 0;
}

const struct phases system_getCapabilities_phases = {.act = system_getCapabilities_act};
