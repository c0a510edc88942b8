/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/permissions.h"

#include <pthread.h>
#include <string.h>

struct permissions {
    pthread_rwlock_t lock; /* guards table; held for one look-up */
    struct permission_table *table;
};

unsigned role_verbs(enum role role)
{
    switch (role) {
    case ROLE_READER:
        return VERB_READ;
    case ROLE_HOST:
        return VERB_READ | VERB_DATA | VERB_MANAGE;
    case ROLE_OPERATOR:
        return VERB_READ | VERB_DATA | VERB_MANAGE | VERB_BREAK;
    case ROLE_ADMIN:
        return VERB_READ | VERB_DATA | VERB_MANAGE | VERB_BREAK | VERB_ADMIN;
    case ROLE_NONE:
        break;
    }
    return 0;
}

const char *role_name(enum role role)
{
    static const char *const names[ROLE_COUNT] = {"none", "reader", "host", "operator", "admin"};
    return names[role];
}

const char *verb_name(enum verb verb)
{
    switch (verb) {
    case VERB_READ:
        return "read";
    case VERB_DATA:
        return "data";
    case VERB_MANAGE:
        return "manage";
    case VERB_BREAK:
        return "break";
    case VERB_ADMIN:
        return "admin";
    }
    return "";
}

void permission_table_free(struct permission_table *t)
{
    if (t)
        arena_free(t->arena);
}

struct permissions *permissions_new(void)
{
    struct permissions *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    pthread_rwlock_init(&p->lock, NULL);
    return p;
}

void permissions_free(struct permissions *p)
{
    if (!p)
        return;
    permission_table_free(p->table);
    pthread_rwlock_destroy(&p->lock);
    free(p);
}

void permissions_replace(struct permissions *p, struct permission_table *table)
{
    pthread_rwlock_wrlock(&p->lock);
    struct permission_table *old = p->table;
    p->table = table;
    pthread_rwlock_unlock(&p->lock);
    permission_table_free(old);
}

static bool is_pinned(const struct permission_row *row, const struct identity *who)
{
    for (const struct pin *pin = row->pins; pin; pin = pin->next)
        if (memcmp(pin->digest, pin->of_key ? who->key : who->certificate, FINGERPRINT) == 0)
            return true;
    return false;
}

static const struct permission_row *pinned_row(const struct permission_table *t, const struct identity *who)
{
    const struct permission_row *row = t->rows;
    while (row && !is_pinned(row, who))
        row = row->next;
    return row;
}

static const struct permission_row *named_row(const struct permission_table *t, const char *name)
{
    const struct permission_row *row = t->rows;
    while (row && (!row->who.name[0] || strcmp(row->who.name, name) != 0))
        row = row->next;
    return row;
}

static const struct permission_row *role_row(const struct permission_table *t, enum role role)
{
    const struct permission_row *row = t->rows;
    while (row && (row->who.name[0] || row->who.role != role))
        row = row->next;
    return row;
}

static void become(const struct identity *other, struct identity *who)
{
    who->role = other->role;
    who->host = other->host;
    memcpy(who->name, other->name, sizeof who->name);
    memcpy(who->holder, other->holder, sizeof who->holder);
}

static void become_nobody(struct identity *who)
{
    struct identity nobody = {.role = ROLE_NONE};
    snprintf(nobody.name, sizeof nobody.name, "unknown:%.*s", HOLDER_TEXT - 16, who->name);
    memcpy(nobody.holder, nobody.name, sizeof nobody.holder);
    become(&nobody, who);
}

void permissions_identify(struct permissions *p, struct identity *who)
{
    pthread_rwlock_rdlock(&p->lock);
    const struct permission_row *pinned = p->table ? pinned_row(p->table, who) : NULL;
    const struct permission_row *named = p->table && !pinned ? named_row(p->table, who->name) : NULL;
    if (pinned)
        become(&pinned->who, who);
    else if (named && named->pins)
        become_nobody(who);
    pthread_rwlock_unlock(&p->lock);
}

static bool is_local(const struct identity *who)
{
    return who->role == ROLE_ADMIN && strcmp(who->name, "local") == 0;
}

/* The grants that count for who. */
static const struct grant *grants_of(const struct permission_table *t, const struct identity *who)
{
    const struct permission_row *row = named_row(t, who->name);
    if (!row && who->role != ROLE_NONE)
        row = role_row(t, who->role);
    return row ? row->grants : NULL;
}

static unsigned granted_on(const struct grant *g, const struct uuid *sr)
{
    unsigned every = 0;
    for (; g; g = g->next) {
        if (uuid_is(&g->sr) && uuid_equal(&g->sr, sr))
            return g->verbs;
        if (!uuid_is(&g->sr))
            every = g->verbs;
    }
    return every;
}

static unsigned granted_anywhere(const struct grant *g)
{
    unsigned verbs = 0;
    for (; g; g = g->next)
        verbs |= g->verbs;
    return verbs;
}

/* on: NULL for anywhere. */
static unsigned ask(struct permissions *p, const struct identity *who, const struct uuid *on)
{
    unsigned verbs = role_verbs(who->role);
    pthread_rwlock_rdlock(&p->lock);
    if (p->table && !is_local(who)) {
        const struct grant *grants = grants_of(p->table, who);
        verbs &= on ? granted_on(grants, on) : granted_anywhere(grants);
    }
    pthread_rwlock_unlock(&p->lock);
    return verbs;
}

unsigned permissions_on(struct permissions *p, const struct identity *who, const struct uuid *sr)
{
    return ask(p, who, sr);
}

unsigned permissions_anywhere(struct permissions *p, const struct identity *who)
{
    return ask(p, who, NULL);
}
