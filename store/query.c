/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/query.h"

#include <assert.h>
#include <sqlite3.h>
#include <string.h>

static int bind_one(sqlite3_stmt *stmt, int at, const struct bind *b)
{
    switch (b->kind) {
    case BIND_NUMBER:
        return sqlite3_bind_int64(stmt, at, b->number);
    case BIND_TEXT:
        return sqlite3_bind_text(stmt, at, b->data, -1, SQLITE_STATIC);
    case BIND_BLOB: /* an empty blob is not NULL */
        return sqlite3_bind_blob64(stmt, at, b->length ? b->data : "", b->length, SQLITE_STATIC);
    case BIND_NULL:
        break;
    }
    return sqlite3_bind_null(stmt, at);
}

struct query query_open(struct txn *t, enum statement id, const struct bind *binds, size_t count)
{
    struct query q = {.txn = t, .id = id, .stmt = t->db->statements[id], .bad = SQLITE_OK};
    assert(t->writable || sqlite3_stmt_readonly(q.stmt)); /* store_read changes nothing */
    assert(!sqlite3_stmt_busy(q.stmt));
    assert(sqlite3_bind_parameter_count(q.stmt) == (int) count);
    for (size_t i = 0; i < count && q.bad == SQLITE_OK; i++)
        q.bad = bind_one(q.stmt, (int) i + 1, &binds[i]);
    return q;
}

void query_close(struct query *q)
{
    sqlite3_reset(q->stmt); /* repeats the code of the last step, which was looked at */
    sqlite3_clear_bindings(q->stmt);
}

static enum refused refusal(int code)
{
    switch (code) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
        return REFUSED_UNIQUE;
    case SQLITE_CONSTRAINT_FOREIGNKEY:
        return REFUSED_REFERENCE;
    default:
        return REFUSED_NOT;
    }
}

static int failed(struct query *q, int code, struct fault *f)
{
    struct database *d = q->txn->db;
    const char *name = statement_rows(&(size_t){0})[q->id].name;
    if (database_is_full(d, code)) {
        q->txn->full = true;
        return fault_set(f, FAULT_SRNoSpace, "the store %s is full", d->path);
    }
    int kind = code & 0xff;
    if (d->serving && kind != SQLITE_CONSTRAINT && kind != SQLITE_TOOBIG)
        database_die(d, code, name);
    q->txn->refused = refusal(code);
    return fault_set(f, database_is_damaged(code) ? FAULT_SRUnavailable : FAULT_EIO, "the store %s: %s: %s", d->path,
                     name, sqlite3_errmsg(d->connection));
}

int query_next(struct query *q, struct fault *f)
{
    q->txn->refused = REFUSED_NOT;
    int code = q->bad == SQLITE_OK ? sqlite3_step(q->stmt) : q->bad;
    if (code == SQLITE_ROW)
        return 1;
    if (code == SQLITE_DONE)
        return 0;
    return failed(q, code, f);
}

int query_run(struct query q, struct fault *f)
{
    int more;
    while ((more = query_next(&q, f)) > 0)
        ;
    query_close(&q);
    return more;
}

int64_t query_changed(struct txn *t)
{
    return sqlite3_changes64(t->db->connection);
}

int64_t query_number(struct query *q, int column)
{
    return sqlite3_column_int64(q->stmt, column);
}

uint64_t query_count(struct query *q, int column)
{
    return (uint64_t) query_number(q, column);
}

bool query_flag(struct query *q, int column)
{
    return query_number(q, column) != 0;
}

const char *query_peek(struct query *q, int column)
{
    const unsigned char *text = sqlite3_column_text(q->stmt, column);
    return text ? (const char *) text : "";
}

const char *query_text(struct query *q, int column, struct arena *a)
{
    return arena_text(a, query_peek(q, column));
}

struct uuid query_uuid(struct query *q, int column)
{
    struct uuid u = UUID_NONE;
    uuid_parse_text(query_peek(q, column), &u);
    return u;
}

bool query_is(struct query *q, int column, const void *data, size_t length)
{
    const void *have = sqlite3_column_blob(q->stmt, column);
    size_t have_length = (size_t) sqlite3_column_bytes(q->stmt, column);
    return have_length == length && (length == 0 || memcmp(have, data, length) == 0);
}

const char *query_blob(struct query *q, int column, struct arena *a, size_t *length)
{
    const void *data = sqlite3_column_blob(q->stmt, column);
    *length = (size_t) sqlite3_column_bytes(q->stmt, column);
    return arena_copy(a, data, *length);
}

size_t query_word(struct query *q, int column, const char *const *words, size_t count)
{
    const char *text = query_peek(q, column);
    for (size_t i = 0; i < count; i++)
        if (strcmp(words[i], text) == 0)
            return i;
    database_die(q->txn->db, SQLITE_CORRUPT, text);
}

int query_list(struct query *q, void (*read)(struct query *q, struct arena *a, void *item), size_t size,
               struct arena *a, void *out, size_t *count, struct fault *f)
{
    char *list = NULL;
    size_t n = 0, room = 0;
    int more;
    while ((more = query_next(q, f)) > 0) {
        list = arena_grown(a, list, n, &room, size);
        read(q, a, list + n++ * size);
    }
    if (more < 0)
        return -1;
    memcpy(out, &list, sizeof list); /* whatever it points to */
    *count = n;
    return 0;
}
