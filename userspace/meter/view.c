// SPDX-License-Identifier: BSD-2-Clause
/* Looking at a meter that another process may hold. */
#include "meter/view.h"

#include "meter/internal.h"

#include <bpf/bpf.h>
#include <errno.h>

int meter_view(const char *pin_folder, struct meter **ret_meter)
{
	struct meter *meter = meter_blank(pin_folder);
	int r = -ENOMEM;

	if (!meter)
		return r;
	r = pins_open(pin_folder, PINS_LIVE, meter->fds);
	/* Between two steps of a hand-over. */
	if (r == -ENOENT)
		r = pins_open(pin_folder, PINS_NEXT, meter->fds);
	if (r == 0)
		r = maps_open(meter);
	if (r < 0) {
		meter_close(meter);
		return r;
	}
	*ret_meter = meter;
	return 0;
}

/* Debian 12's header does not know the tcx member of the info: it is laid out as netns is (index, type). */
bool meter_is_ended(const struct meter *meter)
{
	struct bpf_link_info info = {0};
	uint32_t size = sizeof(info);

	return meter->fds[OBJECT_INGRESS_LINK] >= 0 &&
	       bpf_obj_get_info_by_fd(meter->fds[OBJECT_INGRESS_LINK], &info, &size) == 0 &&
	       info.netns.netns_ino == 0;
}
