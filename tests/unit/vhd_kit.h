/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the tests of VHD share: a directory of images, disks remembered as plain bytes, and programs that judge. */
#ifndef SMAPI_TESTS_VHD_KIT_H
#define SMAPI_TESTS_VHD_KIT_H

#include "backends/images/vhd.h"
#include "tests/unit/check.h"

/* A directory of its own, in memory where there is such a place; its path has no space in it. */
struct kit {
    char path[64];
    int dir;
};
void kit_open(struct kit *k);
void kit_close(struct kit *k); /* with all that is in it */

/* <uuid>.vhd in the directory, made or opened for reading and writing. */
int kit_new(struct kit *k, const struct uuid *id);
int kit_fd(struct kit *k, const struct uuid *id);
/* Slot of a chain; context is the kit. Looks for .vhd, then for .raw. */
int kit_open_parent(void *context, const struct uuid *vdi, int *fd, struct fault *f);

/* Fails the test with the fault's sentence. */
#define assert_sound(call, f) kit_assert_sound((call) == 0, &(f), #call, __FILE__, __LINE__)
void kit_assert_sound(bool fine, const struct fault *f, const char *call, const char *file, int line);

/* All bytes of a file; free. */
unsigned char *kit_bytes(int fd, size_t *length);

/* A known sequence for a seed. */
uint32_t kit_random(uint64_t *seed);

/* Writes through a chain of its own, and into the model. */
void kit_write(struct kit *k, const struct uuid *id, unsigned char *model, uint64_t offset, size_t length,
               uint64_t *seed);
/* The disk reads as the model, by us: whole, in odd pieces and by extents; the image passes vhd_check. */
void kit_assert_disk(struct kit *k, const struct uuid *id, const unsigned char *model, uint64_t size, uint64_t *seed);

/* Whether a judge is installed; a test of it is skipped without it. */
bool kit_has(const char *program);
/* What a program, run in the directory, writes: the first size bytes of it into out; its whole length. The test fails
   when the program does. */
size_t kit_output(struct kit *k, const char *const argv[], unsigned char *out, size_t size);
/* The program writes exactly these bytes. */
void kit_assert_output(struct kit *k, const char *const argv[], const unsigned char *expected, uint64_t size);
/* The file in the directory holds exactly these bytes. */
void kit_assert_file(struct kit *k, const char *name, const unsigned char *expected, uint64_t size);
/* 7zz reads the disk of the image as the model. */
void kit_assert_7zz(struct kit *k, const struct uuid *id, const unsigned char *model, uint64_t size);

#endif
