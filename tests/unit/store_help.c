/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/store_help.h"

#include "store/sums.h"
#include "tests/unit/check.h"
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/prctl.h>

void scratch_make(struct scratch *s)
{
    const char *base = getenv("TMPDIR");
    snprintf(s->root, sizeof s->root, "%s/smapi-store-XXXXXX", base && strlen(base) < 32 ? base : "/tmp");
    assert_non_null(mkdtemp(s->root));
    snprintf(s->state, sizeof s->state, "%s/state", s->root);
    snprintf(s->file, sizeof s->file, "%s/smapid.db", s->state);
}

static void empty(const char *dir)
{
    AUTO_DIR DIR *d = opendir(dir);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        unlinkat(dirfd(d), e->d_name, 0);
}

void scratch_remove(struct scratch *s)
{
    empty(s->state);
    rmdir(s->state);
    empty(s->root);
    assert_int_equal(rmdir(s->root), 0);
}

pid_t fork_child(void)
{
    pid_t parent = getpid(), child = fork();
    assert_true(child >= 0);
    if (child == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
        _exit(1);
    return child;
}

struct store *open_store(const char *dir)
{
    struct store *s = NULL;
    struct fault f = {0};
    bool in_use;
    if (store_open(dir, &s, &in_use, &f) < 0)
        fail_msg("store_open: %s", f.detail);
    return s;
}

int bench_setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    scratch_make(&b->scratch);
    store_close(open_store(b->scratch.state));
    if (database_open(&b->db, b->scratch.file, true, &b->fault) < 0)
        fail_msg("database_open: %s", b->fault.detail);
    b->txn = (struct txn){.db = &b->db, .writable = true};
    b->arena = arena_new(64 << 20);
    *state = b;
    return 0;
}

int bench_teardown(void **state)
{
    struct bench *b = *state;
    database_close(&b->db);
    arena_free(b->arena);
    scratch_remove(&b->scratch);
    free(b);
    return 0;
}

struct holder holder_named(const char *name)
{
    return (struct holder){.name = name};
}

struct lease_ask ask_for(const struct uuid *sr, const struct uuid *vdi, struct holder who, bool writable)
{
    return (struct lease_ask){
        .sr = *sr, .vdi = *vdi, .who = who, .writable = writable, .first = LEASE_HELD, .fence = "vdi", .now = NOW};
}

struct uuid uuid_of(const char *text)
{
    struct uuid u = UUID_NONE;
    uuid_parse_text(text, &u);
    return u;
}

struct uuid uuid_numbered(unsigned n)
{
    char text[UUID_TEXT + 1];
    snprintf(text, sizeof text, "cccccccc-0000-4000-8000-%012u", n);
    return uuid_of(text);
}

struct sr_row sr_blank(const char *uuid)
{
    return (struct sr_row){.uuid = uuid_of(uuid), .type = "dummy", .state = SR_LIVE, .label = "", .description = ""};
}

struct vdi vdi_numbered(unsigned n)
{
    static _Thread_local char locations[16][UUID_TEXT + 1];
    struct vdi v = vdi_blank();
    v.uuid = uuid_numbered(n);
    v.location = memcpy(locations[n % COUNT_OF(locations)], v.uuid.text, sizeof locations[0]);
    return v;
}

int put_sr(struct txn *t, void *arg, struct fault *f)
{
    struct sr_row row = sr_blank(arg);
    return store_sr_put(t, &row, f);
}

void peer_run(const char *file, const char *sql)
{
    sqlite3 *connection = NULL;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    assert_int_equal(sqlite3_open_v2(file, &connection, flags, sums_vfs()), SQLITE_OK);
    assert_int_equal(sqlite3_exec(connection, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(connection, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(connection), SQLITE_OK);
}

const char *peer_ask(struct sqlite3 *connection, const char *sql, char *out, size_t size)
{
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_prepare_v2(connection, sql, -1, &stmt, NULL), SQLITE_OK);
    const unsigned char *text = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_text(stmt, 0) : NULL;
    snprintf(out, size, "%s", text ? (const char *) text : "");
    sqlite3_finalize(stmt);
    return out;
}

bool peer_refuses(struct sqlite3 *connection, const char *sql)
{
    return sqlite3_exec(connection, sql, NULL, NULL, NULL) != SQLITE_OK;
}

const char *peer_plan(struct sqlite3 *connection, const char *sql)
{
    AUTO_FREE char *question = NULL;
    assert_true(asprintf(&question, "EXPLAIN QUERY PLAN %s", sql) > 0);
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_prepare_v2(connection, question, -1, &stmt, NULL), SQLITE_OK);
    bool scan = false, sort = false, search = false;
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        const char *line = (const char *) sqlite3_column_text(stmt, 3);
        scan |= strncmp(line, "SCAN", 4) == 0;
        sort |= strncmp(line, "USE TEMP B-TREE", 15) == 0;
        search |= strncmp(line, "SEARCH", 6) == 0;
    }
    sqlite3_finalize(stmt);
    return scan ? "SCAN" : sort ? "SORT" : search ? "SEARCH" : "NONE";
}
