// SPDX-License-Identifier: BSD-2-Clause
/*
 * Thousands of agents that poll one replica, each over a connection of its own, with the timeouts and pauses
 * of the real one (userspace/agent/follow.c, http.c, backoff.c). crowd.py leads it: standard input has a line
 * with the port and the CA's file, a token a line, an empty line, and then, at any time, a revision: twenty
 * times a second, standard output says how many agents have been told of a later one, and how many attempts
 * have failed.
 */
#include "bench.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_SECONDS 3 /* with the handshake */
#define POLL_SECONDS    60
#define FIRST_PAUSE_MS  200
#define LAST_PAUSE_MS   10000
#define ANSWER_SIZE     16384
#define ROUND_NS        (10 * 1000000)
#define WORD_NS         (50 * 1000000)
#define MAX_EVENTS      32
#define LONGEST_WAIT_NS (20 * 1000000)
#define SERVER_NAME     "wiretoll-api"
/* One key unasked, for X25519, as libcurl's OpenSSL sends it. */
#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:-GROUP-ALL:+GROUP-X25519"

enum state { PAUSED, CONNECTING, SHAKING, RESTING, WAITING };

struct agent {
	enum state state;
	char *token, *answer;
	size_t length;
	uint64_t revision;
	unsigned failures;
	int fd;
	gnutls_session_t session;
	int64_t until_ns;
};

static struct {
	struct sockaddr_in address;
	gnutls_certificate_credentials_t trust;
	gnutls_priority_t priorities;
	struct agent *agents;
	size_t n_agents, failed;
	uint64_t revision;
	int epoll;
	/*
	 * The agents' clock. It stands still while this process works or is late, as thousands of machines
	 * would not have to wait for one another: no attempt fails for its client's own slowness.
	 */
	int64_t now_ns;
} crowd;

static void expect(struct agent *agent, enum state state, int64_t ns)
{
	agent->state = state;
	agent->until_ns = crowd.now_ns + ns;
}

static void pause_after_failure(struct agent *agent, enum state state)
{
	uint32_t bound = FIRST_PAUSE_MS;

	for (unsigned i = 0; i < agent->failures && bound < LAST_PAUSE_MS; i++)
		bound *= 2;
	if (bound > LAST_PAUSE_MS)
		bound = LAST_PAUSE_MS;
	agent->failures++;
	crowd.failed++;
	expect(agent, state, (int64_t)(random_number() % bound + 1) * 1000000);
}

static void lose(struct agent *agent)
{
	if (agent->session)
		gnutls_deinit(agent->session);
	agent->session = NULL;
	close(agent->fd);
	free(agent->answer);
	agent->answer = NULL;
	agent->length = 0;
	pause_after_failure(agent, PAUSED);
}

static void begin(struct agent *agent)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = agent};

	agent->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (agent->fd < 0 || epoll_ctl(crowd.epoll, EPOLL_CTL_ADD, agent->fd, &event) < 0)
		fail("socket: %s", strerror(errno));
	expect(agent, CONNECTING, CONNECT_SECONDS * NSEC_PER_SEC);
	if (connect(agent->fd, (struct sockaddr *)&crowd.address, sizeof(crowd.address)) < 0 &&
	    errno != EINPROGRESS)
		lose(agent);
}

static void ask(struct agent *agent)
{
	char request[512];
	int length = snprintf(request, sizeof(request),
			      "GET /v1/agent/state?have=%" PRIu64 " HTTP/1.1\r\nHost: " SERVER_NAME
			      "\r\nAuthorization: Bearer %s\r\nWiretoll-Protocol: 1\r\n\r\n",
			      agent->revision, agent->token);

	if (gnutls_record_send(agent->session, request, (size_t)length) == length)
		expect(agent, WAITING, POLL_SECONDS * NSEC_PER_SEC);
	else
		lose(agent);
}

static void shake(struct agent *agent)
{
	int r = gnutls_handshake(agent->session);

	if (r == 0)
		ask(agent);
	else if (gnutls_error_is_fatal(r))
		lose(agent);
}

static void secure(struct agent *agent)
{
	socklen_t size = sizeof(int);
	int error = 0;

	getsockopt(agent->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error) {
		lose(agent);
		return;
	}
	if (gnutls_init(&agent->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0 ||
	    gnutls_priority_set(agent->session, crowd.priorities) < 0 ||
	    gnutls_credentials_set(agent->session, GNUTLS_CRD_CERTIFICATE, crowd.trust) < 0 ||
	    gnutls_server_name_set(agent->session, GNUTLS_NAME_DNS, SERVER_NAME, strlen(SERVER_NAME)) < 0)
		fail("TLS: no memory");
	gnutls_session_set_verify_cert(agent->session, SERVER_NAME, 0);
	gnutls_transport_set_int(agent->session, agent->fd);
	agent->state = SHAKING;
	shake(agent);
}

/* What came is an answer once its body is there. */
static bool is_whole(const struct agent *agent)
{
	const char *body = strstr(agent->answer, "\r\n\r\n");
	const char *length = strcasestr(agent->answer, "\r\nContent-Length:");

	if (!body)
		return false;
	return !length || length > body ||
	       agent->answer + agent->length >= body + 4 + strtoul(length + 17, NULL, 10);
}

static void take(struct agent *agent)
{
	const char *revision = strstr(agent->answer, "\"revision\":");
	unsigned status = 0;

	sscanf(agent->answer, "HTTP/1.1 %u", &status);
	if ((status != 200 || !revision) && status != 204 && status != 503)
		fail("an agent was answered: %s", agent->answer);
	if (status == 200)
		agent->revision = strtoull(revision + 11, NULL, 10);
	agent->length = 0;
	free(agent->answer);
	agent->answer = NULL;
	if (status == 503) {
		pause_after_failure(agent, RESTING);
		return;
	}
	agent->failures = 0;
	ask(agent);
}

static void receive(struct agent *agent)
{
	ssize_t length = 1;

	while (length > 0 && agent->session) {
		if (!agent->answer)
			agent->answer = calloc(1, ANSWER_SIZE);
		if (!agent->answer || agent->length == ANSWER_SIZE - 1)
			fail("an answer is too long");
		length = gnutls_record_recv(agent->session, agent->answer + agent->length,
					    ANSWER_SIZE - 1 - agent->length);
		if (length == 0 || (length < 0 && gnutls_error_is_fatal((int)length))) {
			lose(agent);
			return;
		}
		if (length < 0)
			return;
		agent->length += (size_t)length;
		if (is_whole(agent))
			take(agent);
	}
}

static void step(struct agent *agent)
{
	switch (agent->state) {
	case CONNECTING:
		secure(agent);
		break;
	case SHAKING:
		shake(agent);
		break;
	case RESTING:
	case WAITING:
		receive(agent);
		break;
	case PAUSED:
		break;
	}
}

static void on_time(struct agent *agent)
{
	switch (agent->state) {
	case PAUSED:
		begin(agent);
		break;
	case RESTING:
		ask(agent);
		break;
	default:
		lose(agent);
	}
}

static void read_crowd(void)
{
	char *line = NULL, file[256];
	unsigned port;
	size_t size = 0;
	ssize_t length;

	if (scanf("%u %255s\n", &port, file) != 2)
		fail("standard input: a port and a file are wanted");
	crowd.address = (struct sockaddr_in){.sin_family = AF_INET,
					     .sin_port = htons((uint16_t)port),
					     .sin_addr = {htonl(INADDR_LOOPBACK)}};
	if (gnutls_certificate_allocate_credentials(&crowd.trust) < 0 ||
	    gnutls_certificate_set_x509_trust_file(crowd.trust, file, GNUTLS_X509_FMT_PEM) != 1 ||
	    gnutls_priority_init(&crowd.priorities, PRIORITIES, NULL) < 0)
		fail("%s: not a CA's certificate", file);
	while ((length = getline(&line, &size, stdin)) > 1) {
		crowd.agents = reallocarray(crowd.agents, crowd.n_agents + 1, sizeof(*crowd.agents));
		if (!crowd.agents)
			fail("no memory");
		/* Machines do not all begin in the same instant. */
		crowd.agents[crowd.n_agents++] =
			(struct agent){.token = strndup(line, (size_t)length - 1),
				       .until_ns = (int64_t)(random_number() % LAST_PAUSE_MS) * 1000000};
	}
	free(line);
}

/* A revision that has come in; false at the end of standard input. */
static bool read_revision(void)
{
	char text[32] = "";
	ssize_t length = read(STDIN_FILENO, text, sizeof(text) - 1);

	if (length > 0)
		crowd.revision = strtoull(text, NULL, 10);
	return length != 0;
}

static void tell(void)
{
	size_t beyond = 0;

	for (size_t i = 0; i < crowd.n_agents; i++)
		beyond += crowd.agents[i].revision > crowd.revision;
	printf("%" PRIu64 " %zu %zu\n", crowd.revision, beyond, crowd.failed);
	fflush(stdout);
}

static void take_time(int64_t *round_ns)
{
	if (crowd.now_ns < *round_ns)
		return;
	*round_ns = crowd.now_ns + ROUND_NS;
	for (size_t i = 0; i < crowd.n_agents; i++)
		if (crowd.agents[i].until_ns <= crowd.now_ns)
			on_time(&crowd.agents[i]);
}

static void prepare(void)
{
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	setvbuf(stdin, NULL, _IONBF, 0);
	read_crowd();
	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	crowd.epoll = epoll_create1(EPOLL_CLOEXEC);
}

void bench_polls(const struct bench_options *options)
{
	struct epoll_event events[MAX_EVENTS];
	int64_t round_ns = 0, word_ns = 0;

	(void)options;
	prepare();
	for (;;) {
		int64_t begun_ns = clock_boot_ns();
		int n = epoll_wait(crowd.epoll, events, MAX_EVENTS, ROUND_NS / 1000000);
		int64_t now_ns = clock_boot_ns(), waited_ns = now_ns - begun_ns;

		crowd.now_ns += waited_ns < LONGEST_WAIT_NS ? waited_ns : LONGEST_WAIT_NS;
		for (int i = 0; i < n; i++)
			step(events[i].data.ptr);
		take_time(&round_ns);
		if (now_ns < word_ns)
			continue;
		word_ns = now_ns + WORD_NS;
		if (!read_revision())
			return;
		tell();
	}
}
