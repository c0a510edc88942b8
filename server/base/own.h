/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ownership said where a thing is declared: the release belongs to the declaration. */
#ifndef SMAPI_BASE_OWN_H
#define SMAPI_BASE_OWN_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define NODISCARD         __attribute__((warn_unused_result))
#if defined(__GNUC__) && !defined(__clang__)
#define DEALLOC(release) __attribute__((malloc(release, 1)))
#else
#define DEALLOC(release)
#endif

static inline void own_free(void *p)
{
    void *taken = *(void **) p;
    free(taken);
}

static inline void own_fd(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void own_file(FILE **file)
{
    if (*file)
        fclose(*file);
}

static inline void own_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

#define AUTO_FREE __attribute__((cleanup(own_free)))
#define AUTO_FD   __attribute__((cleanup(own_fd)))
#define AUTO_FILE __attribute__((cleanup(own_file)))
#define AUTO_DIR  __attribute__((cleanup(own_dir)))

/* Hands the value over: the declaration it came from no longer releases it. */
#define TAKE(p)                                                                                                        \
    ({                                                                                                                 \
        __typeof__(p) taken_ = (p);                                                                                    \
        (p) = NULL;                                                                                                    \
        taken_;                                                                                                        \
    })
#define TAKE_FD(fd)                                                                                                    \
    ({                                                                                                                 \
        int taken_ = (fd);                                                                                             \
        (fd) = -1;                                                                                                     \
        taken_;                                                                                                        \
    })

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
