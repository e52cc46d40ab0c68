// SPDX-License-Identifier: BSD-2-Clause
#include "base/capabilities.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int capabilities_get(uint64_t *ret_capabilities)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	*ret_capabilities = (uint64_t)data[1].effective << 32 | data[0].effective;
	return 0;
}

int capabilities_set(uint64_t capabilities)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	for (unsigned word = 0; word < 2; word++) {
		uint32_t bits = (uint32_t)(capabilities >> (32 * word));

		data[word] = (struct __user_cap_data_struct){bits, bits, bits};
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return -errno;
	for (unsigned long cap = 0; cap < 64; cap++)
		if (capabilities >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return -errno;
	return 0;
}

int capabilities_bound(uint64_t capabilities)
{
	for (unsigned long cap = 0; cap < 64; cap++) {
		int has = capabilities >> cap & 1 ? 0 : prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		/* Numbers beyond the kernel's last one are refused with EINVAL: the end. */
		if (has < 0)
			return errno == EINVAL ? 0 : -errno;
		if (has && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return -errno;
	}
	return 0;
}
