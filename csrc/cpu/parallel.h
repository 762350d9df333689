// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// at::parallel_for for every compiler. PyTorch's own is serial without
// -fopenmp, and with it clang's code calls LLVM's OpenMP library, while
// PyTorch has loaded GCC's. What GCC would call is called here by name: the
// threads are PyTorch's, and torch.set_num_threads rules them.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

extern "C" {
void GOMP_parallel(void (*run)(void*), void* data, unsigned threads,
                   unsigned flags);
int omp_get_num_threads();
int omp_get_thread_num();
}

namespace mmsapa::cpu {

// Calls f(from, to) for parts of [begin, end), in parallel where it is longer
// than `grain`. An exception of one of the calls is thrown on.
template <typename F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  const int64_t size = end - begin;
  if (size <= 0) return;
  if (size <= grain || at::in_parallel_region() || at::get_num_threads() == 1)
    return f(begin, end);

  std::atomic_flag failed = ATOMIC_FLAG_INIT;
  std::exception_ptr error;
  auto part = [&] {
    // The library may give fewer threads than PyTorch's number.
    const int64_t parts =
        std::min<int64_t>(omp_get_num_threads(), (size + grain - 1) / grain);
    const int64_t length = (size + parts - 1) / parts;
    const int64_t from = begin + omp_get_thread_num() * length;
    if (from >= end) return;
    try {
      f(from, std::min(from + length, end));
    } catch (...) {
      if (!failed.test_and_set()) error = std::current_exception();
    }
  };
  GOMP_parallel([](void* data) { (*static_cast<decltype(part)*>(data))(); },
                &part, 0, 0);
  if (error) std::rethrow_exception(error);
}

}  // namespace mmsapa::cpu
