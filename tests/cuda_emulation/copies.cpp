// cp.async, whose copies arrive at once, as late as a wait allows, or at either time.
#include "emulator.h"

namespace cisdl::emulation {
namespace {

void arrive(const Copy& copy) {
  if (copy.zero)
    std::memset(copy.target, 0, 16);
  else
    std::memcpy(copy.target, copy.source, 16);
}

}  // namespace

void copy_async(void* target, const void* source, bool zero) {
  if ((reinterpret_cast<uintptr_t>(target) | reinterpret_cast<uintptr_t>(source)) % 16) stop("a misaligned copy");
  if (at_once())
    arrive({target, source, zero});
  else
    machine.self().copies.push_back({target, source, zero});
}

void end_copy_group() {
  Fiber& self = machine.self();
  self.groups.push_back(self.copies.size());
}

void wait_for_copies(size_t groups, const char* file, unsigned line) {
  if (!reach(file, line)) return;
  Fiber& self = machine.self();
  if (self.groups.size() <= groups) return;
  const size_t ended = self.groups.size() - groups, arrived = self.groups[ended - 1];
  for (size_t i = 0; i < arrived; ++i) arrive(self.copies[i]);
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<ptrdiff_t>(arrived));
  self.groups.erase(self.groups.begin(), self.groups.begin() + static_cast<ptrdiff_t>(ended));
  for (size_t& end : self.groups) end -= arrived;
}

}  // namespace cisdl::emulation
