// Clusters (sm_90): blocks that run at the same time, close to each other, and reach each other's shared memory. Their
// numbers in the grid follow one another. A launch that asks for none has one block in each.
//
// A place of another block's shared memory is named by the own block's address and the other's rank: both lay it out
// alike. Trap: a block must not end while others may still reach into it.
#pragma once
#include "device/barrier.h"

#ifndef __CUDACC__
#include "emulator/cluster.h"
#else
namespace lossk::device {

// PTX ISA: special-registers-cluster-nctarank, special-registers-cluster-ctarank
LOSSK_DEVICE int cluster_size() {
  int size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}
LOSSK_DEVICE int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// parallel-synchronization-and-communication-instructions-barrier-cluster: all threads of the cluster that have not
// ended, which then see what the others wrote.
LOSSK_DEVICE void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

// ...-instructions-mbarrier-arrive, data-movement-and-conversion-instructions-mapa: at the mbarrier of block `rank`.
// Says that something was done, such as reading, and hands no writes on. Trap: for that it would need .release.cluster,
// which is a fence of all memory (MEMBAR.GPU), each time.
LOSSK_DEVICE void mbarrier_arrive_at(Mbarrier* b, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(shared_address(b)),
      "r"(rank)
      : "memory");
}

}  // namespace lossk::device
#endif
