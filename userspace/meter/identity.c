// SPDX-License-Identifier: BSD-2-Clause
/* What tells one epoch from another: boot, network namespace, interface, and a random number. */
#include "meter/internal.h"

#include "base/file.h"

#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

static int hex_digit(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* "8b0c0d0e-…": 32 hexadecimal digits and dashes. */
static int parse_uuid(const char *text, uint8_t ret_uuid[static 16])
{
	size_t digits = 0;

	for (; *text && *text != '\n'; text++) {
		if (*text == '-')
			continue;
		if (!isxdigit((unsigned char)*text) || digits == 32)
			return -EBADMSG;
		ret_uuid[digits / 2] = (uint8_t)(ret_uuid[digits / 2] << 4 | hex_digit(*text));
		digits++;
	}
	return digits == 32 ? 0 : -EBADMSG;
}

static int read_boot_id(uint8_t ret_uuid[static 16])
{
	_cleanup_free_ char *text = NULL;
	size_t length;
	int r = file_read("/proc/sys/kernel/random/boot_id", 64, &text, &length);

	return r < 0 ? r : parse_uuid(text, ret_uuid);
}

int identity_netns(uint64_t *ret_cookie)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(*ret_cookie);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret_cookie, &size))
		return -errno;
	return 0;
}

int identity_here(const char *interface, struct wt_meta *ret_meta)
{
	struct wt_meta meta = {.abi = WT_METER_ABI};
	uint64_t cookie;
	int r;

	if (strlen(interface) >= sizeof(meta.ifname))
		return -EINVAL;
	memcpy(meta.ifname, interface, strlen(interface));
	meta.ifindex = if_nametoindex(interface);
	if (!meta.ifindex)
		return -ENODEV;
	r = identity_netns(&cookie);
	if (r == 0)
		r = read_boot_id(meta.boot_id);
	if (r < 0)
		return r;
	meta.netns_cookie = cookie;
	if (getrandom(meta.map_uuid, sizeof(meta.map_uuid), 0) != sizeof(meta.map_uuid))
		return -EIO;
	*ret_meta = meta;
	return 0;
}

/* "0-3" or "0,2-5": libbpf counts the CPUs, but programs see their numbers, which may have gaps. */
int identity_cpus(void)
{
	_cleanup_free_ char *text = NULL;
	const char *last;
	size_t length;
	long highest;
	int r = file_read("/sys/devices/system/cpu/possible", 4096, &text, &length);

	if (r < 0)
		return r;
	last = text + strcspn(text, "\n");
	while (last > text && isdigit((unsigned char)last[-1]))
		last--;
	highest = strtol(last, NULL, 10);
	return !isdigit((unsigned char)*last) || highest > 65535 ? -EBADMSG : (int)highest + 1;
}
