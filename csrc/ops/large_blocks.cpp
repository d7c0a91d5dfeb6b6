#include "large_blocks.h"

#include "keep_memory.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

namespace cisdl::ops {
namespace {

constexpr size_t kHugePage = 2 << 20;

struct Block {
  void* data;
  size_t bytes;
};

class LargeBlocks final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    Block* block = kept(bytes);
    if (!block) block = fresh(bytes);
    return {block->data, block, &give_back, c10::Device(c10::DeviceType::CPU)};
  }

  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  std::mutex mutex_;
  std::vector<Block*> kept_;  // the one freed first is first
  size_t kept_bytes_ = 0;

  // The kept block that fits best of those not larger by more than an eighth, or null.
  Block* kept(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto best = kept_.end();
    for (auto it = kept_.begin(); it != kept_.end(); ++it)
      if ((*it)->bytes >= bytes && (*it)->bytes <= bytes + bytes / 8 &&
          (best == kept_.end() || (*it)->bytes <= (*best)->bytes))
        best = it;
    if (best == kept_.end()) return nullptr;
    Block* block = *best;
    kept_.erase(best);
    kept_bytes_ -= block->bytes;
    return block;
  }

  Block* fresh(size_t bytes) {
    const size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    void* data = std::aligned_alloc(kHugePage, rounded);
    if (!data) {
      release_down_to(0);
      data = std::aligned_alloc(kHugePage, rounded);
    }
    TORCH_CHECK(data, "cisdl: not enough memory: tried to allocate ", bytes, " bytes");
#ifdef MADV_HUGEPAGE
    madvise(data, rounded, MADV_HUGEPAGE);  // fewer page faults, where it is known
#endif
    return new Block{data, rounded};
  }

  static void give_back(void* context) {
    auto* blocks = static_cast<LargeBlocks*>(large_blocks());
    auto* block = static_cast<Block*>(context);
    {
      const std::lock_guard<std::mutex> lock(blocks->mutex_);
      blocks->kept_.push_back(block);
      blocks->kept_bytes_ += block->bytes;
    }
    blocks->release_down_to(keeps_memory() ? kMostBytesKept : 0);
  }

  void release_down_to(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (kept_bytes_ > bytes) {
      Block* oldest = kept_.front();
      kept_.erase(kept_.begin());
      kept_bytes_ -= oldest->bytes;
      std::free(oldest->data);
      delete oldest;
    }
  }
};

}  // namespace

bool keeps_memory() {
  static const bool keeps = [] {
    const char* text = std::getenv("CISDL_KEEP_MEMORY");
    const std::string_view keep = text && *text ? text : "1";
    if (keep != "0" && keep != "1")
      throw std::invalid_argument("CISDL_KEEP_MEMORY: expected 0 or 1, got " + std::string(keep));
    return keep == "1";
  }();
  return keeps;
}

// Never destroyed: tensors may outlive every static object.
c10::Allocator* large_blocks() {
  static auto* const blocks = new LargeBlocks;
  return blocks;
}

}  // namespace cisdl::ops
