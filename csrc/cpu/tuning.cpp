#include "tuning.h"

#include <map>
#include <mutex>
#include <set>

namespace cisdl::tuning {
namespace {

std::atomic<bool> g_enabled{false};
std::mutex g_mutex;
std::map<std::string, const char*> g_choices;
std::set<std::string> g_names;  // what g_choices points into: a reader may hold a name without the lock

}  // namespace

bool enabled() { return g_enabled.load(std::memory_order_relaxed); }

void enable(bool on) { g_enabled.store(on, std::memory_order_relaxed); }

const char* choice(const std::string& problem) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  const auto found = g_choices.find(problem);
  return found == g_choices.end() ? nullptr : found->second;
}

void remember(const std::string& problem, const std::string& implementation) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  g_choices[problem] = g_names.insert(implementation).first->c_str();
}

std::vector<std::pair<std::string, std::string>> choices() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  return {g_choices.begin(), g_choices.end()};
}

void forget() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  g_choices.clear();
}

}  // namespace cisdl::tuning
