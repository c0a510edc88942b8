/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One run of a prepared statement inside a piece of work. Internal to store/ and its benchmarks. */
#ifndef SMAPI_STORE_QUERY_H
#define SMAPI_STORE_QUERY_H

#include "server/base/arena.h"
#include "server/base/uuid.h"
#include "store/database.h"
#include "store/store.h"

/* Which constraint refused the last statement. */
enum refused { REFUSED_NOT, REFUSED_UNIQUE, REFUSED_REFERENCE };

struct txn {
    struct database *db;
    bool writable;
    bool full; /* there was no room: the whole transaction is lost */
    enum refused refused;
};

/* A value for a parameter; what it points to must outlive the query. */
struct bind {
    enum { BIND_NULL, BIND_NUMBER, BIND_TEXT, BIND_BLOB } kind;
    int64_t number;
    const void *data;
    size_t length;
};

static inline struct bind as_number(int64_t n)
{
    return (struct bind){.kind = BIND_NUMBER, .number = n};
}

/* Above 2^63 it is stored negative: a CHECK refuses that for sizes, device and inode numbers come back unchanged. */
static inline struct bind as_count(uint64_t n)
{
    return as_number((int64_t) n);
}

static inline struct bind as_flag(bool b)
{
    return as_number(b ? 1 : 0);
}

static inline struct bind as_text(const char *s) /* NULL is "" */
{
    return (struct bind){.kind = BIND_TEXT, .data = s ? s : ""};
}

static inline struct bind as_uuid(const struct uuid *u) /* NULL is none */
{
    return as_text(u ? u->text : "");
}

static inline struct bind as_blob(const void *data, size_t length)
{
    return (struct bind){.kind = BIND_BLOB, .data = data, .length = length};
}

static inline struct bind as_null(void)
{
    return (struct bind){.kind = BIND_NULL};
}

struct query {
    struct txn *txn;
    enum statement id;
    struct sqlite3_stmt *stmt;
    int bad; /* result code of a parameter that could not be set */
};

struct query query_open(struct txn *t, enum statement id, const struct bind *binds, size_t count);
void query_close(struct query *q);
#define AUTO_QUERY __attribute__((cleanup(query_close)))

/* QUERY(t, sr_find, as_uuid(u)): the parameters in the order of their numbers. */
#define QUERY(t, name, ...)                                                                                            \
    query_open((t), STATEMENT_##name, (const struct bind[]){__VA_ARGS__},                                              \
               sizeof((const struct bind[]){__VA_ARGS__}) / sizeof(struct bind))

/* 1 with the next row, 0 after the last, -1 with fault. */
int query_next(struct query *q, struct fault *f);
/* All of it, for a statement whose rows do not matter: 0 or -1; closes it. */
int query_run(struct query q, struct fault *f);
/* Rows the last statement inserted, changed or removed. */
int64_t query_changed(struct txn *t);

/* Columns of the current row, from 0. */
int64_t query_number(struct query *q, int column);
uint64_t query_count(struct query *q, int column);
bool query_flag(struct query *q, int column);
const char *query_text(struct query *q, int column, struct arena *a); /* never NULL */
const char *query_peek(struct query *q, int column);                  /* the same, gone with the next row */
struct uuid query_uuid(struct query *q, int column);
/* Whether the column holds exactly this. */
bool query_is(struct query *q, int column, const void *data, size_t length);
const char *query_blob(struct query *q, int column, struct arena *a, size_t *length);
/* The place of the column's text among words; a CHECK of the schema has made sure that it is there. */
size_t query_word(struct query *q, int column, const char *const *words, size_t count);

/* All rows that are left, as an array in the arena: read fills one of size bytes. On success only sets *count, and the
   pointer that out points to. */
int query_list(struct query *q, void (*read)(struct query *q, struct arena *a, void *item), size_t size,
               struct arena *a, void *out, size_t *count, struct fault *f);

#endif
