// What the files of the emulator share: the state of the machine, and what they ask of each other. What kernels
// see is cuda_emulation.h.
//
//   threads.cpp   fibers as threads: barriers, a warp's instructions, words that blocks publish to each other
//   copies.cpp    cp.async
//   hopper.cpp    what compute capability 9.0 adds: the copy engine, mbarriers, products of a warpgroup
//   memory.cpp    shared memory, device memory, faults
//   launches.cpp  grids
//   settings.cpp  orders, and what is left out on purpose
//
// What they notice, and report as the launch's error:
//   barrier divergence     some threads of a block wait at a __syncthreads while others have ended, or wait at
//   another warp divergence        some threads of a warp wait at a warp's instruction, others do not come
//   deadlock               every thread that is left waits for a word that nobody publishes
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
// What they make visible in the results: shared memory and fresh device memory are full of NaN (all bits one), so
// reading what nobody wrote shows; and the orders of threads and blocks tell racing threads apart.
// In a build for the address sanitizer, which ends the process at a finding, the space between shared variables
// and before device memory is forbidden to reads, too.
// A barrier can be left out at run time by file and line, to see that the tests notice.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "cuda_emulation.h"
#include "fiber.h"

// For Python, through ctypes.
#define CISDL_API extern "C" __attribute__((visibility("default")))

namespace cisdl::emulation {

constexpr size_t kPage = 4096;
constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kSharedMemory = 48 * 1024;
constexpr size_t kGuard = 256;  // bytes behind every shared variable
constexpr unsigned char kGuardByte = 0xA5;
constexpr unsigned char kUnwritten = 0xFF;  // NaN in float and double, -1 in integers

enum class Order : int { forward, reverse, shuffled };
enum class State { ready, running, in_warp, waiting, awaiting, ended };  // awaiting: words of other threads

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
  State state = State::ended;
  const char* file = nullptr;  // where it waits
  unsigned line = 0;
  size_t shared_variables = 0;    // how many it has declared in this block
  const void* brought = nullptr;  // to its warp's instruction
  std::vector<Copy> copies;       // that have not arrived
  std::vector<size_t> groups;     // after how many of these copies each group ends

  std::string place() const { return Site{file, line}.text(); }
};

struct SharedVariable {
  size_t begin, size;
};

struct Block {
  unsigned index = 0;
  std::vector<Fiber> fibers = std::vector<Fiber>(kMaxThreads);
  unsigned char* arena = nullptr;  // its shared memory
  std::vector<SharedVariable> shared;
  size_t shared_end = 0;
};

// A word on its way to other blocks.
struct Publication {
  void* target;
  size_t size;
  unsigned char bytes[16];
};

struct Machine {
  // settings
  Order order = Order::forward;
  std::mt19937_64 random;
  int64_t max_blocks = INT64_MAX;
  Site skipped;

  // the running grid
  void (*body)(const void*) = nullptr;
  const void* closure = nullptr;
  unsigned threads = 0;                        // of a block
  std::vector<std::unique_ptr<Block>> blocks;  // alive, or left from before
  std::vector<Publication> publications;       // that have not arrived
  bool news = false;                           // a word has arrived, a barrier has opened, or a thread has ended
  Context scheduler;
  Block* block = nullptr;  // the running one
  unsigned current = 0;    // its running thread
  std::string trouble;     // found by a thread, for the scheduler to report

  std::set<Site> sites;  // barriers and waits that were reached
  std::vector<Site> bounds_checks;
  std::string error;

  Fiber& self() { return block->fibers[current]; }
};

extern Machine machine;

// Puts what has a beginning and an end into the order that is set.
template <class T>
void arrange(std::vector<T>& order) {
  if (machine.order == Order::reverse) std::reverse(order.begin(), order.end());
  if (machine.order == Order::shuffled) std::shuffle(order.begin(), order.end(), machine.random);
}

// Whether what may arrive now or later arrives now.
bool at_once();

// Ends the running thread's turn: the scheduler goes on.
void give_way();
// Ends it for good: the launch fails for this reason.
void stop(const std::string& why);

// Runs these blocks side by side to their end. What went wrong, or nothing.
std::string run_blocks(const std::vector<unsigned>& indices);
// After an error: threads stopped halfway.
void forget_threads();

// Where the running thread is now; false: this place is left out.
bool reach(const char* file, unsigned line);

// What is on its way in a block without its threads (hopper.cpp): nothing when one begins; one copy arrives where
// nobody can go on without it (false: none is under way); what is still on its way at the end, in words.
void begin_asynchronous();
bool deliver_late();
std::string unfinished();

void clear_shared_memory(Block& block);
// Which shared variable was overrun, or nothing.
std::string broken_guard(const Block& block);

// Turns the faults of a kernel into a return to fault_return while it exists.
class FaultHandlers {
 public:
  FaultHandlers();
  ~FaultHandlers();

 private:
  struct Old;
  std::unique_ptr<Old> old_;
};
std::string describe_fault();

}  // namespace cisdl::emulation
