/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of `wiretoll up --sample` share. */
#ifndef WIRETOLL_CLI_UP_SAMPLE_PARTS_H
#define WIRETOLL_CLI_UP_SAMPLE_PARTS_H

#include "cli/session.h"
#include "cli/up_control.h"

#include <sys/types.h>

/* Each is also the name of its namespace and of its cable's end on the host. */
#define SAMPLE_SERVER "wtsample-server"
#define SAMPLE_LAPTOP "wtsample-laptop"

#define SAMPLE_PUBLIC_BRIDGE  "wtsample-pub"
#define SAMPLE_PRIVATE_BRIDGE "wtsample-vpc"

/* TEST-NET-2 stands for the internet. */
#define SAMPLE_PUBLIC         "198.51.100.0/24"
#define SAMPLE_HOST           "198.51.100.1"
#define SAMPLE_PUBLIC_RANGE   "198.51.100.10-198.51.100.19"
#define SAMPLE_LAPTOP_ADDRESS "198.51.100.101"
#define SAMPLE_PRIVATE        "10.231.0.0/24"
#define SAMPLE_PRIVATE_RANGE  "10.231.0.2-10.231.0.9"
#define SAMPLE_SERVER_ADDRESS "10.231.0.10"

#define SAMPLE_GATEWAY   "sample"
#define SAMPLE_PEER      "laptop"
#define SAMPLE_WIREGUARD "wtsample-wg"

/* Nobody logs in with it: the traffic's. */
#define SAMPLE_TRAFFIC_UID 999000003U

/* "/run/netns/NAME" */
const char *sample_netns(const char *name, up_path path);

/* ---- up_sample_data.c: what the API is told -------------------------------------------------------------
 */

/* Logs in as an admin of its own. All failures below leave a problem in the session. */
WT_MUST_CHECK int sample_login(const struct up *up, struct session *session);

/* Creates what is not there yet, by name: location, plan, host, users, VPC and gateway. */
WT_MUST_CHECK int sample_fill(const struct up *up, struct session *session);

/* Waits until the gateway is active and has applied every change. -EINTR when asked to stop. */
WT_MUST_CHECK int sample_await_gateway(struct session *session);

/* Adds the client with this public key, or gives it this one, and downloads its configuration. */
WT_MUST_CHECK int sample_add_peer(struct session *session, const char *public_key, char **ret_config);

/* Prints how operator and customer sign in, with a one-time token each. */
WT_MUST_CHECK int sample_print_logins(struct session *session);

/* ---- up_sample_client.c, up_sample_traffic.c ------------------------------------------------------------
 */

/* Makes a key pair and connects the client. *ret_pid is its wireguard-go, or 0 where the kernel has
 * WireGuard. */
WT_MUST_CHECK int sample_connect_client(struct session *session, pid_t *ret_pid);

/* Starts the child that sends and answers. -errno. */
WT_MUST_CHECK int sample_start_traffic(pid_t *ret_pid);

#endif
