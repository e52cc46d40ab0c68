// SPDX-License-Identifier: BSD-2-Clause
/*
 * Traffic that is worth watching: the laptop sends datagrams at a rate that rises and falls within 20
 * seconds, and the server answers each with more. One process holds both ends: a socket stays in the
 * namespace in which it was made.
 */
#include "base/clock.h"
#include "cli/up_sample_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT           9000
#define TICK_MS        50
#define WAVE_TICKS     400
#define MAX_PER_TICK   4 /* 80 datagrams a second: 0.3 Mbit/s up, 1 Mbit/s down */
#define UPLOAD_BYTES   500
#define DOWNLOAD_BYTES 800
#define ANSWERS        2

static int open_socket(const char *host, int *ret_fd)
{
	_cleanup_close_ int netns = -1;
	up_path path;
	int fd;

	netns = open(sample_netns(host, path), O_RDONLY | O_CLOEXEC);
	if (netns < 0 || setns(netns, CLONE_NEWNET) < 0)
		return -errno;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int open_both(int *ret_server, int *ret_laptop)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	_cleanup_close_ int server = -1;
	_cleanup_close_ int laptop = -1;
	int r;

	inet_pton(AF_INET, SAMPLE_SERVER_ADDRESS, &address.sin_addr);
	r = open_socket(SAMPLE_SERVER, &server);
	if (r == 0 && bind(server, (struct sockaddr *)&address, sizeof(address)) < 0)
		r = -errno;
	if (r == 0)
		r = open_socket(SAMPLE_LAPTOP, &laptop);
	if (r == 0 && connect(laptop, (struct sockaddr *)&address, sizeof(address)) < 0)
		r = -errno;
	if (r < 0)
		return r;
	*ret_server = TAKE_FD(server);
	*ret_laptop = TAKE_FD(laptop);
	return 0;
}

/* What cannot be sent is lost, as on any network. */
static void answer(int server)
{
	static const char bytes[DOWNLOAD_BYTES];
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	char buffer[UPLOAD_BYTES];

	while (recvfrom(server, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &length) >= 0) {
		for (int i = 0; i < ANSWERS; i++)
			(void)sendto(server, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, length);
		length = sizeof(from);
	}
}

static void swallow(int laptop)
{
	char buffer[DOWNLOAD_BYTES];

	/* Also takes what ICMP has said of earlier datagrams. */
	for (int i = 0; i < 64; i++)
		if (recv(laptop, buffer, sizeof(buffer), 0) < 0 && errno == EAGAIN)
			return;
}

static void send_some(int laptop, unsigned tick)
{
	static const char bytes[UPLOAD_BYTES];
	unsigned place = tick % WAVE_TICKS;
	unsigned height = place < WAVE_TICKS / 2 ? place : WAVE_TICKS - 1 - place;
	unsigned n = 1 + height * MAX_PER_TICK / (WAVE_TICKS / 2);

	for (unsigned i = 0; i < n; i++)
		(void)send(laptop, bytes, sizeof(bytes), 0);
}

static void exchange(int server, int laptop)
{
	struct pollfd fds[] = {{.fd = server, .events = POLLIN}, {.fd = laptop, .events = POLLIN}};
	int64_t next = clock_boot_ns();

	for (unsigned tick = 0;;) {
		int64_t left = next - clock_boot_ns();

		if (left <= 0) {
			send_some(laptop, tick++);
			next = clock_boot_ns() + TICK_MS * 1000000LL;
			continue;
		}
		poll(fds, ARRAY_SIZE(fds), (int)(left / 1000000) + 1);
		answer(server);
		swallow(laptop);
	}
}

static int give_up_rights(void)
{
	if (setgroups(0, NULL) < 0 ||
	    setresgid(SAMPLE_TRAFFIC_UID, SAMPLE_TRAFFIC_UID, SAMPLE_TRAFFIC_UID) < 0 ||
	    setresuid(SAMPLE_TRAFFIC_UID, SAMPLE_TRAFFIC_UID, SAMPLE_TRAFFIC_UID) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

/* The signals are blocked, as its parent's: only SIGKILL ends it. */
static int run(int server, int laptop, pid_t parent)
{
	int r = give_up_rights();

	/* After the uid is set, which clears it. */
	if (r == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent))
		r = -ECHILD;
	if (r == 0)
		exchange(server, laptop);
	return r;
}

int sample_start_traffic(pid_t *ret_pid)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		int server, laptop;
		int r = open_both(&server, &laptop);

		_exit(r == 0 && run(server, laptop, parent) == 0 ? 0 : 1);
	}
	*ret_pid = pid;
	return 0;
}
