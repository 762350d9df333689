// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// What every CPU of the platform can run: SSE2 on x86-64, NEON on aarch64.
#define MMSAPA_ISA baseline
#define MMSAPA_VECTOR_BYTES 16
#include "dispatch.h"
