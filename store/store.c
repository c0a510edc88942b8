/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/store.h"

#include "server/base/io.h"
#include "store/internal.h"
#include "store/query.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

/* Epochs given away since a copy of the database was made, at most: added at every start, so that a database put back
   from a backup does not give them again. */
#define EPOCHS_PER_START (UINT64_C(1) << 20)
/* More than one start ever grants; what smapid.epoch keeps is so far ahead of what is granted. Each start takes as many
   of the 40 bits that the key of a reservation has. */
#define EPOCHS_AHEAD (UINT64_C(1) << 24)

static int read_boot_id(struct uuid *out, struct fault *f)
{
    AUTO_FD int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    char text[UUID_TEXT];
    if (fd < 0 || io_read_at(fd, text, sizeof text, 0) < 0 || !uuid_parse(text, sizeof text, out))
        return fault_errno(f, FAULT_EIO, "read the kernel's boot id");
    return 0;
}

struct start {
    struct uuid boot, server; /* server: as the state directory has it, none for a new one */
    struct place_epochs kept; /* as the state directory has them */
    uint64_t epoch_next;
    struct store_meta meta;
};

static int make_meta(struct txn *t, struct start *start, struct fault *f)
{
    struct uuid server = uuid_is(&start->server) ? start->server : uuid_random();
    start->meta.server = server;
    start->meta.boot = start->boot;
    start->meta.start_seq = 1;
    start->meta.rebooted = false;
    start->epoch_next = start->kept.end ? start->kept.end : 1;
    return query_run(QUERY(t, meta_make, as_uuid(&server), as_uuid(&start->boot), as_count(start->epoch_next)), f);
}

static int start_meta(struct txn *t, void *arg, struct fault *f)
{
    struct start *start = arg;
    AUTO_QUERY struct query q = QUERY(t, meta_find);
    int found = query_next(&q, f);
    if (found <= 0)
        return found < 0 ? -1 : make_meta(t, start, f);
    struct uuid last = query_uuid(&q, 2);
    start->meta.server = query_uuid(&q, 0);
    start->meta.boot = start->boot;
    start->meta.start_seq = query_count(&q, 1) + 1;
    start->meta.rebooted = !uuid_equal(&last, &start->boot);
    if (uuid_is(&start->server) && !uuid_equal(&start->server, &start->meta.server))
        return fault_set(f, FAULT_EIO, "the database is of server %s, the state directory of server %s",
                         start->meta.server.text, start->server.text);
    start->meta.put_back = start->meta.start_seq <= start->kept.start_seq;
    start->epoch_next = query_count(&q, 3) + EPOCHS_PER_START;
    if (start->epoch_next < start->kept.end)
        start->epoch_next = start->kept.end;
    return query_run(
        QUERY(t, meta_start, as_uuid(&start->boot), as_count(start->epoch_next), as_flag(start->meta.put_back)), f);
}

static struct store *store_new(void)
{
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->place = PLACE_NONE;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return s;
}

static char *database_path(const char *dir, const char *name)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        abort();
    return path;
}

static int read_server(struct txn *t, void *arg, struct fault *f)
{
    struct store_meta *meta = arg;
    AUTO_QUERY struct query q = QUERY(t, meta_find);
    int found = query_next(&q, f);
    if (found <= 0)
        return found < 0 ? -1 : fault_set(f, FAULT_EIO, "the store has no row of what it is");
    meta->server = query_uuid(&q, 0);
    meta->start_seq = query_count(&q, 1);
    return 0;
}

int store_look(const char *dir, struct store **out, bool *in_use, struct fault *f)
{
    *in_use = false;
    struct store *s = store_new();
    AUTO_FREE char *path = database_path(dir, "smapid.db");
    if (place_open(dir, PLACE_LOOK, &s->place, in_use, f) < 0 || database_open(&s->db, path, false, f) < 0 ||
        store_run_alone(s, read_server, &s->meta, f) < 0 || store_thread_start(s, f) < 0) {
        store_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

static int open_database(struct store *s, const char *dir, const char *name, struct fault *f)
{
    AUTO_FREE char *path = database_path(dir, name);
    struct start start = {0};
    if (database_open(&s->db, path, true, f) < 0 || read_boot_id(&start.boot, f) < 0 ||
        place_read_server(&s->place, &start.server, f) < 0 || place_read_epochs(&s->place, &start.kept, f) < 0 ||
        store_run_alone(s, start_meta, &start, f) < 0)
        return -1;
    if (!uuid_is(&start.server) && place_write_server(&s->place, &start.meta.server, f) < 0)
        return -1;
    const struct place_epochs kept = {start.epoch_next + EPOCHS_AHEAD, start.meta.start_seq};
    if (place_write_epochs(&s->place, &kept, f) < 0)
        return -1;
    s->meta = start.meta;
    s->meta.first_open = s->db.first_open;
    return 0;
}

/* What only a backup or the media can help against says so. */
static int advise(struct fault *f)
{
    const struct fault was = *f;
    if (was.code != FAULT_SRUnavailable)
        return -1;
    return fault_set(f, was.code, "%.500s: put a backup of it back, or make it anew from the media (smapid --rebuild)",
                     was.detail);
}

static int open_as(const char *dir, enum place_use use, const char *name, struct store **out, bool *in_use,
                   struct fault *f)
{
    *in_use = false;
    struct store *s = store_new();
    if (place_open(dir, use, &s->place, in_use, f) < 0 || open_database(s, dir, name, f) < 0 ||
        store_thread_start(s, f) < 0) {
        store_close(s);
        return advise(f);
    }
    *out = s;
    return 0;
}

int store_open(const char *dir, struct store **out, bool *in_use, struct fault *f)
{
    return open_as(dir, PLACE_SERVE, "smapid.db", out, in_use, f);
}

int store_rebuild(const char *dir, struct store **out, bool *in_use, struct fault *f)
{
    return open_as(dir, PLACE_REBUILD, "smapid.db.new", out, in_use, f);
}

int store_rebuilt(struct store *s, char kept[STORE_KEPT], struct fault *f)
{
    store_thread_stop(s);
    database_close(&s->db); /* the log goes home, and is gone */
    int r = place_swap(&s->place, kept, f);
    store_close(s);
    return r;
}

/* The lock goes last: nobody may open the database while it is ours. */
void store_close(struct store *s)
{
    if (!s)
        return;
    store_thread_stop(s);
    database_close(&s->db);
    place_close(&s->place);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct store_counts store_counted(struct store *s)
{
    return (struct store_counts){.commits = atomic_load_explicit(&s->commits, memory_order_relaxed),
                                 .writes = atomic_load_explicit(&s->writes, memory_order_relaxed),
                                 .reads = atomic_load_explicit(&s->reads, memory_order_relaxed)};
}

struct store_meta store_meta(struct store *s)
{
    return s->meta;
}
