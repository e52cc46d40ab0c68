// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The meter for kernels that tell into what they cut an aggregate. */
#define WT_GSO_TYPE
#include "meter.bpf.c"
