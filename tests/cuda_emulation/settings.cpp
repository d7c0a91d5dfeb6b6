// What Python decides: in which order things run, and what is left out to see that the tests notice.
#include "emulator.h"

namespace cisdl::emulation {

bool reach(const char* file, unsigned line) {
  if (const char* slash = std::strrchr(file, '/')) file = slash + 1;
  if (line == machine.skipped.line && machine.skipped.file == file) return false;
  Fiber& self = machine.self();
  if (self.file != file || self.line != line) machine.sites.insert({file, line});
  self.file = file;
  self.line = line;
  return true;
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

}  // namespace cisdl::emulation

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

// Every barrier and wait reached so far, as lines "file:line". Valid until the next call.
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
