/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory that held a secret. */
#ifndef WIRETOLL_BASE_WIPE_H
#define WIRETOLL_BASE_WIPE_H

/* Frees what malloc() returned, wiped. NULL is accepted. Serves as a library's callback. */
void wipe_and_free(void *memory);

#endif
