#include "probe/probe.cuh"

namespace lossk::probe {

void run_sm100(const Params& p) { probe_kernel<100><<<1, 1, 0, p.stream>>>(p.arch); }

}  // namespace lossk::probe
