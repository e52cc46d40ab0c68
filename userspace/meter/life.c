// SPDX-License-Identifier: BSD-2-Clause
/* A meter's life: attached, or adopted; removed. */
#include "meter/internal.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

static int meter_new(const char *folder, bool create, struct meter **ret_meter)
{
	struct meter *meter = meter_blank(folder);
	int r = -ENOMEM;

	if (!meter)
		return r;
	r = pins_lock(folder, create, &meter->lock);
	/* What an earlier process has left unfinished. */
	if (r == 0)
		r = pins_clear(folder, PINS_NEW);
	if (r == 0)
		r = pins_clear(folder, PINS_OLD);
	if (r == 0)
		r = handover_recover(folder);
	if (r < 0) {
		meter_close(meter);
		return r;
	}
	*ret_meter = meter;
	return 0;
}

/* Same boot, and both programs on the interface, whatever it is called and wherever it was before. */
static bool is_current(const struct meter *meter, const struct wt_meta *here)
{
	return memcmp(here->boot_id, meter->meta->boot_id, sizeof(here->boot_id)) == 0 &&
	       attach_is_on(meter->meta, here->ifindex, meter->fds);
}

static int note_interface(struct meter *meter, const struct wt_meta *here)
{
	struct wt_meta meta = *meter->meta;
	uint32_t zero = 0;
	int r;

	if (meta.ifindex == here->ifindex && meta.netns_cookie == here->netns_cookie &&
	    memcmp(meta.ifname, here->ifname, sizeof(meta.ifname)) == 0)
		return 0;
	meta.ifindex = here->ifindex;
	meta.netns_cookie = here->netns_cookie;
	memcpy(meta.ifname, here->ifname, sizeof(meta.ifname));
	r = bpf_map_update_elem(meter->fds[OBJECT_META], &zero, &meta, BPF_ANY);
	maps_identify(meter);
	return r;
}

int meter_note_interface(struct meter *meter, const char *interface)
{
	struct wt_meta here;
	int r = identity_here(interface, &here);

	if (r < 0)
		return r;
	return is_current(meter, &here) ? note_interface(meter, &here) : -ENOLINK;
}

int meter_adopt(const struct meter_options *options, struct meter **ret_meter)
{
	_cleanup_meter_ struct meter *meter = NULL;
	int r = meter_new(options->pin_folder, false, &meter);

	if (r == 0)
		r = meter_open_stage(meter, PINS_LIVE);
	if (r < 0)
		return r;
	handover_undo(meter);
	meter->stale = meter_note_interface(meter, options->interface) < 0;
	r = meter->stale ? -ESTALE : attribution_recover(&meter->table);
	if (r == 0 || r == -ESTALE)
		*ret_meter = TAKE_PTR(meter);
	return r;
}

/* Maps and programs are pinned before anything is attached: by them a filter left by a crash is found. */
static int build(struct meter *meter, struct wt_meta *meta, enum meter_attach how)
{
	uint32_t zero = 0;
	int r = meter_load(meter, meta, how == METER_ATTACH_XDP);

	if (r == 0)
		r = attach_hooks(meta, how, meter->fds, &meta->attachment);
	if (r == 0)
		r = meter_pin_range(meter, OBJECT_INGRESS_LINK, OBJECTS);
	if (r == 0)
		r = bpf_map_update_elem(meter->fds[OBJECT_META], &zero, meta, BPF_ANY);
	if (r == 0)
		r = pins_move(meter->folder, PINS_NEW, PINS_LIVE);
	for (int i = 0; i < OBJECTS; i++) {
		cleanup_close(&meter->fds[i]);
		meter->fds[i] = -1;
	}
	return r;
}

static int describe(const struct meter_options *options, struct wt_meta *ret_meta)
{
	int r = identity_here(options->interface, ret_meta);

	return r < 0 ? r : meter_size(ret_meta, options->capacity ? options->capacity : WT_DEFAULT_CAPACITY);
}

int meter_attach(const struct meter_options *options, struct meter **ret_meter)
{
	_cleanup_meter_ struct meter *meter = NULL;
	struct wt_meta meta;
	int r = describe(options, &meta), cleared;

	if (r == 0)
		r = meter_new(options->pin_folder, true, &meter);
	if (r < 0)
		return r;
	if (pins_exist(meter->folder, PINS_LIVE))
		return -EEXIST;
	r = build(meter, &meta, options->attach);
	if (r < 0) {
		cleared = pins_clear(meter->folder, PINS_NEW);
		if (cleared == 0)
			rmdir(meter->folder);
		return r;
	}
	r = meter_open_stage(meter, PINS_LIVE);
	if (r == 0)
		r = attribution_recover(&meter->table);
	if (r == 0)
		*ret_meter = TAKE_PTR(meter);
	return r;
}

int meter_remove(struct meter *meter)
{
	int r = pins_move(meter->folder, PINS_LIVE, PINS_OLD);

	/*
	 * Now, and not a moment after the last descriptor and pin are gone. The link of an interface that is
	 * gone is detached already.
	 */
	for (int i = OBJECT_INGRESS_LINK; i < OBJECTS; i++) {
		if (r == 0 && meter->fds[i] >= 0)
			(void)bpf_link_detach(meter->fds[i]);
		cleanup_close(&meter->fds[i]);
		meter->fds[i] = -1;
	}
	if (r == 0)
		r = pins_clear(meter->folder, PINS_OLD);
	if (r == 0)
		r = pins_clear(meter->folder, PINS_SEALED);
	if (r == 0 && rmdir(meter->folder))
		r = -errno;
	meter_close(meter);
	return r;
}
