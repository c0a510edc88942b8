/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Gives every file of the directories named to a fuzz target, for builds without libFuzzer. */
#include "server/base/own.h"
#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 4 << 20 };

static void replay(const char *directory, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    AUTO_FILE FILE *in = fopen(path, "re");
    AUTO_FREE char *buffer = malloc(INPUT_MAX);
    assert(in && buffer);
    size_t size = fread(buffer, 1, INPUT_MAX, in);
    assert(size < INPUT_MAX && !ferror(in));
    uint8_t *exact = malloc(size + (size == 0)); /* so that a sanitizer sees a read past it */
    assert(exact);
    memcpy(exact, buffer, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    for (int i = 1; i < argc; i++) {
        AUTO_DIR DIR *dir = opendir(argv[i]);
        const struct dirent *entry;
        assert(dir);
        while ((entry = readdir(dir))) {
            if (entry->d_name[0] == '.')
                continue;
            replay(argv[i], entry->d_name);
            count++;
        }
    }
    printf("%u inputs\n", count);
    return count == 0;
}
