// SPDX-License-Identifier: BSD-2-Clause
#include "base/base.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

void cleanup_free(void *pointer_to_pointer)
{
	free(*(void **)pointer_to_pointer);
}

void cleanup_close(int *fd)
{
	int saved_errno = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved_errno;
}
