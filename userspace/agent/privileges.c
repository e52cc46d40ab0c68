// SPDX-License-Identifier: BSD-2-Clause
#include "agent/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>

#include "base/capabilities.h"
#include "base/syscalls.h"

#define CAPABILITIES (1ULL << CAP_NET_ADMIN | 1ULL << CAP_BPF | 1ULL << CAP_PERFMON)

int privileges_drop(void)
{
	uint64_t held;
	int r = capabilities_get(&held);

	if (r == 0)
		r = capabilities_bound(CAPABILITIES);
	/* Without the right to cut the set it stays; no_new_privs keeps what is in it out of reach. */
	if (r == 0 || r == -EPERM)
		r = capabilities_set(held & CAPABILITIES);
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	return r;
}

int privileges_filter(void)
{
	return syscalls_restrict_agent();
}
