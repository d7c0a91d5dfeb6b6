// The scheduler behind cuda_emulation.h, and the memory that stands for a GPU's.
//
// What it notices, and reports as the launch's error:
//   barrier divergence     some threads of a block wait at a __syncthreads while others have ended, or wait at
//   another warp divergence        some threads of a warp wait at a warp's instruction, others do not come
//   misaligned copies      cp.async wants 16 aligned bytes on both sides
//   bad addresses          device memory lies between unreadable pages, its end on the border to the byte,
//   and inputs
//                          can be made read-only: a read or write outside faults, and the report says in which
//                          thread and how far from which allocation. Writes before the beginning are found when
//                          memory is freed
//   shared memory overruns guard zones between and behind the variables, looked at after every barrier
//   too much shared memory more than the 48 KB a block may have without asking
//   division by zero       (integer), which a GPU would pass over
// A warp runs as far as it comes before the next one does, so warps are as far apart as barriers allow.
// What it makes visible in the results: shared memory and fresh device memory are full of NaN (all bits one), so
// reading what nobody wrote shows; and the orders of threads and blocks tell racing threads apart.
// In a build for the address sanitizer, which ends the process at a finding, the space between shared variables
// and before device memory is forbidden to reads, too.
// A barrier can be left out at run time by file and line, to see that the tests notice.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "cuda_emulation.h"
#include "fiber.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#define CISDL_API extern "C" __attribute__((visibility("default")))

cisdl::emulation::Index threadIdx, blockIdx, blockDim, gridDim;

namespace cisdl::emulation {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kStack = 64 * 1024;  // of a thread
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kSharedMemory = 48 * 1024;
constexpr size_t kGuard = 256;  // bytes behind every shared variable
constexpr unsigned char kGuardByte = 0xA5;
constexpr unsigned char kUnwritten = 0xFF;  // NaN in float and double, -1 in integers

enum class Order : int { forward, reverse, shuffled };
enum class State { ready, running, in_warp, waiting, ended };

constexpr unsigned kWarp = 32;

struct Copy {
  void* target;
  const void* source;
  bool zero;
};

struct Site {
  std::string file;
  unsigned line = 0;
  bool operator<(const Site& other) const { return std::tie(file, line) < std::tie(other.file, other.line); }
  bool operator==(const Site&) const = default;
  std::string text() const { return file + ":" + std::to_string(line); }
};

struct Fiber {
  Context context;
  void* stack = nullptr;
  State state = State::ready;
  const char* file = nullptr;  // where it waits
  unsigned line = 0;
  size_t shared_variables = 0;    // how many it has declared in this block
  const void* brought = nullptr;  // to its warp's instruction
  std::vector<Copy> copies;       // that have not arrived
  std::vector<size_t> groups;     // after how many of these copies each group ends
};

struct SharedVariable {
  size_t begin, size;
};

// A device allocation: [unreadable page][slack][data][unreadable page].
struct Allocation {
  unsigned char* map;
  size_t map_size;
  unsigned char* data;
  size_t size;
};

struct Machine {
  // settings
  Order order = Order::forward;
  std::mt19937_64 random;
  int64_t max_blocks = INT64_MAX;
  Site skipped;

  // the running block
  std::vector<Fiber> fibers = std::vector<Fiber>(kMaxThreads);
  Context scheduler;
  unsigned current = 0;
  void (*body)(const void*) = nullptr;
  const void* closure = nullptr;
  std::vector<SharedVariable> shared;
  size_t shared_end = 0;
  std::string trouble;  // found by a thread, for the scheduler to report

  std::set<Site> sites;  // barriers and waits that were reached
  std::vector<Site> bounds_checks;
  std::map<uintptr_t, Allocation> allocations;
  std::string error;
};

Machine machine;
alignas(256) unsigned char shared_arena[2 * kSharedMemory];

sigjmp_buf fault_return;
void* volatile fault_address;
volatile int fault_signal;

// Every fiber lives here: one call of the kernel for each block.
void fiber_main() {
  for (;;) {
    machine.body(machine.closure);
    Fiber& self = machine.fibers[machine.current];
    self.state = State::ended;
    switch_fiber(self.context, machine.scheduler);
  }
}

void prepare(Fiber& fiber) {
  if (!fiber.stack) {
    void* map = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(map, kPage, PROT_NONE);
    fiber.stack = static_cast<char*>(map) + kPage;
  }
  make_fiber(fiber.context, fiber.stack, kStack, fiber_main);
  fiber.state = State::ended;
}

template <class T>
void arrange(std::vector<T>& order) {
  if (machine.order == Order::reverse) std::reverse(order.begin(), order.end());
  if (machine.order == Order::shuffled) std::shuffle(order.begin(), order.end(), machine.random);
}

// Forbids memory to kernels, or allows it; nothing in an ordinary build.
void forbid([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  ASAN_POISON_MEMORY_REGION(begin, bytes);
#endif
}

void allow([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(begin, bytes);
#endif
}

std::string broken_guard() {
#ifdef __SANITIZE_ADDRESS__
  return "";  // the sanitizer would have noticed
#endif
  for (size_t i = 0; i < machine.shared.size(); ++i) {
    const SharedVariable& variable = machine.shared[i];
    const unsigned char* guard = shared_arena + variable.begin + variable.size;
    for (size_t b = 0; b < kGuard; ++b)
      if (guard[b] != kGuardByte)
        return "shared variable " + std::to_string(i) + " of " + std::to_string(variable.size) +
               " bytes was written " + std::to_string(b) + " bytes behind its end";
  }
  return "";
}

void run_thread(unsigned thread) {
  Fiber& fiber = machine.fibers[thread];
  machine.current = thread;
  threadIdx = {thread};
  fiber.state = State::running;
  switch_fiber(machine.scheduler, fiber.context);
}

// Runs every thread that has not ended up to its next barrier. Returns what went wrong, or nothing.
std::string run_phase(const std::vector<unsigned>& order) {
  for (unsigned thread : order)
    if (machine.fibers[thread].state == State::waiting) machine.fibers[thread].state = State::ready;
  // Warp by warp, each as far as it comes before the next begins: so they are as far apart as a barrier allows.
  std::vector<std::vector<unsigned>> warps(order.size() / kWarp + 1);
  for (unsigned thread : order) warps[thread / kWarp].push_back(thread);
  for (unsigned thread : order) {
    for (bool any = true; any;) {
      any = false;
      for (unsigned lane : warps[thread / kWarp]) {
        if (machine.fibers[lane].state != State::ready) continue;
        any = true;
        run_thread(lane);
        if (!machine.trouble.empty()) return machine.trouble;
      }
    }
  }
  unsigned waiting = 0, ended = 0;
  const Fiber* first = nullptr;
  std::string divergence;
  for (unsigned thread : order) {
    const Fiber& fiber = machine.fibers[thread];
    if (fiber.state == State::in_warp)
      return "warp divergence: some threads of a warp wait at " + Site{fiber.file, fiber.line}.text() +
             ", others do not come";
    if (fiber.state == State::ended) {
      ++ended;
      continue;
    }
    ++waiting;
    if (!first) first = &fiber;
    if (fiber.line != first->line || std::strcmp(fiber.file, first->file) != 0)
      divergence = "barrier divergence: some threads wait at " + Site{first->file, first->line}.text() +
                   ", others at " + Site{fiber.file, fiber.line}.text();
  }
  if (waiting && ended)
    divergence = "barrier divergence: " + std::to_string(waiting) + " threads wait at " +
                 Site{first->file, first->line}.text() + ", " + std::to_string(ended) + " have ended";
  return divergence.empty() ? broken_guard() : divergence;
}

std::string run_block(unsigned threads) {
  allow(shared_arena, sizeof(shared_arena));
  std::memset(shared_arena, kUnwritten, sizeof(shared_arena));
  forbid(shared_arena, sizeof(shared_arena));
  machine.shared.clear();
  machine.shared_end = 0;
  for (unsigned t = 0; t < threads; ++t) {
    machine.fibers[t].state = State::ready;
    machine.fibers[t].shared_variables = 0;
    machine.fibers[t].copies.clear();
    machine.fibers[t].groups.clear();
  }
  std::vector<unsigned> order(threads);
  for (;;) {
    for (unsigned t = 0; t < threads; ++t) order[t] = t;
    arrange(order);
    const std::string wrong = run_phase(order);
    if (!wrong.empty()) return wrong;
    const auto ended = [](const Fiber& fiber) { return fiber.state == State::ended; };
    if (std::all_of(machine.fibers.begin(), machine.fibers.begin() + threads, ended)) return "";
  }
}

void on_fault(int signal, siginfo_t* info, void*) {
  fault_signal = signal;
  fault_address = info->si_addr;
  siglongjmp(fault_return, 1);
}

std::string describe_fault() {
  if (fault_signal == SIGFPE) return "integer division by zero";
  const auto address = reinterpret_cast<uintptr_t>(fault_address);
  char text[256];
  std::snprintf(text, sizeof text, "bad address %p", fault_address);
  for (const auto& [data, a] : machine.allocations) {
    const auto map = reinterpret_cast<uintptr_t>(a.map);
    if (address < map || address >= map + a.map_size) continue;
    const long offset = static_cast<long>(address - data);
    if (offset < 0)
      std::snprintf(text, sizeof text, "bad address: %ld bytes before an allocation of %zu bytes", -offset,
                    a.size);
    else if (static_cast<size_t>(offset) >= a.size)
      std::snprintf(text, sizeof text, "bad address: %ld bytes behind the end of an allocation of %zu bytes",
                    offset - static_cast<long>(a.size), a.size);
    else
      std::snprintf(text, sizeof text, "write to a read-only allocation of %zu bytes, at byte %ld", a.size,
                    offset);
  }
  return text;
}

// Turns the faults of a kernel into a return to fault_return while it exists. On a signal stack of its own: the
// fault may be a fiber's stack overflow.
class FaultHandlers {
 public:
  FaultHandlers() {
    static char stack[64 * 1024];
    stack_t alternate{};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, &old_stack_);
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &action, &old_[i]);
  }
  ~FaultHandlers() {
    for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &old_[i], nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  static constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
  struct sigaction old_[3];
  stack_t old_stack_;
};

const char* failed(const char* kernel, const std::string& what, bool in_thread) {
  machine.error = "block " + std::to_string(blockIdx.x);
  if (in_thread) machine.error += ", thread " + std::to_string(threadIdx.x);
  machine.error += ": " + what + " in " + kernel;
  for (Fiber& fiber : machine.fibers)
    if (fiber.stack) prepare(fiber);  // they stopped halfway
  return machine.error.c_str();
}

}  // namespace

void* shared_memory(size_t size, size_t alignment) {
  Fiber& self = machine.fibers[machine.current];
  const size_t index = self.shared_variables++;
  if (index == machine.shared.size()) {
    const size_t begin = (machine.shared_end + alignment - 1) / alignment * alignment;
    size_t total = size;
    for (const SharedVariable& variable : machine.shared) total += variable.size;
    if (total > kSharedMemory) {
      machine.trouble = "a block wants " + std::to_string(total) + " bytes of shared memory";
      switch_fiber(self.context, machine.scheduler);
    }
    machine.shared.push_back({begin, size});
    allow(shared_arena + begin, size + kGuard);
    std::memset(shared_arena + begin + size, kGuardByte, kGuard);
    forbid(shared_arena + begin + size, kGuard);
    machine.shared_end = begin + size + kGuard;
  } else if (machine.shared[index].size != size) {
    machine.trouble = "threads of a block declare different shared variables";
    switch_fiber(self.context, machine.scheduler);
  }
  return shared_arena + machine.shared[index].begin;
}

// Where the running thread is now; false: this place is left out.
bool reach(const char* file, unsigned line) {
  if (const char* slash = std::strrchr(file, '/')) file = slash + 1;
  if (line == machine.skipped.line && machine.skipped.file == file) return false;
  Fiber& self = machine.fibers[machine.current];
  if (self.file != file || self.line != line) machine.sites.insert({file, line});
  self.file = file;
  self.line = line;
  return true;
}

void barrier(const char* file, unsigned line) {
  if (!reach(file, line)) return;
  Fiber& self = machine.fibers[machine.current];
  self.state = State::waiting;
  switch_fiber(self.context, machine.scheduler);
}

void warp_together(const void* brought, void (*body)(const void* const*), const char* file, unsigned line) {
  Fiber& self = machine.fibers[machine.current];
  Fiber* warp = &machine.fibers[machine.current / kWarp * kWarp];
  self.file = file;
  self.line = line;
  self.brought = brought;
  self.state = State::in_warp;
  const void* by_lane[kWarp];
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Fiber& other = warp[lane];
    if (other.state != State::in_warp || other.file != file || other.line != line)
      return switch_fiber(self.context, machine.scheduler);
    by_lane[lane] = other.brought;
  }
  body(by_lane);
  for (unsigned lane = 0; lane < kWarp; ++lane) warp[lane].state = State::ready;
  self.state = State::running;
}

namespace {

void arrive(const Copy& copy) {
  if (copy.zero)
    std::memset(copy.target, 0, 16);
  else
    std::memcpy(copy.target, copy.source, 16);
}

}  // namespace

void copy_async(void* target, const void* source, bool zero) {
  Fiber& self = machine.fibers[machine.current];
  if ((reinterpret_cast<uintptr_t>(target) | reinterpret_cast<uintptr_t>(source)) % 16) {
    machine.trouble = "a misaligned copy";
    switch_fiber(self.context, machine.scheduler);
  }
  const bool at_once =
      machine.order == Order::forward || (machine.order == Order::shuffled && machine.random() % 2);
  if (at_once)
    arrive({target, source, zero});
  else
    self.copies.push_back({target, source, zero});
}

void end_copy_group() {
  Fiber& self = machine.fibers[machine.current];
  self.groups.push_back(self.copies.size());
}

void wait_for_copies(size_t groups, const char* file, unsigned line) {
  if (!reach(file, line)) return;
  Fiber& self = machine.fibers[machine.current];
  if (self.groups.size() <= groups) return;
  const size_t ended = self.groups.size() - groups, arrived = self.groups[ended - 1];
  for (size_t i = 0; i < arrived; ++i) arrive(self.copies[i]);
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<ptrdiff_t>(arrived));
  self.groups.erase(self.groups.begin(), self.groups.begin() + static_cast<ptrdiff_t>(ended));
  for (size_t& end : self.groups) end -= arrived;
}

int skipped_bounds_check = -1;

int bounds_check(const char* file, unsigned line) {
  if (const char* slash = std::strrchr(file, '/')) file = slash + 1;
  const Site site{file, line};
  auto& known = machine.bounds_checks;
  const auto found = std::find(known.begin(), known.end(), site);
  if (found != known.end()) return static_cast<int>(found - known.begin());
  known.push_back(site);
  return static_cast<int>(known.size()) - 1;
}

const char* run_grid(const char* kernel, int64_t blocks, unsigned threads, void (*body)(const void*),
                     const void* closure) {
  for (unsigned t = 0; t < threads; ++t)
    if (!machine.fibers[t].stack) prepare(machine.fibers[t]);
  machine.body = body;
  machine.closure = closure;
  machine.trouble.clear();
  gridDim = {static_cast<unsigned>(std::min(blocks, machine.max_blocks))};
  blockDim = {threads};
  std::vector<unsigned> order(gridDim.x);
  for (unsigned b = 0; b < gridDim.x; ++b) order[b] = b;
  arrange(order);

  const FaultHandlers handlers;
  if (sigsetjmp(fault_return, 1)) return failed(kernel, describe_fault(), true);
  for (unsigned b : order) {
    blockIdx = {b};
    const std::string wrong = run_block(threads);
    if (!wrong.empty()) return failed(kernel, wrong, !machine.trouble.empty());
  }
  return nullptr;
}

}  // namespace cisdl::emulation

// ------------------------------------------------------------------------------------ for Python, through ctypes

using namespace cisdl::emulation;

// In which order threads and blocks run (0 forward, 1 reverse, 2 shuffled with `seed`) and how many blocks a grid
// has at most (0: as many as asked for), so that a few blocks have to walk through all the work.
CISDL_API void emulation_configure(int order, uint64_t seed, int64_t max_blocks) {
  machine.order = static_cast<Order>(order);
  machine.random.seed(seed);
  machine.max_blocks = max_blocks > 0 ? max_blocks : INT64_MAX;
}

// Leaves out the barrier at this place from now on; an empty file name: none.
CISDL_API void emulation_skip_barrier(const char* file, unsigned line) { machine.skipped = {file, line}; }

// Every barrier and wait for copies reached so far, as lines "file:line". Valid until the next call.
CISDL_API const char* emulation_barriers() {
  static std::string text;
  text.clear();
  for (const Site& site : machine.sites) text += site.text() + "\n";
  return text.c_str();
}

// Takes the bounds check of this number for true from now on; -1: none.
CISDL_API void emulation_skip_bounds_check(int number) { skipped_bounds_check = number; }

// Every bounds check reached so far, by number.
CISDL_API const char* emulation_bounds_checks() {
  static std::string text;
  text.clear();
  for (const Site& site : machine.bounds_checks) text += site.text() + "\n";
  return text.c_str();
}

// Memory for a kernel, full of NaN, its end at an unreadable page.
CISDL_API void* emulation_allocate(size_t size) {
  const size_t inner = (size + kPage - 1) / kPage * kPage;
  const size_t map_size = inner + 2 * kPage;
  void* map = mmap(nullptr, map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  auto* bytes = static_cast<unsigned char*>(map);
  unsigned char* data = bytes + kPage + inner - size;
  std::memset(bytes + kPage, kGuardByte, inner - size);
  std::memset(data, kUnwritten, size);
  mprotect(bytes, kPage, PROT_NONE);
  mprotect(bytes + kPage + inner, kPage, PROT_NONE);
  forbid(bytes + kPage, inner - size);
  machine.allocations[reinterpret_cast<uintptr_t>(data)] = {bytes, map_size, data, size};
  return data;
}

CISDL_API void emulation_make_read_only(void* data) {
  const Allocation& a = machine.allocations.at(reinterpret_cast<uintptr_t>(data));
  mprotect(a.map + kPage, a.map_size - 2 * kPage, PROT_READ);
}

// 0, or by how many bytes before the beginning something was written.
CISDL_API size_t emulation_free(void* data) {
  const auto found = machine.allocations.find(reinterpret_cast<uintptr_t>(data));
  const Allocation a = found->second;
  machine.allocations.erase(found);
  allow(a.map, a.map_size);
  size_t overrun = 0;
  for (const unsigned char* byte = a.map + kPage; byte < a.data && !overrun; ++byte)
    if (*byte != kGuardByte) overrun = static_cast<size_t>(a.data - byte);
  munmap(a.map, a.map_size);
  return overrun;
}
