// lossk._C for Python: host facts only. Tensors go through the dispatcher (torch.ops.lossk), never through here.
#include <pybind11/pybind11.h>

#include "common/cpu.h"
#include "common/products.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.def("build_info", [] {
    py::dict cpu, info;
    cpu["detected"] = lossk::cpu_name(lossk::cpu());
    cpu["float32"] = lossk::products<float>(lossk::ScalarType::Float).name;
    cpu["bfloat16"] = lossk::products<float>(lossk::ScalarType::BFloat16).name;
    cpu["float16"] = lossk::products<float>(lossk::ScalarType::Half).name;
    cpu["float64"] = lossk::products<double>(lossk::ScalarType::Double).name;
    info["version"] = LOSSK_VERSION;
    info["torch"] = LOSSK_TORCH;
    info["cpu"] = cpu;
    return info;
  });
}
