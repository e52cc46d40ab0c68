/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Configuring a WireGuard device, the kernel's over generic netlink or a userspace one over its UAPI socket.
 * Each exchange with the device blocks at most WG_TIMEOUT_SECONDS (-ETIMEDOUT); a change of very many peers
 * is several. None is atomic: after any error, dump and compare again. -ENODEV: the device is gone.
 */
#ifndef WIRETOLL_WG_WG_H
#define WIRETOLL_WG_WG_H

#include "base/base.h"
#include "base/cidr.h"
#include "base/key.h"

#include <sys/socket.h>

#define WG_TIMEOUT_SECONDS 2

struct wg;

struct wg_peer {
	struct key public_key;
	struct key preshared_key;
	bool has_preshared_key;
	struct sockaddr_storage endpoint; /* ss_family AF_UNSPEC: none */
	uint16_t keepalive;               /* seconds; 0: off */
	int64_t handshake_ns;             /* UTC; 0: never */
	uint64_t rx_bytes, tx_bytes;      /* WireGuard's own counters */
	struct cidr *allowed_ips;         /* sorted by cidr_compare */
	size_t n_allowed_ips;
};

struct wg_device {
	struct key public_key; /* zero: no key set */
	uint16_t listen_port;
	uint32_t mark;         /* of the outer packets; 0: none */
	struct wg_peer *peers; /* sorted by public key, whatever order the device lists them in */
	size_t n_peers;
};

/* One peer's change; what is not flagged stays as it is. */
struct wg_peer_change {
	struct key public_key;
	bool remove;
	bool update_only; /* do not create the peer if it is missing */
	bool set_preshared_key;
	struct key preshared_key; /* zero: none */
	bool set_endpoint;
	struct sockaddr_storage endpoint;
	bool set_keepalive;
	uint16_t keepalive;
	/* Replaces the whole list, and only then; otherwise the list is added to. Use it only to remove. */
	bool replace_allowed_ips;
	const struct cidr *allowed_ips;
	size_t n_allowed_ips;
};

/*
 * Opens the device: the kernel's if the interface is one, else the UAPI socket
 * /var/run/wireguard/INTERFACE.sock. -ENODEV when there is neither.
 */
WT_MUST_CHECK int wg_open(const char *interface, struct wg **ret_wg);
void wg_close(struct wg *wg);

/* "kernel" or "userspace". */
const char *wg_kind(const struct wg *wg);

/* The whole device; free with wg_device_free(), which wipes keys and accepts NULL. */
WT_MUST_CHECK int wg_dump(struct wg *wg, struct wg_device **ret_device);
void wg_device_free(struct wg_device *device);
const struct wg_peer *wg_device_find(const struct wg_device *device, const struct key *public_key);

/* Sets private key and listen port; peers stay, and where nothing differs their packets too. */
WT_MUST_CHECK int wg_set_interface(struct wg *wg, const struct key *private_key, uint16_t listen_port);

/* Marks the device's outer packets for policy routing; 0: no mark. No packet is lost. */
WT_MUST_CHECK int wg_set_mark(struct wg *wg, uint32_t mark);

/*
 * Applies changes in order, touching no other peer. Several go in as few messages as fit. Returns the first
 * error; -EINVAL, before anything is changed, for a prefix with host bits or an endpoint without family.
 */
WT_MUST_CHECK int wg_change_peers(struct wg *wg, const struct wg_peer_change *changes, size_t n_changes);

/*
 * Takes one allowed IP from a peer while its others, and its session, stay: by the per-prefix flag where the
 * kernel has it, else by moving it to a parking peer (random key, no endpoint) that is then removed. Nothing
 * happens when the peer does not have it.
 */
WT_MUST_CHECK int wg_remove_allowed_ip(struct wg *wg, const struct key *public_key,
				       const struct cidr *prefix);

#endif
