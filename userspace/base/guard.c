// SPDX-License-Identifier: BSD-2-Clause
#include "base/guard.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int guard_memory(void)
{
	static const struct rlimit none = {0, 0};

	/* Both: the limit does not hold back a collector that cores are piped to, not being dumpable does. */
	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

#ifdef __SANITIZE_ADDRESS__
#include <linux/capability.h>
#include <sanitizer/lsan_interface.h>

#include "base/capabilities.h"

/* The search for leaks traces its own process, as nobody may from there on without this capability. */
int __lsan_is_turned_off(void)
{
	uint64_t held = 0;

	return capabilities_get(&held) < 0 || !(held >> CAP_SYS_PTRACE & 1);
}
#endif
