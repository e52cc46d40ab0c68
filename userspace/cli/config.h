/* SPDX-License-Identifier: BSD-2-Clause */
/* What `wiretoll login` keeps: the server, its CA and the token. */
#ifndef WIRETOLL_CLI_CONFIG_H
#define WIRETOLL_CLI_CONFIG_H

#include "base/base.h"

struct config {
	char *url; /* without a slash at the end */
	char *ca_pem;
	char *token;
};

/* $WIRETOLL_CONFIG, else ~/.config/wiretoll/config.json. The caller frees it. Returns -ENOENT, -ENOMEM. */
WT_MUST_CHECK int config_path(char **ret_path);

/* Returns -ENOENT when nobody is logged in, -EBADMSG for a file that holds something else, -errno. */
WT_MUST_CHECK int config_load(struct config *ret_config);

/* Writes the file, 0600, in a folder that is made 0700. Returns -errno. */
WT_MUST_CHECK int config_save(const struct config *config);

/* Frees and wipes. */
void cleanup_config(struct config *config);
#define _cleanup_config_ WT_CLEANUP(cleanup_config)

/* Wipes a text and frees it; takes NULL. */
void secret_free(char *text);
void cleanup_secret(char **text);
#define _cleanup_secret_ WT_CLEANUP(cleanup_secret)

#endif
