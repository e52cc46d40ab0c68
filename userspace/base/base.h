/* SPDX-License-Identifier: BSD-2-Clause */
/* What every file needs: attributes, sizes, scope-bound cleanup. */
#ifndef WIRETOLL_BASE_H
#define WIRETOLL_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WT_MUST_CHECK        __attribute__((warn_unused_result))
#define WT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define WT_CLEANUP(fn)       __attribute__((cleanup(fn)))
#define ARRAY_SIZE(a)        (sizeof(a) / sizeof((a)[0]))

#define NSEC_PER_SEC 1000000000LL

/* Hands a pointer over: the variable becomes NULL, so that a cleanup attribute leaves the object alone. */
#define TAKE_PTR(p)                                                                                          \
	({                                                                                                   \
		__auto_type taken_ = (p);                                                                    \
		(p) = NULL;                                                                                  \
		taken_;                                                                                      \
	})

/* The same for a file descriptor: the variable becomes -1. */
#define TAKE_FD(fd)                                                                                          \
	({                                                                                                   \
		int taken_ = (fd);                                                                           \
		(fd) = -1;                                                                                   \
		taken_;                                                                                      \
	})

/* Cleanup handlers for WT_CLEANUP; all of them accept an unset variable (NULL or -1). */
void cleanup_free(void *pointer_to_pointer);
void cleanup_close(int *fd);

#define _cleanup_free_  WT_CLEANUP(cleanup_free)
#define _cleanup_close_ WT_CLEANUP(cleanup_close)

#endif
