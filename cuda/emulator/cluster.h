// device/cluster.h on a CPU.
#pragma once
#include "emulator/barrier.h"

namespace lossk::device {

LOSSK_DEVICE int cluster_size() { return emulator::cluster_size(); }
LOSSK_DEVICE int cluster_rank() { return emulator::cluster_rank(); }
LOSSK_DEVICE void sync_cluster() { emulator::sync_cluster(); }
LOSSK_DEVICE void mbarrier_arrive_at(Mbarrier* b, int rank) { emulator::mbarrier_arrive_at(shared_address(b), rank); }

}  // namespace lossk::device
