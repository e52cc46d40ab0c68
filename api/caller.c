// SPDX-License-Identifier: BSD-2-Clause
#include "caller.h"

#include "auth.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY      32768 /* tokens; a power of two */
#define DIGEST_SIZE 16

struct memory {
	uint8_t digest[DIGEST_SIZE];
	bool is_gateway;
	char id[UUID_TEXT_SIZE], owner[UUID_TEXT_SIZE];
};

struct callers {
	pthread_mutex_t mutex;
	uint8_t key[crypto_generichash_KEYBYTES]; /* so that nobody can choose whom to displace */
	struct memory memories[MEMORY];
};

/* Of the token, and of whom it acts for: a service is many. */
static bool digest_of(struct callers *callers, const struct request *request,
		      uint8_t ret_digest[static DIGEST_SIZE])
{
	const char *token = bearer_token(request), *act_for = request_header(request, "Wiretoll-Act-For");
	crypto_generichash_state state;

	if (!token)
		return false;
	crypto_generichash_init(&state, callers->key, sizeof(callers->key), DIGEST_SIZE);
	crypto_generichash_update(&state, (const uint8_t *)token, strlen(token) + 1);
	if (act_for)
		crypto_generichash_update(&state, (const uint8_t *)act_for, strlen(act_for));
	crypto_generichash_final(&state, ret_digest, DIGEST_SIZE);
	sodium_memzero(&state, sizeof(state));
	return true;
}

static struct memory *memory_of(struct callers *callers, const uint8_t digest[static DIGEST_SIZE])
{
	uint32_t number;

	memcpy(&number, digest, sizeof(number));
	return &callers->memories[number & (MEMORY - 1)];
}

/*
 * A gateway's report waits for its report before, and never for its poll. To read a large one takes a
 * worker's time, of which all gateways of an owner together have the owner's share.
 */
static void set_key(struct share_key *key, const struct exchange *exchange, bool is_gateway, const char *id,
		    const char *owner)
{
	bool is_report = is_gateway && strcmp(exchange->path, "/v1/agent/report") == 0;
	bool is_large = is_report && exchange->body_length >= HEAVY_BYTES && !exchange->is_read;

	key->kind = !is_gateway || is_large ? SHARE_OWNER : is_report ? SHARE_REPORTS : SHARE_GATEWAY;
	snprintf(key->name, sizeof(key->name), "%s", is_large ? owner : id);
	snprintf(key->fleet, sizeof(key->fleet), "%s", key->kind == SHARE_REPORTS ? owner : "");
}

void caller_address(const struct sockaddr *address, char ret_name[static SHARE_NAME_SIZE])
{
	struct in6_addr network = {0};

	ret_name[0] = '\0';
	if (address && address->sa_family == AF_INET) {
		inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, ret_name,
			  SHARE_NAME_SIZE);
	} else if (address && address->sa_family == AF_INET6) {
		memcpy(&network, &((const struct sockaddr_in6 *)address)->sin6_addr, 8);
		inet_ntop(AF_INET6, &network, ret_name, SHARE_NAME_SIZE);
	}
}

void caller_guess(struct callers *callers, struct exchange *exchange)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	uint8_t digest[DIGEST_SIZE];
	bool known = false;

	if (digest_of(callers, &exchange->request, digest)) {
		const struct memory *memory = memory_of(callers, digest);

		pthread_mutex_lock(&callers->mutex);
		known = memory->id[0] && memcmp(memory->digest, digest, DIGEST_SIZE) == 0;
		if (known)
			set_key(&exchange->share_key, exchange, memory->is_gateway, memory->id,
				memory->owner);
		pthread_mutex_unlock(&callers->mutex);
	}
	if (known)
		return;
	exchange->share_key.kind = SHARE_ADDRESS;
	exchange->share_key.fleet[0] = '\0';
	caller_address(info ? info->client_addr : NULL, exchange->share_key.name);
}

void caller_learn(struct callers *callers, const struct exchange *exchange, struct share_key *ret_key)
{
	const struct principal *principal = &exchange->request.principal;
	bool is_gateway = principal->role == ROLE_GATEWAY;
	const char *id = is_gateway            ? principal->gateway
			 : principal->owner[0] ? principal->owner
					       : principal->user;
	uint8_t digest[DIGEST_SIZE];

	set_key(ret_key, exchange, is_gateway, id, principal->owner);
	if (digest_of(callers, &exchange->request, digest)) {
		struct memory *memory = memory_of(callers, digest);

		pthread_mutex_lock(&callers->mutex);
		memcpy(memory->digest, digest, DIGEST_SIZE);
		memory->is_gateway = is_gateway;
		snprintf(memory->id, sizeof(memory->id), "%s", id);
		snprintf(memory->owner, sizeof(memory->owner), "%s", principal->owner);
		pthread_mutex_unlock(&callers->mutex);
	}
}

int callers_new(struct callers **ret_callers)
{
	struct callers *callers = calloc(1, sizeof(*callers));

	if (!callers)
		return -ENOMEM;
	pthread_mutex_init(&callers->mutex, NULL);
	randombytes_buf(callers->key, sizeof(callers->key));
	*ret_callers = callers;
	return 0;
}

void callers_free(struct callers *callers)
{
	if (!callers)
		return;
	pthread_mutex_destroy(&callers->mutex);
	sodium_memzero(callers, sizeof(*callers));
	free(callers);
}
