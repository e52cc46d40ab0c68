// SPDX-License-Identifier: BSD-2-Clause
/*
 * The two hooks of the interface: tcx links (Linux 6.6), or clsact filters. Ingress runs first, so that
 * nobody hides packets from it; egress runs last, so that what others drop is not counted.
 */
#include "meter/internal.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>

/* Newer than Debian 12's headers. */
#define TCX_INGRESS ((enum bpf_attach_type)46)
#define TCX_EGRESS  ((enum bpf_attach_type)47)
#define TCX_BEFORE  (1U << 3)
#define TCX_AFTER   (1U << 4)
#define TCX_LINK    11

/* The ends of the chain of clsact filters: a lower priority runs earlier. */
#define TC_FIRST  1
#define TC_LAST   65535
#define TC_HANDLE 1

/* More programs on one hook than the kernel lets there be (BPF_MPROG_MAX is 64). */
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

int attach_tcx(uint32_t ifindex, int fds[static OBJECTS])
{
	int r = make_link(fds[OBJECT_INGRESS], ifindex, TCX_INGRESS, TCX_BEFORE, &fds[OBJECT_INGRESS_LINK]);

	if (r < 0)
		return r;
	return make_link(fds[OBJECT_EGRESS], ifindex, TCX_EGRESS, TCX_AFTER, &fds[OBJECT_EGRESS_LINK]);
}

/*
 * ifindex 0 is what a link is left with when its interface goes; attach_type and program must be ours. Debian
 * 12's header does not know the tcx member: it is laid out as netns is (index, attach type).
 */
static bool verify_link(int link, int program, uint32_t ifindex, enum bpf_attach_type type)
{
	struct bpf_link_info info = {0};
	uint32_t size = sizeof(info), id;

	if (link < 0 || program < 0 || program_id(program, &id) < 0)
		return false;
	if (bpf_obj_get_info_by_fd(link, &info, &size) < 0)
		return false;
	return info.type == TCX_LINK && info.prog_id == id && info.netns.netns_ino == ifindex &&
	       info.netns.attach_type == type;
}

struct filter {
	enum bpf_tc_attach_point point;
	uint32_t priority;
	enum meter_object program;
};

static const struct filter filters[] = {
	{BPF_TC_INGRESS, TC_FIRST, OBJECT_INGRESS},
	{BPF_TC_EGRESS, TC_LAST, OBJECT_EGRESS},
};

static int add_filter(const struct filter *filter, uint32_t ifindex, int program)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = filter->point);
	LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = program, .handle = TC_HANDLE,
		    .priority = filter->priority);
	int r = bpf_tc_hook_create(&hook);

	if (r < 0 && r != -EEXIST)
		return r;
	r = bpf_tc_attach(&hook, &options);
	/* EINVAL: a filter of another kind has this priority. */
	return r == -EEXIST || r == -EINVAL ? -EBUSY : r;
}

int attach_tc(uint32_t ifindex, const int fds[static OBJECTS])
{
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		int r = add_filter(&filters[i], ifindex, fds[filters[i].program]);

		if (r < 0)
			return r;
	}
	return 0;
}

static bool verify_filter(const struct filter *filter, uint32_t ifindex, int program)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = filter->point);
	LIBBPF_OPTS(bpf_tc_opts, options, .handle = TC_HANDLE, .priority = filter->priority);
	uint32_t id;

	return program >= 0 && program_id(program, &id) == 0 && bpf_tc_query(&hook, &options) == 0 &&
	       options.prog_id == id;
}

int detach_tc(uint32_t ifindex, const int fds[static OBJECTS])
{
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = filters[i].point);
		LIBBPF_OPTS(bpf_tc_opts, options, .handle = TC_HANDLE, .priority = filters[i].priority);
		int r;

		if (!verify_filter(&filters[i], ifindex, fds[filters[i].program]))
			continue;
		r = bpf_tc_detach(&hook, &options);
		if (r < 0)
			return r;
	}
	return 0;
}

bool attach_verify(const struct wt_meta *meta, const int fds[static OBJECTS])
{
	if (meta->attachment == WT_ATTACHED_TCX)
		return verify_link(fds[OBJECT_INGRESS_LINK], fds[OBJECT_INGRESS], meta->ifindex,
				   TCX_INGRESS) &&
		       verify_link(fds[OBJECT_EGRESS_LINK], fds[OBJECT_EGRESS], meta->ifindex, TCX_EGRESS);
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++)
		if (!verify_filter(&filters[i], meta->ifindex, fds[filters[i].program]))
			return false;
	return true;
}

/* The first of the interface's tcx programs on ingress, 0 when there is none. */
static int first_program(uint32_t ifindex, uint32_t *ret_id)
{
	uint32_t ids[MAX_PROGRAMS] = {0}, count = MAX_PROGRAMS;
	int r = bpf_prog_query((int)ifindex, TCX_INGRESS, 0, NULL, ids, &count);

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

int meter_is_shadowed(const struct meter *meter)
{
	uint32_t first = 0, ours = 0;
	int r;

	if (meter->stale || !attach_verify(meter->meta, meter->fds))
		return -ENOLINK;
	r = first_program(meter->meta->ifindex, &first);
	if (r == 0)
		r = program_id(meter->fds[OBJECT_INGRESS], &ours);
	if (r < 0)
		return r;
	/* All tcx programs run before the first clsact filter. */
	return meter->meta->attachment == WT_ATTACHED_TCX ? first != ours : first != 0;
}
