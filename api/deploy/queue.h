/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The worker's side of the queue in PostgreSQL. Every call answers within QUEUE_TIMEOUT_MS or gives the
 * connection up and returns -ENOTCONN; queue_connect() makes a new one. -EIO: the database refused, see
 * queue_error().
 */
#ifndef WIRETOLL_DEPLOY_QUEUE_H
#define WIRETOLL_DEPLOY_QUEUE_H

#include "deploy/spec.h"

#define QUEUE_TIMEOUT_MS    5000
#define QUEUE_LEASE_SECONDS 30

struct queue;

/* `worker` names this process among all workers. */
WT_MUST_CHECK int queue_new(const char *database_file, const char *worker, struct queue **ret_queue);
void queue_free(struct queue *queue);

/*
 * Connects, if need be, and listens. -ENOTCONN with the server's words in queue_error(); -EPROTO, likewise,
 * when something stands between that makes another session of it.
 */
WT_MUST_CHECK int queue_connect(struct queue *queue);
const char *queue_error(const struct queue *queue);

/* To wait for; -1 without a connection. When readable: whether there was news. */
int queue_fd(const struct queue *queue);
bool queue_has_news(struct queue *queue);

/* -ENOENT when the operator has not created such a hypervisor yet. */
WT_MUST_CHECK int queue_register(struct queue *queue, const char *name, const char *driver,
				 char id[static GATEWAY_ID_SIZE]);

struct queue_job {
	char gateway[GATEWAY_ID_SIZE];
	unsigned attempt;
	bool absent; /* the goal; else active */
	char *spec;
};
void queue_job_clear(struct queue_job *job);

/* -ENOENT when there is nothing to do. Clear the job afterwards. */
WT_MUST_CHECK int queue_claim(struct queue *queue, const char *hypervisor, struct queue_job *ret_job);

/* The calls below return -ESTALE when the job is no longer this worker's. */
WT_MUST_CHECK int queue_renew(struct queue *queue, const struct queue_job *job, bool *ret_absent);
WT_MUST_CHECK int queue_log(struct queue *queue, const struct queue_job *job, const char *step,
			    const char *line);
WT_MUST_CHECK int queue_set_token(struct queue *queue, const struct queue_job *job, const unsigned char *hash,
				  size_t hash_size, int64_t lifetime_ns);
/* `error` NULL: the goal that the job was claimed with is reached. */
WT_MUST_CHECK int queue_finish(struct queue *queue, const struct queue_job *job, const char *error,
			       bool transient);

/* What of the gateway's routes was left out, an array of at most QUEUE_REFUSED_MAX objects; NULL: nothing. */
#define QUEUE_REFUSED_MAX 50
WT_MUST_CHECK int queue_note_routes(struct queue *queue, const struct queue_job *job, const json_t *refused);

/* Everything that is to exist on the hypervisor. */
struct queue_assigned {
	struct queue_job job;
	bool alive; /* deploying or active, so that it is put up again after a reboot */
};
WT_MUST_CHECK int queue_assigned(struct queue *queue, const char *hypervisor,
				 struct queue_assigned **ret_list, size_t *ret_n);

#endif
