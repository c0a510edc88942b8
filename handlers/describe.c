/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* smapid --describe: every table as JSON, so that pages, completions and tests can be made from and checked against
   the program itself. */
#include "handlers/dispatch.h"
#include "handlers/method.h"
#include "server/base/point.h"
#include "store/statements.h"

static void field(struct text *out, const char *name, const char *value)
{
    text_printf(out, "%s\"%s\":", out->data[out->length - 1] == '{' ? "" : ",", name);
    text_add_json(out, value);
}

static void open_row(struct text *out, bool first)
{
    text_add(out, first ? "\n  {" : ",\n  {");
}

static void describe_params(struct text *out, const struct method *m)
{
    text_add(out, ",\"params\":[");
    for (const struct param *p = m->params; p->name; p++) {
        text_add(out, p == m->params ? "{" : ",{");
        field(out, "name", p->name);
        field(out, "kind", param_kind_name(p->kind));
        field(out, "need", p->required ? "required" : "optional");
        field(out, "place", place_name(p->place));
        field(out, "text", p->text);
        text_add(out, "}");
    }
    text_add(out, "]");
}

static void describe_methods(struct text *out)
{
    size_t count;
    const struct method *rows = method_rows(&count);
    text_add(out, "\"methods\":[");
    for (size_t i = 0; i < count; i++) {
        open_row(out, i == 0);
        field(out, "name", rows[i].name);
        field(out, "lock", lock_name(rows[i].lock));
        field(out, "capability", capability_name(rows[i].capability));
        field(out, "effect", effect_name(rows[i].effect));
        field(out, "verb", verb_name(rows[i].verb));
        field(out, "result", result_name(rows[i].result));
        field(out, "text", rows[i].text);
        describe_params(out, &rows[i]);
        text_add(out, "}");
    }
    text_add(out, "]");
}

static void describe_roles(struct text *out)
{
    text_add(out, ",\n\"roles\":[");
    for (enum role role = ROLE_NONE; role < ROLE_COUNT; role++) {
        open_row(out, role == ROLE_NONE);
        field(out, "name", role_name(role));
        text_add(out, ",\"verbs\":[");
        for (unsigned verb = VERB_READ, first = 1; verb <= VERB_ADMIN; verb <<= 1) {
            if (role_verbs(role) & verb) {
                text_printf(out, "%s\"%s\"", first ? "" : ",", verb_name((enum verb) verb));
                first = 0;
            }
        }
        text_add(out, "]}");
    }
    text_add(out, "]");
}

static void describe_faults(struct text *out)
{
    size_t count;
    const struct fault_row *rows = fault_rows(&count);
    text_add(out, ",\n\"faults\":[");
    for (size_t i = 0; i < count; i++) {
        open_row(out, i == 0);
        text_printf(out, "\"code\":%d", (int) rows[i].code);
        field(out, "name", rows[i].name);
        field(out, "text", rows[i].text);
        field(out, "when", rows[i].when);
        text_add(out, "}");
    }
    text_add(out, "]");
}

static void describe_keys(struct text *out, const struct sr_type *type)
{
    text_add(out, ",\"keys\":[");
    for (size_t i = 0; i < type->key_count; i++) {
        const struct config_key *key = &type->keys[i];
        text_add(out, i ? ",{" : "{");
        field(out, "key", key->key);
        field(out, "kind", key->kind);
        text_printf(out, ",\"required\":%s,\"missing\":%d,\"bad\":%d", key->required ? "true" : "false",
                    (int) key->missing, (int) key->bad);
        field(out, "text", key->text);
        text_add(out, "}");
    }
    text_add(out, "]");
}

static void describe_types(struct text *out)
{
    size_t count;
    const struct sr_type *rows = sr_types(&count);
    text_add(out, ",\n\"types\":[");
    for (size_t i = 0; i < count; i++) {
        open_row(out, i == 0);
        field(out, "name", rows[i].name);
        field(out, "layout", rows[i].layout->name);
        field(out, "transport", rows[i].transport->name);
        field(out, "content", rows[i].content);
        field(out, "fencing", fencing_name(rows[i].fencing));
        field(out, "title", rows[i].title);
        field(out, "text", rows[i].text);
        text_add(out, ",\"capabilities\":[");
        for (size_t j = 0; j < rows[i].capability_count; j++)
            text_printf(out, "%s\"%s\"", j ? "," : "", rows[i].capabilities[j]);
        text_add(out, "],\"programs\":[");
        for (size_t j = 0; j < rows[i].program_count; j++) {
            text_add(out, j ? ",{" : "{");
            field(out, "path", rows[i].programs[j].path);
            field(out, "package", rows[i].programs[j].package);
            field(out, "asking", rows[i].programs[j].asking);
            field(out, "need", rows[i].programs[j].required ? "required" : "optional");
            text_add(out, "}");
        }
        text_add(out, "],\"offers\":[");
        for (enum capability cap = CAP_NONE, first = 1; cap <= CAP_disk_log; cap++) {
            if (cap != CAP_NONE && backend_offers(&rows[i], cap)) {
                text_printf(out, "%s\"%s\"", first ? "" : ",", capability_name(cap));
                first = 0;
            }
        }
        text_add(out, "]");
        describe_keys(out, &rows[i]);
        text_add(out, "}");
    }
    text_add(out, "]");
}

static void describe_points(struct text *out)
{
    text_add(out, ",\n\"points\":[");
    for (size_t i = 0; i < POINT_COUNT; i++) {
        open_row(out, i == 0);
        field(out, "name", point_rows[i].name);
        field(out, "text", point_rows[i].text);
        text_add(out, "}");
    }
    text_add(out, "]");
}

static void describe_findings(struct text *out)
{
    text_add(out, ",\n\"findings\":[");
    for (size_t i = 0; i < FINDING_COUNT; i++) {
        open_row(out, i == 0);
        field(out, "kind", finding_rows[i].kind);
        field(out, "text", finding_rows[i].text);
        text_add(out, "}");
    }
    text_add(out, "]");
}

static void describe_statements(struct text *out)
{
    size_t count;
    const struct statement_row *rows = statement_rows(&count);
    text_add(out, ",\n\"statements\":[");
    for (size_t i = 0; i < count; i++) {
        open_row(out, i == 0);
        field(out, "name", rows[i].name);
        field(out, "plan", rows[i].plan);
        field(out, "sql", rows[i].sql);
        text_add(out, "}");
    }
    text_add(out, "]");
}

void dispatch_describe(struct text *out)
{
    text_add(out, "{");
    describe_methods(out);
    describe_roles(out);
    describe_faults(out);
    describe_types(out);
    describe_points(out);
    describe_findings(out);
    describe_statements(out);
    text_add(out, "}\n");
}
