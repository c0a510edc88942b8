/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/database.h"

#include "server/base/log.h"
#include "store/schema.h"
#include "store/sums.h"
#include <assert.h>
#include <errno.h>
#include <sqlite3.h>
#include <string.h>

enum {
    APPLICATION = 1397575753, /* PRAGMA application_id of schema/0001.sql */
    LOG_PAGES = 1000,         /* checkpoint from here on */
    LONGEST = 16 << 20,       /* bytes of one text, blob or row */
    ANSWER = 96
};

/* Each is set, then asked for: SQLite keeps silent about a setting it does not take. In this order: exclusive locking
   before WAL keeps the index of the log in our own memory, without a file that others could map. */
static const struct setting {
    const char *set, *ask, *want;
} settings[] = {
    {"PRAGMA locking_mode = EXCLUSIVE", "PRAGMA locking_mode", "exclusive"},
    {"PRAGMA journal_mode = WAL", "PRAGMA journal_mode", "wal"},
    {"PRAGMA synchronous = FULL", "PRAGMA synchronous", "2"},
    {"PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", "1"},
    {"PRAGMA trusted_schema = OFF", "PRAGMA trusted_schema", "0"},
    {"PRAGMA cell_size_check = ON", "PRAGMA cell_size_check", "1"},
    {"PRAGMA temp_store = MEMORY", "PRAGMA temp_store", "2"},
    {"PRAGMA wal_autocheckpoint = 0", "PRAGMA wal_autocheckpoint", "0"},
    {"PRAGMA journal_size_limit = 16777216", "PRAGMA journal_size_limit", "16777216"},
    {"PRAGMA cache_size = -16384", "PRAGMA cache_size", "-16384"},
    {"PRAGMA mmap_size = 0", NULL, NULL}, /* gives no row where SQLite is built without */
};

static bool is_damage(int code)
{
    int kind = code & 0xff;
    return kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB || code == SQLITE_IOERR_DATA;
}

static int database_fault(struct database *d, const char *doing, struct fault *f)
{
    int code = sqlite3_errcode(d->connection);
    int kind = code & 0xff;
    enum fault_code as = kind == SQLITE_FULL ? FAULT_SRNoSpace : is_damage(code) ? FAULT_SRUnavailable : FAULT_EIO;
    return fault_set(f, as, "the store %s: %s: %s", d->path, doing, sqlite3_errmsg(d->connection));
}

/* The first column of the first row as text; "" without one. */
static int ask(struct database *d, const char *sql, char out[ANSWER], struct fault *f)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(d->connection, sql, -1, &statement, NULL) != SQLITE_OK)
        return database_fault(d, sql, f);
    int code = sqlite3_step(statement);
    const unsigned char *text = code == SQLITE_ROW ? sqlite3_column_text(statement, 0) : NULL;
    snprintf(out, ANSWER, "%s", text ? (const char *) text : "");
    while (code == SQLITE_ROW)
        code = sqlite3_step(statement);
    int result = code == SQLITE_DONE ? 0 : database_fault(d, sql, f);
    sqlite3_finalize(statement);
    return result;
}

static int ask_number(struct database *d, const char *sql, long long *out, struct fault *f)
{
    char answer[ANSWER];
    if (ask(d, sql, answer, f) < 0)
        return -1;
    *out = strtoll(answer, NULL, 10);
    return 0;
}

static int apply_settings(struct database *d, struct fault *f)
{
    char answer[ANSWER];
    for (size_t i = 0; i < COUNT_OF(settings); i++) {
        const struct setting *s = &settings[i];
        if (ask(d, s->set, answer, f) < 0)
            return -1;
        if (!s->ask)
            continue;
        if (ask(d, s->ask, answer, f) < 0)
            return -1;
        if (strcmp(answer, s->want) != 0)
            return fault_set(f, FAULT_EIO, "the store %s: %s answers \"%s\", want \"%s\"", d->path, s->ask, answer,
                             s->want);
    }
    return 0;
}

static int harden(struct database *d, struct fault *f)
{
    static const struct {
        int option, value;
    } options[] = {
        {SQLITE_DBCONFIG_DEFENSIVE, 1},   {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_FKEY, 1}, {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0},
        {SQLITE_DBCONFIG_ENABLE_VIEW, 0}, {SQLITE_DBCONFIG_DQS_DML, 0},
        {SQLITE_DBCONFIG_DQS_DDL, 0},     {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
    };
    for (size_t i = 0; i < COUNT_OF(options); i++) {
        int now = -1;
        int code = sqlite3_db_config(d->connection, options[i].option, options[i].value, &now);
        if (code != SQLITE_OK || now != options[i].value)
            return fault_set(f, FAULT_EIO, "the store %s: SQLite does not take its option %d", d->path,
                             options[i].option);
    }
    sqlite3_limit(d->connection, SQLITE_LIMIT_LENGTH, LONGEST);
    sqlite3_limit(d->connection, SQLITE_LIMIT_ATTACHED, 0);
    return 0;
}

/* Whose file it is and which schema it has: *version 0 for a new one. */
static int read_version(struct database *d, long long *version, struct fault *f)
{
    long long application, objects;
    if (ask_number(d, "PRAGMA user_version", version, f) < 0 ||
        ask_number(d, "PRAGMA application_id", &application, f) < 0 ||
        ask_number(d, "SELECT count(*) FROM sqlite_schema", &objects, f) < 0)
        return -1;
    bool empty = *version == 0 && application == 0 && objects == 0;
    if (!empty && (application != APPLICATION || *version < 1))
        return fault_set(f, FAULT_EIO, "%s is a database of another program", d->path);
    if (*version > (long long) schema_newest())
        return fault_set(f, FAULT_EIO, "%s has schema %lld, made by a newer smapid; this one knows up to %zu", d->path,
                         *version, schema_newest());
    return 0;
}

static int check(struct database *d, struct fault *f)
{
    char answer[ANSWER];
    if (ask(d, "PRAGMA quick_check(1)", answer, f) < 0)
        return -1;
    if (strcmp(answer, "ok") != 0)
        return fault_set(f, FAULT_SRUnavailable, "%s is damaged: %s", d->path, answer);
    if (ask(d, "PRAGMA foreign_key_check", answer, f) < 0)
        return -1;
    if (answer[0])
        return fault_set(f, FAULT_SRUnavailable, "%s is damaged: a row of table %s refers to nothing", d->path, answer);
    return 0;
}

static int run(struct database *d, const char *sql, struct fault *f)
{
    return sqlite3_exec(d->connection, sql, NULL, NULL, NULL) == SQLITE_OK ? 0
                                                                           : database_fault(d, "change its schema", f);
}

static int migrate(struct database *d, long long version, struct fault *f)
{
    for (size_t next = (size_t) version + 1; next <= schema_newest(); next++) {
        char number[48];
        snprintf(number, sizeof number, "PRAGMA user_version = %zu", next);
        if (run(d, "BEGIN IMMEDIATE", f) < 0 || run(d, schema_text(next), f) < 0 || run(d, number, f) < 0 ||
            run(d, "COMMIT", f) < 0)
            return -1;
    }
    return 0;
}

static int check_newest(struct database *d, long long version, struct fault *f)
{
    if (version == (long long) schema_newest())
        return 0;
    return fault_set(f, FAULT_EIO, "%s has schema %lld, this smapid %zu: it is brought up to date when smapid starts",
                     d->path, version, schema_newest());
}

/* A database that an older smapid made has no room for sums: all of it is written anew, in one transaction. */
static int add_sums(struct database *d, struct fault *f)
{
    int summed = 0;
    sqlite3_file_control(d->connection, "main", SUMS_ASK, &summed);
    if (summed)
        return 0;
    sqlite3_limit(d->connection, SQLITE_LIMIT_ATTACHED, 1);
    int made = run(d, "VACUUM", f);
    sqlite3_limit(d->connection, SQLITE_LIMIT_ATTACHED, 0);
    if (made < 0 || run(d, "PRAGMA wal_checkpoint(TRUNCATE)", f) < 0)
        return -1;
    sqlite3_file_control(d->connection, "main", SUMS_ASK, &summed);
    return summed ? 0 : fault_set(f, FAULT_EIO, "the store %s does not take checksums", d->path);
}

static int prepare(struct database *d, struct fault *f)
{
    size_t count;
    const struct statement_row *rows = statement_rows(&count);
    for (size_t i = 0; i < count; i++)
        if (sqlite3_prepare_v3(d->connection, rows[i].sql, -1, SQLITE_PREPARE_PERSISTENT, &d->statements[i], NULL) !=
            SQLITE_OK)
            return database_fault(d, rows[i].name, f);
    return 0;
}

static int note_log(void *arg, sqlite3 *connection, const char *name, int pages)
{
    struct database *d = arg;
    (void) connection;
    (void) name;
    d->log_pages = pages;
    return SQLITE_OK;
}

static int connect(struct database *d, bool migrates, struct fault *f)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(d->path, &d->connection, flags, sums_vfs()) != SQLITE_OK)
        return database_fault(d, "open", f);
    long long version = 0;
    int room = SUMS_BYTES; /* in each page of a database that is made now */
    sqlite3_file_control(d->connection, "main", SQLITE_FCNTL_RESERVE_BYTES, &room);
    if (harden(d, f) < 0 || apply_settings(d, f) < 0 || read_version(d, &version, f) < 0 || check(d, f) < 0 ||
        (migrates ? migrate(d, version, f) : check_newest(d, version, f)) < 0 || (migrates && add_sums(d, f) < 0) ||
        prepare(d, f) < 0)
        return -1;
    sqlite3_wal_hook(d->connection, note_log, d);
    d->first_open = version == 0;
    return 0;
}

int database_open(struct database *d, const char *path, bool migrates, struct fault *f)
{
    *d = (struct database){.path = strdup(path)};
    if (!d->path)
        abort();
    if (connect(d, migrates, f) == 0)
        return 0;
    database_close(d);
    return -1;
}

void database_close(struct database *d)
{
    for (size_t i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(d->statements[i]);
    int code = sqlite3_close(d->connection);
    assert(code == SQLITE_OK);
    (void) code;
    free(d->path);
    *d = (struct database){0};
}

bool database_in_transaction(struct database *d)
{
    return !sqlite3_get_autocommit(d->connection);
}

/* SQLite calls ENOSPC full, and these an I/O error; but a write refused before any sync leaves as little behind. */
static bool refused_write(sqlite3_file *file, int code)
{
    int why = 0;
    if (code != SQLITE_IOERR_WRITE || !file || !file->pMethods)
        return false;
    file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &why);
    return why == EDQUOT || why == EFBIG;
}

static bool is_full(struct database *d, int code, int which)
{
    sqlite3_file *file = NULL;
    sqlite3_file_control(d->connection, "main", which, &file);
    return (code & 0xff) == SQLITE_FULL || refused_write(file, code);
}

bool database_is_full(struct database *d, int code)
{
    return is_full(d, code, SQLITE_FCNTL_JOURNAL_POINTER); /* a transaction writes to the log alone */
}

void database_checkpoint(struct database *d, bool now)
{
    if (!now && d->log_pages < LOG_PAGES)
        return;
    int code = sqlite3_wal_checkpoint_v2(d->connection, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (code != SQLITE_OK && !is_full(d, code, SQLITE_FCNTL_FILE_POINTER))
        database_die(d, code, "checkpoint");
    d->log_pages = 0;
}

void database_hold_size(struct database *d, bool hold)
{
    char pages[ANSWER] = "1073741823", sql[ANSWER + 32]; /* SQLite's own ceiling */
    struct fault f;
    if (hold && ask(d, "PRAGMA page_count", pages, &f) < 0)
        database_die(d, sqlite3_errcode(d->connection), "page_count");
    snprintf(sql, sizeof sql, "PRAGMA max_page_count = %s", pages);
    if (ask(d, sql, pages, &f) < 0)
        database_die(d, sqlite3_errcode(d->connection), "max_page_count");
}

bool database_is_damaged(int code)
{
    return is_damage(code);
}

void database_die(struct database *d, int code, const char *doing)
{
    log_line(LOG_ERROR, "the store %s: %s: %s (%d): what is durable is not known, aborting", d->path, doing,
             sqlite3_errstr(code), code);
    abort();
}
