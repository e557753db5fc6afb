// What a kernel's device functions call when they run on a CPU. One function here is one instruction there; the rules
// it checks are those of the PTX manual. A broken rule ends the launch with an Error.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lossk::emulator {

struct Dim3 {
  unsigned x, y, z;
  constexpr Dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern Dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the thread that runs now
int linear_thread();                                 // its index in the block

enum class Element : int { bf16, fp16, fp32, tf32 };
constexpr int element_bytes(Element e) { return e == Element::bf16 || e == Element::fp16 ? 2 : 4; }

// A tensor in global memory, and the box of it that one copy moves. Dimension 0 is contiguous.
struct alignas(64) TensorMap {
  char* base;
  Element element;
  int rank;
  int64_t size[3];
  int64_t stride[3];  // bytes
  int box[3];
  int swizzle;  // as matrix descriptors number them
};

// ---- shared memory
unsigned char* dynamic_shared();
uint32_t shared_address(const void* p);

// ---- block barriers, fences, registers
void sync_block();
void barrier_sync(int id, int threads);
void barrier_arrive(int id, int threads);
void mbarrier_init(uint32_t address, int arrivals);
void mbarrier_invalidate(uint32_t address);
void mbarrier_arrive(uint32_t address, int bytes);  // and expects so many bytes more
void mbarrier_arrive_at(uint32_t address, int rank);
bool mbarrier_try_wait(uint32_t address, uint32_t parity);
void mbarrier_wait(uint32_t address, uint32_t parity);
void fence_mbarrier_init();
void fence_proxy_async();
void fence_device();
void set_registers(int registers, bool increase);

// ---- clusters
int cluster_size();
int cluster_rank();
void sync_cluster();

// ---- warps: the last lane of `mask` to arrive does it for all
void sync_warp(uint32_t mask);
uint32_t shuffle(uint32_t x, int lane, uint32_t mask);
uint32_t warp_ballot(bool vote, uint32_t mask);
uint32_t match_any(uint32_t x, uint32_t mask);
enum class Reduction { add, max, min, bit_or };
uint32_t reduce(Reduction op, uint32_t x, uint32_t mask);
bool elect_one();

// ---- matrices
void ldmatrix(uint32_t* registers, int count, uint32_t row, bool transposed);
void stmatrix(const uint32_t* registers, int count, uint32_t row, bool transposed);
void mma(Element element, float* d, const uint32_t* a, const uint32_t* b);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int groups);
struct Wgmma {
  Element element;
  float* d;                     // n / 2 accumulators
  const uint32_t* a_registers;  // four, or null: then a is a descriptor
  uint64_t a, b;
  int n;
  bool a_transposed, b_transposed, accumulate;
};
void wgmma(const Wgmma& operation);

// ---- copies
void cp_async(uint32_t to, const void* from, int bytes, bool valid);
void cp_async_commit();
void cp_async_wait(int groups);
void prefetch_map(const TensorMap* map);  // not tma_prefetch: its argument would find both names
// Into each block of the cluster that `blocks` has a bit for; 0: the own one.
void tma_load(uint32_t to, const TensorMap* map, uint32_t mbarrier, int rank, int x, int y, int z, uint32_t blocks = 0);
enum class Store { copy, add };
void tma_store(const TensorMap* map, uint32_t from, int rank, int x, int y, int z, Store what);
void bulk_load(uint32_t to, const void* from, int bytes, uint32_t mbarrier);
void bulk_store(void* to, uint32_t from, int bytes, Store what);
void bulk_commit();
void bulk_wait(int groups, bool written);  // until read from shared memory, or until written too

// ---- between blocks and kernels
uint32_t atomic(void* p, uint32_t (*change)(uint32_t old, uint32_t x, uint32_t y), uint32_t x, uint32_t y = 0);
void store_release(uint32_t* p, uint32_t x);
uint32_t load_acquire(const uint32_t* p);
void backoff();
void launch_dependents();
void wait_for_grids();

// ---- launching
using Body = void (*)(const void*);
void run(Body body, const void* argument, Dim3 grid, Dim3 block, int shared_bytes, int cluster);

}  // namespace lossk::emulator
