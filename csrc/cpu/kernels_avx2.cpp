// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
#define MMSAPA_ISA avx2
#define MMSAPA_TARGET "avx2,fma,f16c"
#define MMSAPA_F16C
#define MMSAPA_VECTOR_BYTES 32
#include "dispatch.h"
