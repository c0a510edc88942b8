/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/vhd_kit.h"

#include "server/base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

void kit_open(struct kit *k)
{
    bool memory = access("/dev/shm", W_OK) == 0;
    snprintf(k->path, sizeof k->path, "%s/smapi-vhd-XXXXXX", memory ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(k->path));
    k->dir = open(k->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(k->dir >= 0);
}

void kit_close(struct kit *k)
{
    DIR *dir = opendir(k->path);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        unlinkat(k->dir, e->d_name, 0);
    closedir(dir);
    close(k->dir);
    assert_int_equal(rmdir(k->path), 0);
}

static int kit_name(struct kit *k, const struct uuid *id, const char *suffix, int flags)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", id->text, suffix);
    return openat(k->dir, name, flags | O_CLOEXEC, 0600);
}

int kit_new(struct kit *k, const struct uuid *id)
{
    int fd = kit_name(k, id, ".vhd", O_RDWR | O_CREAT | O_EXCL);
    assert_true(fd >= 0);
    return fd;
}

int kit_fd(struct kit *k, const struct uuid *id)
{
    int fd = kit_name(k, id, ".vhd", O_RDWR);
    assert_true(fd >= 0);
    return fd;
}

int kit_open_parent(void *context, const struct uuid *vdi, int *fd, struct fault *f)
{
    struct kit *k = context;
    int found = kit_name(k, vdi, ".vhd", O_RDONLY);
    if (found < 0)
        found = kit_name(k, vdi, ".raw", O_RDONLY);
    if (found < 0)
        return fault_errno(f, FAULT_VDILoad, "no image %s", vdi->text);
    *fd = found;
    return 0;
}

void kit_assert_sound(bool fine, const struct fault *f, const char *call, const char *file, int line)
{
    if (!fine)
        print_error("%s: %d %s\n", call, (int) f->code, f->detail);
    _assert_true(fine, call, file, line);
}

unsigned char *kit_bytes(int fd, size_t *length)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    unsigned char *data = malloc((size_t) st.st_size + 1);
    assert_non_null(data);
    assert_int_equal(io_read_at(fd, data, (size_t) st.st_size, 0), 0);
    *length = (size_t) st.st_size;
    return data;
}

uint32_t kit_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t) (*seed >> 33);
}

void kit_write(struct kit *k, const struct uuid *id, unsigned char *model, uint64_t offset, size_t length,
               uint64_t *seed)
{
    struct fault f;
    struct vhd_chain *chain;
    AUTO_FD int fd = kit_fd(k, id);
    for (size_t i = 0; i < length; i++)
        model[offset + i] = (unsigned char) kit_random(seed);
    assert_sound(vhd_chain_open(fd, true, kit_open_parent, k, &chain, &f), f);
    assert_sound(vhd_chain_write(chain, model + offset, length, offset, &f), f);
    assert_sound(vhd_chain_sync(chain, &f), f);
    vhd_chain_close(chain);
}

static bool is_zero(const unsigned char *data, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++)
        if (data[i])
            return false;
    return true;
}

/* Extents come in order, and nothing but zeros lies between them. */
static void assert_extents(struct vhd_chain *chain, const unsigned char *model, uint64_t size)
{
    struct fault f;
    uint64_t at = 0;
    for (struct vhd_extent e;; at = e.offset + e.length) {
        assert_sound(vhd_chain_extent(chain, at, &e, &f), f);
        uint64_t next = e.length ? e.offset : size;
        assert_true(next >= at && next + e.length <= size);
        assert_true(is_zero(model + at, next - at));
        if (e.length == 0)
            return;
    }
}

static void assert_pieces(struct vhd_chain *chain, const unsigned char *model, uint64_t size, uint64_t *seed)
{
    struct fault f;
    unsigned char piece[9000];
    for (int i = 0; i < 50; i++) {
        uint64_t at = kit_random(seed) % size, left = size - at;
        size_t length = kit_random(seed) % sizeof piece;
        length = length < left ? length : (size_t) left;
        assert_sound(vhd_chain_read(chain, piece, length, at, &f), f);
        assert_memory_equal(piece, model + at, length);
    }
    assert_int_equal(vhd_chain_read(chain, piece, 2, size - 1, &f), -1);
}

void kit_assert_disk(struct kit *k, const struct uuid *id, const unsigned char *model, uint64_t size, uint64_t *seed)
{
    struct fault f;
    struct vhd_chain *chain;
    AUTO_FD int fd = kit_fd(k, id);
    AUTO_FREE unsigned char *whole = malloc(size);
    assert_non_null(whole);
    assert_sound(vhd_check(fd, &f), f);
    assert_sound(vhd_chain_open(fd, false, kit_open_parent, k, &chain, &f), f);
    assert_int_equal(vhd_chain_size(chain), size);
    assert_sound(vhd_chain_read(chain, whole, size, 0, &f), f);
    assert_true(memcmp(whole, model, size) == 0);
    assert_pieces(chain, model, size, seed);
    assert_extents(chain, model, size);
    vhd_chain_close(chain);
}

bool kit_has(const char *program)
{
    static const char *const places[] = {"/usr/local/bin", "/usr/bin", "/bin"};
    char path[128];
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        snprintf(path, sizeof path, "%s/%s", places[i], program);
        if (access(path, X_OK) == 0)
            return true;
    }
    print_message("no %s here to judge by\n", program);
    return false;
}

/* Starts a program whose output comes out of *out. */
static pid_t start(struct kit *k, const char *const argv[], int *out)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int nowhere = open("/dev/null", O_RDWR);
        union {
            const char *const *given;
            char *const *wanted;
        } args = {argv};
        if (fchdir(k->dir) == 0 && dup2(nowhere, 0) == 0 && dup2(ends[1], 1) == 1 && dup2(nowhere, 2) == 2)
            execvp(argv[0], args.wanted);
        _exit(127);
    }
    close(ends[1]);
    *out = ends[0];
    return child;
}

static void assert_success(pid_t child, const char *const argv[])
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("%s %s …: status %d", argv[0], argv[1], status);
}

size_t kit_output(struct kit *k, const char *const argv[], unsigned char *out, size_t size)
{
    unsigned char chunk[65536];
    AUTO_FD int from = -1;
    pid_t child = start(k, argv, &from);
    size_t total = 0;
    for (ssize_t n; (n = read(from, chunk, sizeof chunk)) > 0; total += (size_t) n)
        if (total < size)
            memcpy(out + total, chunk, (size_t) n < size - total ? (size_t) n : size - total);
    assert_success(child, argv);
    return total;
}

void kit_assert_output(struct kit *k, const char *const argv[], const unsigned char *expected, uint64_t size)
{
    AUTO_FREE unsigned char *found = malloc(size + 1);
    assert_non_null(found);
    assert_int_equal(kit_output(k, argv, found, size), size);
    assert_true(memcmp(found, expected, size) == 0);
}

void kit_assert_file(struct kit *k, const char *name, const unsigned char *expected, uint64_t size)
{
    size_t length;
    AUTO_FD int fd = openat(k->dir, name, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    AUTO_FREE unsigned char *found = kit_bytes(fd, &length);
    assert_int_equal(length, size);
    assert_true(memcmp(found, expected, size) == 0);
}

void kit_assert_7zz(struct kit *k, const struct uuid *id, const unsigned char *model, uint64_t size)
{
    char name[64];
    snprintf(name, sizeof name, "%s.vhd", id->text);
    kit_assert_output(k, (const char *const[]){"7zz", "x", "-so", name, NULL}, model, size);
}
