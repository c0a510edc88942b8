/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libFuzzer: the bridge's arguments, parted by NULs, without a daemon; with bit 0 of the first byte the rest is a
   daemon's answer instead. */
#include <fcntl.h>
#include <unistd.h>

static int null_fd = -1;
#undef STDOUT_FILENO
#undef STDERR_FILENO
#define STDOUT_FILENO null_fd
#define STDERR_FILENO null_fd
#define main          bridge_main
int bridge_main(int argc, char **argv);
#include "server/bin/smapi-bridge.c"
#undef main

#include <assert.h>
#include <stdlib.h>

enum { ARGUMENTS_MAX = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void start(void)
{
    char path[] = "/dev/shm/fuzz-bridge-XXXXXX";
    static const char conf[] = "socket = /nonexistent/fuzz\n";
    null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int fd = mkstemp(path);
    assert(null_fd >= 0 && fd >= 0 && write(fd, conf, sizeof conf - 1) == (ssize_t) sizeof conf - 1);
    close(fd);
    setenv("SMAPI_BRIDGE_CONF", path, 1);
}

/* Memory of exactly each argument's size, so that a sanitizer sees a read past it. */
static void run_arguments(const char *data, size_t size)
{
    char *argv[ARGUMENTS_MAX + 1] = {NULL};
    int argc = 0;
    while (argc < ARGUMENTS_MAX && (size > 0 || argc == 0)) {
        size_t length = strnlen(data, size), used = length + (length < size);
        argv[argc++] = strndup(data, length);
        data += used;
        size -= used;
    }
    assert(bridge_main(argc, argv) == 0);
    for (int i = 0; i < argc; i++) {
        assert(i == 0 || argv[i][0] == '\0'); /* overwritten */
        free(argv[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bridge_conf conf = {.exit_fault = true};
    if (null_fd < 0)
        start();
    if (size == 0)
        return 0;
    if (data[0] & 1) {
        int status = answer((const char *) data + 1, size - 1, &conf);
        assert(status >= 0 && status <= 125);
    } else {
        run_arguments((const char *) data + 1, size - 1);
    }
    return 0;
}
