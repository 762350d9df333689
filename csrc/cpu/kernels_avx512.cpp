// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
#define MMSAPA_ISA avx512
#define MMSAPA_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
#define MMSAPA_F16C
#define MMSAPA_VECTOR_BYTES 64
#include "dispatch.h"
