// SPDX-License-Identifier: BSD-2-Clause
/* Looking at a meter that another process may hold. */
#include "meter/view.h"

#include "meter/internal.h"

#include <errno.h>
#include <net/if.h>

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

bool meter_has_links(const struct meter *meter)
{
	return meter->fds[OBJECT_INGRESS_LINK] >= 0;
}

enum meter_presence meter_presence(const struct meter *meter, uint32_t *ret_ifindex)
{
	const struct wt_meta *meta = meter->meta;
	uint32_t linked = attach_index(meter->fds), ifindex = linked ? linked : meta->ifindex;
	char name[IF_NAMESIZE];
	uint64_t cookie;

	*ret_ifindex = ifindex;
	if (attach_is_on(meta, ifindex, meter->fds))
		return METER_HERE;
	if (linked)
		return METER_ELSEWHERE;
	if (identity_netns(&cookie) == 0 && cookie == meta->netns_cookie &&
	    if_indextoname(meta->ifindex, name))
		return METER_DETACHED;
	return METER_GONE;
}
