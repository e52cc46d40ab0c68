// SPDX-License-Identifier: BSD-2-Clause
#include "cli/http_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REPLY       (64 * 1024 * 1024)
#define CONNECT_SECONDS 10L
#define REQUEST_SECONDS 60L

struct http_client {
	CURL *curl;
	struct curl_slist *headers;
	char *url;
	char *ca_pem;
};

void cleanup_reply(struct http_reply *reply)
{
	if (reply->body)
		sodium_memzero(reply->body, reply->length);
	free(reply->body);
	reply->body = NULL;
}

/* curl copies the text. */
static int append_header(struct http_client *client, const char *text)
{
	struct curl_slist *longer = curl_slist_append(client->headers, text);

	if (!longer)
		return -ENOMEM;
	client->headers = longer;
	return 0;
}

static int append_token(struct http_client *client, const char *token)
{
	char *text = NULL;
	int r;

	if (!token)
		return 0;
	if (asprintf(&text, "Authorization: Bearer %s", token) < 0)
		return -ENOMEM;
	r = append_header(client, text);
	sodium_memzero(text, strlen(text));
	free(text);
	return r;
}

/* Grows by copying, so that what is outgrown is wiped: an answer may hold a token. */
static size_t take_body(char *data, size_t size, size_t count, void *context)
{
	struct http_reply *reply = context;
	size_t added = size * count, length = reply->length + added;
	char *longer;

	if (length > MAX_REPLY)
		return 0;
	longer = malloc(length + 1);
	if (!longer)
		return 0;
	if (reply->body)
		memcpy(longer, reply->body, reply->length);
	memcpy(longer + reply->length, data, added);
	longer[length] = '\0';
	cleanup_reply(reply);
	reply->body = longer;
	reply->length = length;
	return added;
}

static CURL *new_handle(void)
{
	CURL *curl = curl_easy_init();

	if (!curl)
		return NULL;
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, REQUEST_SECONDS);
	return curl;
}

static int set_up(struct http_client *client, const char *token)
{
	struct curl_blob ca = {
		.data = client->ca_pem, .len = strlen(client->ca_pem), .flags = CURL_BLOB_NOCOPY};

	curl_easy_setopt(client->curl, CURLOPT_CAINFO_BLOB, &ca);
	/* The pinned certificate alone: no folder of the system's. */
	curl_easy_setopt(client->curl, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(client->curl, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, take_body);
	if (append_header(client, "Content-Type: application/json") < 0)
		return -ENOMEM;
	/* Empty: no wait for a "100 Continue". */
	if (append_header(client, "Expect:") < 0)
		return -ENOMEM;
	return append_token(client, token);
}

int http_open(const char *url, const char *ca_pem, const char *token, struct http_client **ret_client)
{
	struct http_client *client = calloc(1, sizeof(*client));
	int r = -ENOMEM;

	if (!client)
		return r;
	client->url = strdup(url);
	client->ca_pem = strdup(ca_pem);
	client->curl = new_handle();
	if (client->url && client->ca_pem && client->curl)
		r = set_up(client, token);
	if (r < 0) {
		http_close(client);
		return r;
	}
	*ret_client = client;
	return 0;
}

void http_close(struct http_client *client)
{
	if (!client)
		return;
	curl_easy_cleanup(client->curl);
	for (struct curl_slist *header = client->headers; header; header = header->next)
		sodium_memzero(header->data, strlen(header->data));
	curl_slist_free_all(client->headers);
	free(client->url);
	free(client->ca_pem);
	free(client);
}

static int failed(CURLcode code, const char *url, const char *detail, char problem[static HTTP_PROBLEM_SIZE])
{
	if (code == CURLE_OUT_OF_MEMORY)
		return -ENOMEM;
	if (code == CURLE_PEER_FAILED_VERIFICATION) {
		snprintf(problem, HTTP_PROBLEM_SIZE,
			 "%.150s is not the server that was logged in to: its certificate is not of the CA "
			 "that is trusted, or not for this address, or not valid now. If the server was set "
			 "up "
			 "anew, `wiretoll login` with its URL compares the fingerprint again",
			 url);
		return -EIO;
	}
	snprintf(problem, HTTP_PROBLEM_SIZE, "could not reach %.200s: %.200s", url,
		 *detail ? detail : curl_easy_strerror(code));
	return -EIO;
}

static void set_request(struct http_client *client, const char *method, const char *url, const char *body,
			struct http_reply *reply)
{
	curl_easy_setopt(client->curl, CURLOPT_URL, url);
	curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, client->headers);
	/* CURLOPT_POSTFIELDS turns any request into one with a body, so it comes before the choice. */
	curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, body ? body : "");
	curl_easy_setopt(client->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(body ? strlen(body) : 0));
	if (body || strcmp(method, "POST") == 0)
		curl_easy_setopt(client->curl, CURLOPT_POST, 1L);
	else
		curl_easy_setopt(client->curl, CURLOPT_HTTPGET, 1L);
	curl_easy_setopt(client->curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, reply);
}

static bool has_json_type(CURL *curl)
{
	const char *type = NULL;

	curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
	return type && (strncmp(type, "application/json", 16) == 0 ||
			strncmp(type, "application/problem+json", 24) == 0);
}

void http_set_patience(struct http_client *client, unsigned seconds)
{
	curl_easy_setopt(client->curl, CURLOPT_TIMEOUT, (long)seconds);
}

int http_request(struct http_client *client, const char *method, const char *path, const char *body,
		 struct http_reply *ret_reply, char problem[static HTTP_PROBLEM_SIZE])
{
	_cleanup_reply_ struct http_reply reply = {0};
	_cleanup_free_ char *url = NULL;
	char detail[CURL_ERROR_SIZE] = "";
	CURLcode code;

	if (asprintf(&url, "%s%s", client->url, path) < 0) {
		url = NULL;
		return -ENOMEM;
	}
	set_request(client, method, url, body, &reply);
	curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, detail);
	code = curl_easy_perform(client->curl);
	curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, NULL);
	if (code == CURLE_WRITE_ERROR) {
		snprintf(problem, HTTP_PROBLEM_SIZE, "the answer is too large (more than %d MB)",
			 MAX_REPLY / 1024 / 1024);
		return -EFBIG;
	}
	if (code != CURLE_OK)
		return failed(code, client->url, detail, problem);
	curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &reply.status);
	reply.is_json = has_json_type(client->curl);
	if (!reply.body)
		reply.body = calloc(1, 1);
	if (!reply.body)
		return -ENOMEM;
	*ret_reply = reply;
	reply.body = NULL;
	return 0;
}

/* The PEM text of the last certificate that the server has shown; NULL if none. It belongs to curl. */
static const char *last_certificate(CURL *curl)
{
	static const char label[] = "Cert:";
	struct curl_certinfo *chain = NULL;
	const char *pem = NULL;

	if (curl_easy_getinfo(curl, CURLINFO_CERTINFO, &chain) != CURLE_OK || !chain ||
	    chain->num_of_certs < 1)
		return NULL;
	for (struct curl_slist *line = chain->certinfo[chain->num_of_certs - 1]; line; line = line->next) {
		if (strncmp(line->data, label, strlen(label)) == 0)
			pem = line->data + strlen(label);
	}
	return pem;
}

static int hash_certificate(const char *pem, uint8_t ret_fingerprint[static 32])
{
	static const char begin[] = "-----BEGIN CERTIFICATE-----", end[] = "-----END CERTIFICATE-----";
	const char *first = strstr(pem, begin), *last = strstr(pem, end);
	_cleanup_free_ uint8_t *der = NULL;
	size_t length;

	if (!first || !last || last < first)
		return -EIO;
	first += strlen(begin);
	der = malloc((size_t)(last - first));
	if (!der)
		return -ENOMEM;
	if (sodium_base642bin(der, (size_t)(last - first), first, (size_t)(last - first), "\r\n", &length,
			      NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
		return -EIO;
	crypto_hash_sha256(ret_fingerprint, der, length);
	return 0;
}

static int copy_ca(CURL *curl, char **ret_pem, uint8_t ret_fingerprint[static 32],
		   char problem[static HTTP_PROBLEM_SIZE])
{
	const char *pem = last_certificate(curl);
	_cleanup_free_ char *copy = NULL;
	int r;

	if (!pem) {
		snprintf(problem, HTTP_PROBLEM_SIZE, "the server shows no certificate");
		return -EIO;
	}
	copy = strdup(pem);
	if (!copy)
		return -ENOMEM;
	r = hash_certificate(copy, ret_fingerprint);
	if (r < 0) {
		snprintf(problem, HTTP_PROBLEM_SIZE, "could not read the server's certificate");
		return r;
	}
	*ret_pem = TAKE_PTR(copy);
	return 0;
}

int http_fetch_ca(const char *url, char **ret_pem, uint8_t ret_fingerprint[static 32],
		  char problem[static HTTP_PROBLEM_SIZE])
{
	char detail[CURL_ERROR_SIZE] = "";
	CURL *curl = new_handle();
	CURLcode code;
	int r;

	if (!curl)
		return -ENOMEM;
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
	curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(curl, CURLOPT_CERTINFO, 1L);
	/* The fingerprint decides, and every later connection verifies with what it vouches for. */
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
	code = curl_easy_perform(curl);
	r = code == CURLE_OK ? copy_ca(curl, ret_pem, ret_fingerprint, problem)
			     : failed(code, url, detail, problem);
	curl_easy_cleanup(curl);
	return r;
}
