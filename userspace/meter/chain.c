// SPDX-License-Identifier: BSD-2-Clause
/*
 * Who runs before the meter. The kernel asks an interface's tcx programs first, then its clsact filters by
 * their preference; filters of one preference run in the order of their dump, which is not that of their
 * handles. Before all of them, on ingress only, come the interface's XDP programs, one for each mode.
 * Whoever ends the chain before the meter hides packets from it.
 */
#include "meter/internal.h"

#include "net/netlink.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/rtnetlink.h>

/* More programs on one hook than the kernel lets there be (BPF_MPROG_MAX is 64). */
#define MAX_PROGRAMS 64
#define REQUEST_SIZE 256

int chain_first_tcx(uint32_t ifindex, bool egress, uint32_t *ret_id)
{
	uint32_t ids[MAX_PROGRAMS] = {0}, count = MAX_PROGRAMS;
	int r = bpf_prog_query((int)ifindex, egress ? TCX_EGRESS : TCX_INGRESS, 0, NULL, ids, &count);

	if (r == -EINVAL || r == -ENOENT) {
		/* A kernel without tcx has no such programs. */
		count = 0;
		r = 0;
	}
	if (r < 0)
		return r;
	*ret_id = count ? ids[0] : 0;
	return 0;
}

/* What is looked for in a dump of one hook's filters. */
struct search {
	uint32_t priority, handle;
	uint32_t before; /* filters that run before it, of a lower preference or of its own */
	uint32_t beside; /* filters of its preference that are not it */
	bool found;
};

static bool is_entered(const struct nlmsghdr *header)
{
	struct nlattr *chain = nlmsg_find_attr((struct nlmsghdr *)header, sizeof(struct tcmsg), TCA_CHAIN);

	return !chain || nla_get_u32(chain) == 0;
}

static int look_at(const struct nlmsghdr *header, void *data)
{
	const struct tcmsg *filter = nlmsg_data(header);
	struct search *search = data;
	uint32_t priority;

	if (header->nlmsg_type != RTM_NEWTFILTER || !nlmsg_valid_hdr(header, sizeof(*filter)))
		return 0;
	priority = TC_H_MAJ(filter->tcm_info) >> 16;
	/* Handle 0 is the preference itself, which its filters follow. */
	if (!filter->tcm_handle || priority > search->priority || !is_entered(header))
		return 0;
	if (priority == search->priority && filter->tcm_handle == search->handle) {
		search->found = true;
		return 0;
	}
	if (priority == search->priority)
		search->beside++;
	if (!search->found)
		search->before++;
	return 0;
}

static void begin_again(void *data)
{
	struct search *search = data;

	*search = (struct search){.priority = search->priority, .handle = search->handle};
}

static int dump(uint32_t ifindex, bool egress, struct search *search)
{
	const struct netlink_reader reader = {.message = look_at, .restart = begin_again, .data = search};
	const struct tcmsg request = {
		.tcm_family = AF_UNSPEC,
		.tcm_ifindex = (int)ifindex,
		.tcm_parent = TC_H_MAKE(TC_H_CLSACT, egress ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS),
	};
	_cleanup_netlink_message_ struct nl_msg *message =
		netlink_message(RTM_GETTFILTER, NLM_F_DUMP, REQUEST_SIZE);

	if (!message || nlmsg_append(message, (void *)&request, sizeof(request), NLMSG_ALIGNTO) < 0)
		return -ENOMEM;
	return netlink_ask(NETLINK_ROUTE, message, &reader);
}

int chain_is_taken(uint32_t ifindex, bool egress, uint32_t priority)
{
	struct search search = {.priority = priority};
	int r = dump(ifindex, egress, &search);

	return r < 0 ? r : search.beside > 0;
}

int chain_has_before(uint32_t ifindex, bool egress, uint32_t priority, uint32_t handle)
{
	struct search search = {.priority = priority, .handle = handle};
	int r = dump(ifindex, egress, &search);

	return r < 0 ? r : search.before > 0;
}

/* What is looked for in the answer about an interface. */
struct xdp_search {
	uint32_t ours;
	bool found;
};

static int look_at_xdp(const struct nlmsghdr *header, void *data)
{
	/* By their modes; IFLA_XDP_PROG_ID is one of them once more. */
	static const int modes[] = {IFLA_XDP_SKB_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_HW_PROG_ID};
	struct xdp_search *search = data;
	struct nlattr *xdp;

	if (header->nlmsg_type != RTM_NEWLINK || !nlmsg_valid_hdr(header, sizeof(struct ifinfomsg)))
		return 0;
	xdp = nlmsg_find_attr((struct nlmsghdr *)header, sizeof(struct ifinfomsg), IFLA_XDP);
	for (size_t i = 0; xdp && i < ARRAY_SIZE(modes); i++) {
		struct nlattr *id = nla_find(nla_data(xdp), nla_len(xdp), modes[i]);

		if (id && nla_len(id) >= (int)sizeof(uint32_t) && nla_get_u32(id) != search->ours)
			search->found = true;
	}
	return 0;
}

int chain_has_xdp(uint32_t ifindex, uint32_t ours)
{
	struct xdp_search search = {.ours = ours};
	const struct netlink_reader reader = {.message = look_at_xdp, .data = &search};
	const struct ifinfomsg request = {.ifi_index = (int)ifindex};
	_cleanup_netlink_message_ struct nl_msg *message = netlink_message(RTM_GETLINK, 0, REQUEST_SIZE);
	int r;

	if (!message || nlmsg_append(message, (void *)&request, sizeof(request), NLMSG_ALIGNTO) < 0)
		return -ENOMEM;
	r = netlink_ask(NETLINK_ROUTE, message, &reader);
	return r < 0 ? r : search.found;
}
