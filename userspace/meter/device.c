// SPDX-License-Identifier: BSD-2-Clause
#include "meter/internal.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int device_ask(const char *interface, unsigned long what, struct ifreq *request)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memcpy(request->ifr_name, interface, strnlen(interface, sizeof(request->ifr_name) - 1));
	return fd < 0 || ioctl(fd, what, request) ? -errno : 0;
}
