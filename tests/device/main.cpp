// Runs the tests of one program: `test [--only NAME] [--except NAME] [--list] [--seeds N] [--skip N] [--share
// I/N]`, or one schedule as a failure names it. skip: of the schedules, those at the beginning; share: every Nth test.
//
// Compiled by nvcc for a GPU, by g++ for the emulator.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include <unistd.h>

#include "device/harness.h"

namespace lossk::test {
namespace {

struct Test {
  const char* file;
  void (*body)();
};
std::map<std::string, Test>& tests() {
  static std::map<std::string, Test> all;
  return all;
}

struct Options {
  std::string only;
  std::set<std::string> except;
  std::string after;           // this one and those before it have run, in a process that is lost,
  int passed = 0, failed = 0;  // and that is what came out
  bool list = false, one_schedule = false;
  int seeds = 4, skip = 0, share = 0, shares = 1;
#ifndef __CUDACC__
  emulator::Schedule schedule;
#endif
};

std::mt19937 source;

void seed_random(const std::string& name, uint64_t seed) {
  for (const char c : name) seed = seed * 1099511628211u + static_cast<unsigned char>(c);
  source.seed(static_cast<uint32_t>(seed ^ seed >> 32));
}

#ifndef __CUDACC__
int index_of(const std::string& word, std::initializer_list<const char*> words) {
  int i = 0;
  for (const char* w : words) {
    if (word == w) return i;
    ++i;
  }
  throw Failure("unknown word " + word);
}
#endif

Options parse(int count, char** words) {
  Options o;
  if (const char* seeds = std::getenv("LOSSK_SEEDS")) o.seeds = std::atoi(seeds);
  for (int i = 1; i < count; ++i) {
    const std::string option = words[i];
    if (option == "--list") {
      o.list = true;
      continue;
    }
    if (++i == count) throw Failure(option + ": a value is missing");
    const std::string value = words[i];
    if (option == "--only") o.only = value;
    else if (option == "--except") o.except.insert(value);
    else if (option == "--seeds") o.seeds = std::stoi(value);
    else if (option == "--skip") o.skip = std::stoi(value);
    else if (option == "--share") {
      if (sscanf(value.c_str(), "%d/%d", &o.share, &o.shares) != 2 || o.share < 0 || o.share >= o.shares)
        throw Failure("--share: expected I/N, 0 <= I < N, got " + value);
    } else if (option == "--after") o.after = value;
    else if (option == "--passed") o.passed = std::stoi(value);
    else if (option == "--failed") o.failed = std::stoi(value);
#ifndef __CUDACC__
    else {
      o.one_schedule = true;
      if (option == "--seed") o.schedule.seed = std::stoull(value);
      else if (option == "--order")
        o.schedule.order = static_cast<emulator::Order>(index_of(value, {"fifo", "lifo", "random", "priority"}));
      else if (option == "--timing")
        o.schedule.timing = static_cast<emulator::Timing>(index_of(value, {"early", "late", "mixed"}));
      else if (option == "--resident") o.schedule.resident = std::stoi(value);
      else if (option == "--multiprocessors") o.schedule.multiprocessors = std::stoi(value);
      else if (option == "--skew") o.schedule.skew = std::stoi(value);
      else throw Failure("unknown option " + option);
    }
#else
    else throw Failure("unknown option " + option);
#endif
  }
  return o;
}

}  // namespace

std::mt19937& random_source() { return source; }

Registration::Registration(const char* name, const char* file, void (*body)()) { tests()[name] = {file, body}; }

void fail(const std::string& problem) { throw Failure(problem); }

Fp16 fp16(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  x = std::fabs(x);
  if (std::isnan(x)) return {0x7fff};
  if (x >= 65520) return {static_cast<uint16_t>(sign | 0x7c00)};
  const int exponent = x < 0x1p-14f ? -14 : std::ilogb(x);
  const int fraction = static_cast<int>(std::nearbyint(std::ldexp(x, 10 - exponent)));
  return {static_cast<uint16_t>(sign | (fraction + ((exponent + 14) << 10)))};
}

float to_float(Fp16 x) {
  static const std::vector<float> all = [] {
    std::vector<float> values(1 << 16);
    for (int bits = 0; bits < 1 << 16; ++bits) {
      const int exponent = bits >> 10 & 31, fraction = bits & 1023;
      float y = std::ldexp(static_cast<float>(exponent ? fraction + 1024 : fraction), (exponent ? exponent : 1) - 25);
      if (exponent == 31) y = fraction ? NAN : INFINITY;
      values[bits] = bits & 0x8000 ? -y : y;
    }
    return values;
  }();
  return all[x.bits];
}

#ifdef __CUDACC__

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail(std::string(what) + ": " + cudaGetErrorString(error));
}
void synchronize() { check(cudaDeviceSynchronize(), "kernel"); }
void* allocate(size_t bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, bytes ? bytes : 1), "cudaMalloc");
  return p;
}
void release(void* p) { cudaFree(p); }
void copy_to_device(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
}
void copy_to_host(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

int run_test(const std::string& name, const Test& test, const Options& options) {
  int failed = 0;
  for (int seed = 1; seed <= options.seeds; ++seed) {  // other numbers each time
    seed_random(name, seed);
    try {
      test.body();
    } catch (const std::exception& e) {
      printf("\nFAILED %s (seed %d): %s\n", name.c_str(), seed, e.what());
      failed = 1;
      break;
    }
  }
  return failed;
}

std::string runs(const Options& options) { return std::to_string(options.seeds) + " seeds"; }

// After an illegal access every call fails until the process ends: the tests that are left get another.
void go_on_if_lost(const std::string& name, int passed, int failed, char** words) {
  if (cudaDeviceSynchronize() == cudaSuccess) return;
  printf("the GPU's context is lost with it; the other tests run in a new process\n");
  fflush(stdout);
  std::string more[] = {"--after", name, "--passed", std::to_string(passed), "--failed", std::to_string(failed)};
  std::vector<char*> all;
  for (; *words; ++words) all.push_back(*words);
  for (auto& word : more) all.push_back(word.data());
  all.push_back(nullptr);
  execv("/proc/self/exe", all.data());
}

bool ready() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) {
    cudaDeviceProp gpu;
    check(cudaGetDeviceProperties(&gpu, 0), "cudaGetDeviceProperties");
    printf("on %s, compute capability %d.%d\n", gpu.name, gpu.major, gpu.minor);
    return true;
  }
  printf("no CUDA device: compiled, not run\n");
  return false;
}

#else

void check(cudaError_t error, const char* what) { expect(error == cudaSuccess, std::string(what) + ": invalid value"); }
void synchronize() {}
void* allocate(size_t bytes) {
  void* p = std::malloc(bytes);  // exactly so many, for AddressSanitizer to see the end
  if (bytes) memset(p, 0xff, bytes);
  emulator::allow_global(p, bytes);
  return p;
}
void release(void* p) {
  emulator::forbid_global(p);
  std::free(p);
}
void copy_to_device(void* to, const void* from, size_t bytes) {
  if (bytes) memcpy(to, from, bytes);  // nothing has no address
}
void copy_to_host(void* to, const void* from, size_t bytes) { copy_to_device(to, from, bytes); }

// In order first, which is easiest to follow; everything late, reversed and by few blocks; then at random.
std::vector<emulator::Schedule> schedules(const Options& options) {
  using enum emulator::Order;
  using enum emulator::Timing;
  if (options.one_schedule) return {options.schedule};
  std::vector<emulator::Schedule> all{{1, fifo, early, 1, 3, 0}, {1, lifo, late, 2, 1, 16}};
  for (int seed = 2; seed < 2 + options.seeds; ++seed) {
    emulator::Schedule s;
    s.seed = seed;
    s.order = seed % 2 ? priority : random;
    s.timing = seed % 3 ? mixed : late;
    s.resident = 1 + seed % 3;
    s.multiprocessors = 1 + seed % 4;
    s.skew = 16 * (seed % 5);
    all.push_back(s);
  }
  if (options.skip < 0 || options.skip >= static_cast<int>(all.size())) throw Failure("no schedule is left");
  all.erase(all.begin(), all.begin() + options.skip);
  return all;
}

void go_on_if_lost(const std::string&, int, int, char**) {}

std::string runs(const Options& options) {
  const auto all = schedules(options);
  return std::to_string(all.size()) + " schedules, seeds " + std::to_string(all.front().seed) + " to " +
         std::to_string(all.back().seed);
}

int run_test(const std::string& name, const Test& test, const Options& options) {
  for (const emulator::Schedule& s : schedules(options)) {
    emulator::schedule = s;
    seed_random(name, s.seed);
    try {
      test.body();
    } catch (const std::exception& e) {
      printf("\nFAILED %s: %s\n  again: --only %s %s\n", name.c_str(), e.what(), name.c_str(), to_string(s).c_str());
      return 1;
    }
  }
  return 0;
}

bool ready() {
  printf("in the emulator%s\n", emulator::detects_races() ? ", with the race detector" : "");
  return true;
}

#endif

int main(int count, char** words) {
  const Options options = parse(count, words);
  if (options.list) {
    for (const auto& [name, test] : tests()) printf("%s\n", name.c_str());
    return 0;
  }
  if (!ready()) return 0;
  int passed = options.passed, failed = options.failed, place = 0;
  for (const auto& [name, test] : tests()) {
    if (place++ % options.shares != options.share || name <= options.after) continue;
    if ((!options.only.empty() && options.only != name) || options.except.count(name)) continue;
    printf("%-40s ", name.c_str());  // before it runs: one that hangs is known by name
    fflush(stdout);
    const auto started = std::chrono::steady_clock::now();
    const int bad = run_test(name, test, options);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    if (!bad) printf("%s, %.2f s\n", runs(options).c_str(), seconds.count());
    failed += bad;
    passed += !bad;
    fflush(stdout);
    if (bad) go_on_if_lost(name, passed, failed, words);
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}

}  // namespace lossk::test

int main(int count, char** words) {
  try {
    return lossk::test::main(count, words);
  } catch (const std::exception& e) {
    fprintf(stderr, "%s\n", e.what());
    return 2;
  }
}
