// Memory that stands for a GPU's: shared memory between guards, device memory between unreadable pages, and what
// happens at a bad address.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "emulator.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace cisdl::emulation {

sigjmp_buf fault_return;

namespace {

constexpr size_t kArena = 2 * kSharedMemory;  // with guards

// A device allocation: [unreadable page][slack][data][unreadable page].
struct Allocation {
  unsigned char* map;
  size_t map_size;
  unsigned char* data;
  size_t size;
};

std::map<uintptr_t, Allocation> allocations;

void* volatile fault_address;
volatile int fault_signal;

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

void on_fault(int signal, siginfo_t* info, void*) {
  fault_signal = signal;
  fault_address = info->si_addr;
  siglongjmp(fault_return, 1);
}

}  // namespace

void clear_shared_memory(Block& block) {
  if (!block.arena) block.arena = static_cast<unsigned char*>(std::aligned_alloc(kPage, kArena));
  allow(block.arena, kArena);
  std::memset(block.arena, kUnwritten, kArena);
  forbid(block.arena, kArena);
  block.shared.clear();
  block.shared_end = 0;
}

std::string broken_guard([[maybe_unused]] const Block& block) {
#ifdef __SANITIZE_ADDRESS__
  return "";  // the sanitizer would have noticed
#endif
  for (size_t i = 0; i < block.shared.size(); ++i) {
    const SharedVariable& variable = block.shared[i];
    const unsigned char* guard = block.arena + variable.begin + variable.size;
    for (size_t b = 0; b < kGuard; ++b)
      if (guard[b] != kGuardByte)
        return "shared variable " + std::to_string(i) + " of " + std::to_string(variable.size) +
               " bytes was written " + std::to_string(b) + " bytes behind its end";
  }
  return "";
}

void* shared_memory(size_t size, size_t alignment) {
  Block& block = *machine.block;
  const size_t index = machine.self().shared_variables++;
  if (index == block.shared.size()) {
    const size_t begin = (block.shared_end + alignment - 1) / alignment * alignment;
    size_t total = size;
    for (const SharedVariable& variable : block.shared) total += variable.size;
    if (total > kSharedMemory) stop("a block wants " + std::to_string(total) + " bytes of shared memory");
    block.shared.push_back({begin, size});
    allow(block.arena + begin, size + kGuard);
    std::memset(block.arena + begin + size, kGuardByte, kGuard);
    forbid(block.arena + begin + size, kGuard);
    block.shared_end = begin + size + kGuard;
  } else if (block.shared[index].size != size) {
    stop("threads of a block declare different shared variables");
  }
  return block.arena + block.shared[index].begin;
}

std::string describe_fault() {
  if (fault_signal == SIGFPE) return "integer division by zero";
  const auto address = reinterpret_cast<uintptr_t>(fault_address);
  char text[256];
  std::snprintf(text, sizeof text, "bad address %p", fault_address);
  for (const auto& [data, a] : allocations) {
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

// On a signal stack of their own: the fault may be a fiber's stack overflow.
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};

struct FaultHandlers::Old {
  struct sigaction actions[3];
  stack_t stack;
};

FaultHandlers::FaultHandlers() : old_(std::make_unique<Old>()) {
  static char stack[64 * 1024];
  stack_t alternate{};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof stack;
  sigaltstack(&alternate, &old_->stack);
  struct sigaction action{};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &action, &old_->actions[i]);
}

FaultHandlers::~FaultHandlers() {
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &old_->actions[i], nullptr);
  sigaltstack(&old_->stack, nullptr);
}

}  // namespace cisdl::emulation

using namespace cisdl::emulation;

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
  allocations[reinterpret_cast<uintptr_t>(data)] = {bytes, map_size, data, size};
  return data;
}

CISDL_API void emulation_make_read_only(void* data) {
  const Allocation& a = allocations.at(reinterpret_cast<uintptr_t>(data));
  mprotect(a.map + kPage, a.map_size - 2 * kPage, PROT_READ);
}

// 0, or by how many bytes before the beginning something was written.
CISDL_API size_t emulation_free(void* data) {
  const auto found = allocations.find(reinterpret_cast<uintptr_t>(data));
  const Allocation a = found->second;
  allocations.erase(found);
  allow(a.map, a.map_size);
  size_t overrun = 0;
  for (const unsigned char* byte = a.map + kPage; byte < a.data && !overrun; ++byte)
    if (*byte != kGuardByte) overrun = static_cast<size_t>(a.data - byte);
  munmap(a.map, a.map_size);
  return overrun;
}
