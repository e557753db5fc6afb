// Shared memory: addresses, and 8 x 8 matrices of 16-bit elements between it and a warp's registers.
//
// Matrix i is in register i: lane l holds elements (l / 4, 2 (l % 4)) and its right neighbour. Lane 8 i + r gives the
// address of row r of matrix i, 16 bytes, aligned to 16. Rows in different 16-byte columns of the 128-byte line are
// free of bank conflicts.
#pragma once
#include "device/platform.h"

#ifndef __CUDACC__
#include "emulator/shared.h"
#else
namespace lossk::device {

LOSSK_DEVICE uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// PTX ISA: warp-level-matrix-instructions-ldmatrix. `transposed`: lane l gets (2 (l % 4), l / 4) and the one below.
template <bool transposed = false>
LOSSK_DEVICE void ldmatrix(uint32_t (&r)[1], uint32_t row) {
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(row) : "memory");
  else asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(row) : "memory");
}
template <bool transposed = false>
LOSSK_DEVICE void ldmatrix(uint32_t (&r)[2], uint32_t row) {
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
}
template <bool transposed = false>
LOSSK_DEVICE void ldmatrix(uint32_t (&r)[4], uint32_t row) {
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// warp-level-matrix-instructions-stmatrix (sm_90): the same the other way.
template <bool transposed = false>
LOSSK_DEVICE void stmatrix(uint32_t row, const uint32_t (&r)[1]) {
  if constexpr (transposed)
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(row), "r"(r[0]) : "memory");
  else asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(row), "r"(r[0]) : "memory");
}
template <bool transposed = false>
LOSSK_DEVICE void stmatrix(uint32_t row, const uint32_t (&r)[2]) {
  if constexpr (transposed)
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(r[0]), "r"(r[1])
                 : "memory");
  else
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(r[0]), "r"(r[1])
                 : "memory");
}
template <bool transposed = false>
LOSSK_DEVICE void stmatrix(uint32_t row, const uint32_t (&r)[4]) {
  if constexpr (transposed)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
  else
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]), "r"(r[1]),
                 "r"(r[2]), "r"(r[3])
                 : "memory");
}

// data-movement-and-conversion-instructions-cp-async: `bytes` from global to shared memory, zeros where not valid
// (the source is then not read). Both addresses are aligned to `bytes`. It lands when a wait says so.
template <int bytes>
LOSSK_DEVICE void cp_async(uint32_t to, const void* from, bool valid) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  const int read = valid ? bytes : 0;
  if constexpr (bytes == 16)  // around L1: each tile is read once
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(read) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(bytes), "r"(read)
                 : "memory");
}
LOSSK_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most `groups` of this thread's groups are under way. Other threads see them only after a barrier too.
template <int groups>
LOSSK_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

}  // namespace lossk::device
#endif
