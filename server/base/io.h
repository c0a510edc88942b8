/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whole reads and writes, and the two syncs that make a name durable. All take descriptors, never paths from outside.
 */
#ifndef SMAPI_BASE_IO_H
#define SMAPI_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* 0, or -1 with errno. Retries short transfers and EINTR; end of file before length gives errno 0. */
int io_read_at(int fd, void *out, size_t length, uint64_t offset);
int io_write_at(int fd, const void *data, size_t length, uint64_t offset);
int io_write(int fd, const void *data, size_t length);

#define IO_ALIGNMENT 4096U /* no sector is larger */

/* size bytes, which is a multiple of IO_ALIGNMENT, as O_DIRECT wants them: aligned, not zeroed, never NULL, the
   caller's to free. */
void *io_buffer(size_t size);

/* Opens name, one component, beneath the directory dir and nothing else: no "..", no link, no other mount, no device.
   Adds O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK. Returns a descriptor or -1 with errno (ELOOP or EXDEV for an escape). */
int io_open_beneath(int dir, const char *name, int flags, mode_t mode);

/* Reads a small regular file beneath dir, at most ceiling bytes; *out is malloc'd and NUL-terminated. -1 with errno. */
int io_read_file(int dir, const char *name, size_t ceiling, char **out, size_t *out_length);

/* Replaces name beneath dir by these bytes: written to temp (in the same directory), fsync, rename, fsync of dir.
   After a crash name has the old bytes or the new ones. -1 with errno, temp removed. */
int io_replace_file(int dir, const char *name, const char *temp, const void *data, size_t length, mode_t mode);

#endif
