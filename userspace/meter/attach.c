// SPDX-License-Identifier: BSD-2-Clause
/*
 * The two hooks of the interface: tcx links (Linux 6.6), or clsact filters; ingress may be XDP's. Ingress
 * runs first, so that nobody hides packets from it; egress runs last, so that what others drop is not
 * counted.
 */
#include "meter/internal.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>

/* Newer than Debian 12's headers. */
#define TCX_BEFORE (1U << 3)
#define TCX_AFTER  (1U << 4)
#define TCX_LINK   11

/* The ends of the chain of clsact filters: a lower priority runs earlier. */
#define TC_FIRST  1
#define TC_LAST   65535
#define TC_HANDLE 1

/* More than the kernel lets there be on one hook (BPF_MPROG_MAX is 64). */
#define MAX_PROGRAMS 64

static int program_id(int fd, uint32_t *ret_id)
{
	struct bpf_prog_info info = {0};
	uint32_t size = sizeof(info);
	int r = bpf_obj_get_info_by_fd(fd, &info, &size);

	if (r < 0)
		return r;
	*ret_id = info.id;
	return 0;
}

static int make_link(int program, uint32_t ifindex, enum bpf_attach_type type, uint32_t flags, int *ret_link)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);
	int link = bpf_link_create(program, (int)ifindex, type, &options);

	if (link < 0)
		return link;
	*ret_link = link;
	return 0;
}

static int link_ingress(uint32_t ifindex, int fds[static OBJECTS])
{
	return make_link(fds[OBJECT_INGRESS], ifindex, TCX_INGRESS, TCX_BEFORE, &fds[OBJECT_INGRESS_LINK]);
}

static int link_egress(uint32_t ifindex, int fds[static OBJECTS])
{
	return make_link(fds[OBJECT_EGRESS], ifindex, TCX_EGRESS, TCX_AFTER, &fds[OBJECT_EGRESS_LINK]);
}

/* Debian 12's header does not know the tcx member: it is laid out as netns is (index, attach type). */
static bool verify_link(int link, int program, uint32_t ifindex, enum bpf_attach_type type)
{
	struct bpf_link_info info = {0};
	uint32_t size = sizeof(info), id;

	if (link < 0 || program < 0 || program_id(program, &id) < 0)
		return false;
	if (bpf_obj_get_info_by_fd(link, &info, &size) < 0 || info.prog_id != id)
		return false;
	/* 0 is what a link is left with when its interface goes. */
	if (type == BPF_XDP)
		return info.type == BPF_LINK_TYPE_XDP && info.xdp.ifindex == ifindex;
	return info.type == TCX_LINK && info.netns.netns_ino == ifindex && info.netns.attach_type == type;
}

/*
 * Whether a program is on the tcx egress hook of the interface that has this index in this network namespace:
 * a link's own word names no namespace.
 */
static bool is_on_egress(int program, uint32_t ifindex)
{
	uint32_t ids[MAX_PROGRAMS] = {0}, count = MAX_PROGRAMS, id;

	if (program_id(program, &id) < 0 ||
	    bpf_prog_query((int)ifindex, TCX_EGRESS, 0, NULL, ids, &count) < 0)
		return false;
	for (uint32_t i = 0; i < count && i < MAX_PROGRAMS; i++) {
		if (ids[i] == id)
			return true;
	}
	return false;
}

struct filter {
	enum bpf_tc_attach_point point;
	uint32_t priority;
	enum meter_object program;
};

static const struct filter ingress_filter = {BPF_TC_INGRESS, TC_FIRST, OBJECT_INGRESS};
static const struct filter egress_filter = {BPF_TC_EGRESS, TC_LAST, OBJECT_EGRESS};

static bool is_egress(const struct filter *filter)
{
	return filter->point == BPF_TC_EGRESS;
}

static int add_filter(const struct filter *filter, uint32_t ifindex, const int fds[static OBJECTS])
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = filter->point);
	LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = fds[filter->program], .handle = TC_HANDLE,
		    .priority = filter->priority);
	int r = bpf_tc_hook_create(&hook), taken;

	if (r < 0 && r != -EEXIST)
		return r;
	taken = chain_is_taken(ifindex, is_egress(filter), filter->priority);
	if (taken < 0)
		return taken;
	r = taken ? -EBUSY : bpf_tc_attach(&hook, &options);
	return r == -EEXIST ? -EBUSY : r;
}

static bool verify_filter(const struct filter *filter, uint32_t ifindex, const int fds[static OBJECTS])
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = filter->point);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = TC_HANDLE, .priority = filter->priority);
	int program = fds[filter->program];
	uint32_t id;

	return program >= 0 && program_id(program, &id) == 0 && bpf_tc_query(&hook, &options) == 0 &&
	       options.prog_id == id;
}

static int remove_filter(const struct filter *filter, uint32_t ifindex, const int fds[static OBJECTS])
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = filter->point);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = TC_HANDLE, .priority = filter->priority);

	return verify_filter(filter, ifindex, fds) ? bpf_tc_detach(&hook, &options) : 0;
}

int detach_tc(uint32_t ifindex, const int fds[static OBJECTS])
{
	int r = remove_filter(&ingress_filter, ifindex, fds);

	return r < 0 ? r : remove_filter(&egress_filter, ifindex, fds);
}

static int attach_tcx(uint32_t ifindex, int fds[static OBJECTS])
{
	int r = link_ingress(ifindex, fds);

	return r < 0 ? r : link_egress(ifindex, fds);
}

static int attach_tc(uint32_t ifindex, const int fds[static OBJECTS])
{
	int r = add_filter(&ingress_filter, ifindex, fds);

	return r < 0 ? r : add_filter(&egress_filter, ifindex, fds);
}

/* Generic XDP, which every device has and which runs after the kernel's own GRO: hence the refusal. */
static int attach_xdp(const struct wt_meta *meta, int fds[static OBJECTS])
{
	int r = aggregates_expected(meta->ifname);

	if (r > 0)
		return -EOPNOTSUPP;
	if (r == 0)
		r = make_link(fds[OBJECT_INGRESS], meta->ifindex, BPF_XDP, XDP_FLAGS_SKB_MODE,
			      &fds[OBJECT_INGRESS_LINK]);
	if (r < 0)
		return r == -EEXIST ? -EBUSY : r;
	r = link_egress(meta->ifindex, fds);
	return r == -EINVAL ? add_filter(&egress_filter, meta->ifindex, fds) : r;
}

int attach_hooks(const struct wt_meta *meta, enum meter_attach how, int fds[static OBJECTS],
		 uint32_t *ret_attachment)
{
	int r;

	if (how == METER_ATTACH_XDP) {
		*ret_attachment = WT_ATTACHED_XDP;
		return attach_xdp(meta, fds);
	}
	*ret_attachment = WT_ATTACHED_TCX;
	r = how == METER_ATTACH_TC ? -EINVAL : attach_tcx(meta->ifindex, fds);
	/* A kernel before 6.6 does not know the attach type. */
	if (r != -EINVAL || how == METER_ATTACH_TCX)
		return r;
	*ret_attachment = WT_ATTACHED_TC;
	return attach_tc(meta->ifindex, fds);
}

static int swap_hook(const struct filter *filter, uint32_t ifindex, int link, int program)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = filter->point);
	LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = program, .handle = TC_HANDLE,
		    .priority = filter->priority, .flags = BPF_TC_F_REPLACE);

	return link >= 0 ? bpf_link_update(link, program, NULL) : bpf_tc_attach(&hook, &options);
}

int attach_swap(const struct wt_meta *meta, const int fds[static OBJECTS])
{
	int r = swap_hook(&ingress_filter, meta->ifindex, fds[OBJECT_INGRESS_LINK], fds[OBJECT_INGRESS]);

	if (r == 0)
		r = swap_hook(&egress_filter, meta->ifindex, fds[OBJECT_EGRESS_LINK], fds[OBJECT_EGRESS]);
	return r == -ENODEV ? -ENOLINK : r;
}

static bool verify_ingress(const struct wt_meta *meta, uint32_t ifindex, const int fds[static OBJECTS])
{
	if (meta->attachment == WT_ATTACHED_TC)
		return verify_filter(&ingress_filter, ifindex, fds);
	return verify_link(fds[OBJECT_INGRESS_LINK], fds[OBJECT_INGRESS], ifindex,
			   meta->attachment == WT_ATTACHED_XDP ? BPF_XDP : TCX_INGRESS);
}

/* A filter is asked for by namespace and index; both links are of one interface, so one of them is enough. */
bool attach_is_on(const struct wt_meta *meta, uint32_t ifindex, const int fds[static OBJECTS])
{
	if (!verify_ingress(meta, ifindex, fds))
		return false;
	if (fds[OBJECT_EGRESS_LINK] < 0)
		return verify_filter(&egress_filter, ifindex, fds);
	return verify_link(fds[OBJECT_EGRESS_LINK], fds[OBJECT_EGRESS], ifindex, TCX_EGRESS) &&
	       is_on_egress(fds[OBJECT_EGRESS], ifindex);
}

/* The XDP member of the info begins with the index as well. */
static uint32_t link_index(int link, int program)
{
	struct bpf_link_info info = {0};
	uint32_t size = sizeof(info), id;

	if (link < 0 || program < 0 || program_id(program, &id) < 0 ||
	    bpf_obj_get_info_by_fd(link, &info, &size) < 0 || info.prog_id != id)
		return 0;
	return info.netns.netns_ino;
}

uint32_t attach_index(const int fds[static OBJECTS])
{
	uint32_t ingress = link_index(fds[OBJECT_INGRESS_LINK], fds[OBJECT_INGRESS]);

	if (fds[OBJECT_EGRESS_LINK] >= 0 &&
	    link_index(fds[OBJECT_EGRESS_LINK], fds[OBJECT_EGRESS]) != ingress)
		return 0;
	return ingress;
}

/* Whether another program comes before ours at a hook of tc. */
static int is_preceded(const struct meter *meter, const struct filter *filter, enum meter_object link)
{
	uint32_t ifindex = meter->meta->ifindex, first = 0, ours = 0;
	int r = chain_first_tcx(ifindex, is_egress(filter), &first);

	if (r == 0)
		r = program_id(meter->fds[filter->program], &ours);
	if (r < 0)
		return r;
	if (meter->fds[link] >= 0)
		return first != ours;
	/* All tcx programs run before the first clsact filter. */
	return first ? 1 : chain_has_before(ifindex, is_egress(filter), filter->priority, TC_HANDLE);
}

/* The same by XDP, which comes before tc: any program there, but the meter's own. */
static int is_preceded_by_xdp(const struct meter *meter)
{
	uint32_t ours = 0;
	int r = 0;

	if (meter->meta->attachment == WT_ATTACHED_XDP)
		r = program_id(meter->fds[OBJECT_INGRESS], &ours);
	return r < 0 ? r : chain_has_xdp(meter->meta->ifindex, ours);
}

int meter_is_shadowed(const struct meter *meter)
{
	int r;

	if (meter->stale)
		return -ENOLINK;
	if (!attach_is_on(meter->meta, meter->meta->ifindex, meter->fds))
		return attach_index(meter->fds) ? -EXDEV : -ENOLINK;
	r = is_preceded_by_xdp(meter);
	if (r != 0)
		return r;
	/* To an XDP program, aggregates hide their headers. */
	if (meter->meta->attachment == WT_ATTACHED_XDP)
		r = aggregates_expected(meter->meta->ifname);
	else
		r = is_preceded(meter, &ingress_filter, OBJECT_INGRESS_LINK);
	return r != 0 ? r : is_preceded(meter, &egress_filter, OBJECT_EGRESS_LINK);
}
