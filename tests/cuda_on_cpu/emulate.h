// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Runs CUDA kernels on the CPU, one block after another, so that a machine
// without a GPU can test what they compute. Include it before the kernels.
//
// The threads of a block are fibers that change at barriers only, in an order
// that can be chosen: results that depend on it betray a missing barrier.
// Asynchronous copies spoil what they overwrite at once and arrive no sooner
// than they are waited for: results that are not numbers betray a missing
// wait. Shared memory begins as NaN in every block: such results betray what
// nobody has written.
#pragma once

// Its longjmp refuses to change stacks.
#undef _FORTIFY_SOURCE

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#undef __global__
#undef __device__
#undef __host__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define MMSAPA_LAUNCH(kernel, blocks, threads, stream, ...) \
  ((void)stream,                                            \
   emulate::launch(blocks, threads, [&] { kernel(__VA_ARGS__); }))
#define MMSAPA_SHARED(name, ...) \
  static __VA_ARGS__ name;       \
  emulate::begin_shared(&name, sizeof(name))
#define MMSAPA_WORKSPACE_BYTES emulate::workspace_bytes

using std::exp;
using std::fmax;
using std::sqrt;

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
inline Index3 threadIdx, blockIdx;
inline cudaError_t no_error() { return cudaSuccess; }
#define cudaGetLastError no_error

namespace emulate {

constexpr size_t kStack = 256 << 10;

inline int64_t workspace_bytes = 64 << 20;
// Of threads and blocks: 0 as numbered, 1 reversed, else shuffled.
inline int order = 0;

// A fiber runs one thread of every block, and there are as many as the
// largest block has threads. ucontext starts one; the jumps between them are
// setjmp's, which asks nothing of the system.
struct Fiber {
  jmp_buf state;
  std::unique_ptr<char[]> stack{new char[kStack]};
};
inline jmp_buf scheduler;
inline std::vector<std::unique_ptr<Fiber>> fibers;
inline std::vector<char> at_barrier;

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};
inline std::vector<std::vector<Copy>> copies, committed;  // of each thread
inline const std::function<void()>* body;

inline std::vector<unsigned> ordered(unsigned count, std::mt19937& random) {
  std::vector<unsigned> turns(count);
  std::iota(turns.begin(), turns.end(), 0);
  if (order == 1) std::reverse(turns.begin(), turns.end());
  if (order > 1) std::shuffle(turns.begin(), turns.end(), random);
  return turns;
}

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

inline void leave_fiber(unsigned t) {
  if (_setjmp(fibers[t]->state) == 0) _longjmp(scheduler, 1);
}

inline void enter_fiber(unsigned t) {
  if (_setjmp(scheduler) == 0) _longjmp(fibers[t]->state, 1);
}

inline void fiber_main() {
  const unsigned t = fibers.size() - 1;
  for (;;) {
    leave_fiber(t);
    (*body)();
  }
}

inline void start_fiber() {
  fibers.push_back(std::make_unique<Fiber>());
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fibers.back()->stack.get();
  context.uc_stack.ss_size = kStack;
  makecontext(&context, fiber_main, 0);
  if (_setjmp(scheduler) == 0) setcontext(&context);
}

// To be called by all threads of a block; the first one spoils it.
inline std::vector<void*> begun;
inline void begin_shared(void* memory, size_t bytes) {
  if (std::find(begun.begin(), begun.end(), memory) != begun.end()) return;
  std::memset(memory, 0xff, bytes);
  begun.push_back(memory);
}

inline void launch(unsigned blocks, unsigned threads,
                   const std::function<void()>& kernel) {
  while (fibers.size() < threads) start_fiber();
  copies.resize(threads);
  committed.resize(threads);
  body = &kernel;
  std::mt19937 random(order);
  for (unsigned block : ordered(blocks, random)) {
    blockIdx.x = block;
    begun.clear();
    for (unsigned waiting = threads; waiting > 0;) {
      at_barrier.assign(threads, false);
      for (unsigned t : ordered(threads, random)) {
        threadIdx.x = t;
        enter_fiber(t);
      }
      waiting = std::count(at_barrier.begin(), at_barrier.end(), true);
      if (waiting != 0 && waiting != threads) {
        fail("a barrier that only some threads reach");
      }
    }
    for (unsigned t = 0; t < threads; ++t) {
      if (!copies[t].empty() || !committed[t].empty()) {
        fail("a copy that nobody has waited for");
      }
    }
  }
}

}  // namespace emulate

inline void __syncthreads() {
  const unsigned t = threadIdx.x;
  emulate::at_barrier[t] = true;
  emulate::leave_fiber(t);
}

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0 ||
      reinterpret_cast<uintptr_t>(from) % bytes != 0) {
    emulate::fail("a misaligned copy");
  }
  std::memset(to, 0xff, bytes);
  emulate::copies[threadIdx.x].push_back({to, from, bytes});
}

inline void __pipeline_commit() {
  auto& from = emulate::copies[threadIdx.x];
  auto& to = emulate::committed[threadIdx.x];
  to.insert(to.end(), from.begin(), from.end());
  from.clear();
}

// For all there are, whatever it is told: nobody asks for less.
inline void __pipeline_wait_prior(size_t) {
  auto& copies = emulate::committed[threadIdx.x];
  for (const emulate::Copy& copy : copies) {
    std::memcpy(copy.to, copy.from, copy.bytes);
  }
  copies.clear();
}
