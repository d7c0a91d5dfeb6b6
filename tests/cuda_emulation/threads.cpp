// Threads as fibers on one processor: who runs when, and where they meet.
//
// A block runs in phases, from one barrier to the next. Blocks that live side by side (a cooperative launch) take
// turns, a phase each. A thread that awaits a word of another block gives way until something has happened.
#include <sys/mman.h>

#include "emulator.h"

cisdl::emulation::Index threadIdx, blockIdx, blockDim, gridDim;

namespace cisdl::emulation {

Machine machine;

namespace {

constexpr size_t kStack = 64 * 1024;  // of a thread

// Every fiber lives here: one call of the kernel for each block.
void fiber_main() {
  for (;;) {
    machine.body(machine.closure);
    machine.self().state = State::ended;
    machine.news = true;
    give_way();
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

void begin_block(Block& block, unsigned index) {
  block.index = index;
  clear_shared_memory(block);
  begin_asynchronous();
  for (unsigned t = 0; t < machine.threads; ++t) {
    Fiber& fiber = block.fibers[t];
    if (!fiber.stack) prepare(fiber);
    fiber.state = State::ready;
    fiber.shared_variables = 0;
    fiber.copies.clear();
    fiber.groups.clear();
  }
}

bool has_ended(const Block& block) {
  const auto ended = [](const Fiber& fiber) { return fiber.state == State::ended; };
  return std::all_of(block.fibers.begin(), block.fibers.begin() + machine.threads, ended);
}

void run_thread(unsigned thread) {
  machine.current = thread;
  threadIdx = {thread};
  Fiber& fiber = machine.self();
  fiber.state = State::running;
  switch_fiber(machine.scheduler, fiber.context);
}

// Runs the threads that are ready as far as they come: warp by warp, each to its end before the next begins, so
// they are as far apart as a barrier allows.
std::string run_ready(const std::vector<unsigned>& order) {
  std::vector<std::vector<unsigned>> warps(order.size() / kWarp + 1);
  for (unsigned thread : order) warps[thread / kWarp].push_back(thread);
  for (unsigned thread : order) {
    for (bool any = true; any;) {
      any = false;
      for (unsigned lane : warps[thread / kWarp]) {
        if (machine.block->fibers[lane].state != State::ready) continue;
        any = true;
        run_thread(lane);
        if (!machine.trouble.empty()) return machine.trouble;
      }
    }
  }
  return "";
}

// Runs every thread of a block that has not ended up to its next barrier, and opens the barrier if all are there.
// Returns what went wrong, or nothing.
std::string run_phase(Block& block) {
  machine.block = &block;
  blockIdx = {block.index};
  std::vector<unsigned> order(machine.threads);
  for (unsigned t = 0; t < machine.threads; ++t) order[t] = t;
  arrange(order);
  for (unsigned thread : order)
    if (block.fibers[thread].state == State::awaiting) block.fibers[thread].state = State::ready;
  if (std::string wrong = run_ready(order); !wrong.empty()) return wrong;

  unsigned waiting = 0, ended = 0;
  const Fiber* first = nullptr;
  std::string divergence;
  for (unsigned thread : order) {
    const Fiber& fiber = block.fibers[thread];
    if (fiber.state == State::in_warp)
      return "warp divergence: some threads of a warp wait at " + fiber.place() + ", others do not come";
    if (fiber.state == State::awaiting) return "";  // the barrier stays closed
    if (fiber.state == State::ended) {
      ++ended;
      continue;
    }
    ++waiting;
    if (!first) first = &fiber;
    if (fiber.line != first->line || std::strcmp(fiber.file, first->file) != 0)
      divergence = "barrier divergence: some threads wait at " + first->place() + ", others at " + fiber.place();
  }
  if (waiting && ended)
    divergence = "barrier divergence: " + std::to_string(waiting) + " threads wait at " + first->place() + ", " +
                 std::to_string(ended) + " have ended";
  if (!divergence.empty()) return divergence;
  for (unsigned thread : order)
    if (block.fibers[thread].state == State::waiting) block.fibers[thread].state = State::ready;
  machine.news = true;
  return broken_guard(block);
}

void deliver(const Publication& word) {
  std::memcpy(word.target, word.bytes, word.size);
  machine.news = true;
}

// Words arrive in any order.
void deliver_all() {
  arrange(machine.publications);
  for (const Publication& word : machine.publications) deliver(word);
  machine.publications.clear();
}

std::string deadlock(const std::vector<Block*>& alive) {
  for (Block* block : alive) {
    for (unsigned thread = 0; thread < machine.threads; ++thread) {
      if (block->fibers[thread].state != State::awaiting) continue;
      machine.block = block;
      blockIdx = {block->index};
      return "deadlock: thread " + std::to_string(thread) + " waits at " + block->fibers[thread].place() +
             " for what nobody publishes";
    }
  }
  return "deadlock";
}

}  // namespace

bool at_once() {
  return machine.order == Order::forward || (machine.order == Order::shuffled && machine.random() % 2);
}

void give_way() { switch_fiber(machine.self().context, machine.scheduler); }

void stop(const std::string& why) {
  machine.trouble = why;
  give_way();
}

std::string run_blocks(const std::vector<unsigned>& indices) {
  while (machine.blocks.size() < indices.size()) machine.blocks.push_back(std::make_unique<Block>());
  std::vector<Block*> alive;
  for (size_t i = 0; i < indices.size(); ++i) {
    alive.push_back(machine.blocks[i].get());
    begin_block(*alive.back(), indices[i]);
  }
  while (!alive.empty()) {
    machine.news = false;
    for (Block* block : alive)
      if (std::string wrong = run_phase(*block); !wrong.empty()) return wrong;
    for (Block* block : alive)
      if (std::string wrong = has_ended(*block) ? unfinished() : ""; !wrong.empty()) return wrong;
    alive.erase(std::remove_if(alive.begin(), alive.end(), [](Block* block) { return has_ended(*block); }),
                alive.end());
    if (machine.news && !alive.empty()) continue;
    deliver_all();
    if (deliver_late()) continue;
    if (!machine.news) return deadlock(alive);
  }
  return "";
}

void forget_threads() {
  for (const auto& block : machine.blocks)
    for (Fiber& fiber : block->fibers)
      if (fiber.stack) prepare(fiber);
  machine.publications.clear();
}

void barrier(const char* file, unsigned line) {
  if (!reach(file, line)) return;
  machine.self().state = State::waiting;
  give_way();
}

void warp_together(const void* brought, void (*body)(const void* const*), const char* file, unsigned line) {
  Fiber& self = machine.self();
  Fiber* warp = &machine.block->fibers[machine.current / kWarp * kWarp];
  self.file = file;
  self.line = line;
  self.brought = brought;
  self.state = State::in_warp;
  const void* by_lane[kWarp];
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Fiber& other = warp[lane];
    if (other.state != State::in_warp || other.file != file || other.line != line) return give_way();
    by_lane[lane] = other.brought;
  }
  body(by_lane);
  for (unsigned lane = 0; lane < kWarp; ++lane) warp[lane].state = State::ready;
  self.state = State::running;
}

void check_aligned(const void* address, size_t size) {
  if (reinterpret_cast<uintptr_t>(address) % size) stop("a misaligned read");
}

void publish(void* target, const void* value, size_t size) {
  Publication word{target, size, {}};
  std::memcpy(word.bytes, value, size);
  if (at_once())
    deliver(word);
  else
    machine.publications.push_back(word);
}

bool await(bool missing, const char* file, unsigned line) {
  if (!reach(file, line)) return false;
  bool any = missing;
  const auto ask = [](const void* const* by_lane) {
    bool one = false;
    for (unsigned lane = 0; lane < kWarp; ++lane) one = one || *static_cast<const bool*>(by_lane[lane]);
    for (unsigned lane = 0; lane < kWarp; ++lane) *static_cast<bool*>(const_cast<void*>(by_lane[lane])) = one;
  };
  warp_together(&any, ask, machine.self().file, line);
  if (!any) return false;
  machine.self().state = State::awaiting;
  give_way();
  return true;
}

}  // namespace cisdl::emulation
