// The copy engine, mbarriers and asynchronous products of compute capability 9.0 (csrc/cuda/hopper.cuh), after the
// text of the PTX ISA (tensors; mbarrier; wgmma and its matrix descriptors) and the driver's description of tensor
// maps.
//
// A copy arrives, whole, at once in forward order, when no thread can go on without it in reverse order, at either
// time in shuffled order: its source is read and its target written then. A product reads shared memory at once in
// forward order, not before it is waited for in reverse order, at either time in shuffled order; until then its
// registers are NaN.
//
// What is noticed, and reported as the launch's error:
//   a barrier that is not made, or not shown to the copy engine before a copy counts on it; more arrivals than it
//   was made for; a wait for a phase that never ends (deadlock)
//   a tensor map that the driver would refuse; a copy to an address that is not aligned, or outside of the block's
//   memory; a filter outside of its box of positions
//   a product without the fence before it, or whose warpgroup's warps do not agree; a descriptor outside of the
//   block's memory or with bits that are not emulated; products and copies that nobody waited for
#include <deque>

#include "emulator.h"
#include "scalars.h"

namespace cisdl::emulation {
namespace {

constexpr uint32_t kFirstPlace = 1040;      // of dynamic shared memory: aligned to 16 bytes and no more
constexpr size_t kMostShared = 227 * 1024;  // a block of compute capability 9.0
constexpr unsigned kGroupWarps = 4;         // of a warpgroup

alignas(16) unsigned char arena[kMostShared];
size_t allowed;

struct Phases {
  int arrivals, missing;
  int64_t bytes = 0;  // announced that have not arrived
  uint32_t phase = 0;
  unsigned maker;
  bool shown = false;
};

struct TensorCopy {
  unsigned char* target;
  TensorMap map;
  uint64_t* barrier;
  int32_t at[4];
  uint16_t offset[2];
};

// The registers of a warp that products are adding to.
struct Accumulators {
  float* lane[kWarp];
  std::vector<float> value[kWarp];
};

struct Product {
  AsyncProduct what;  // as the first lane brings it
  float* c;           // its registers, which name the accumulators
  bool done = false;
};

struct WarpProducts {
  std::deque<Product> products;  // begun and not waited for
  std::deque<size_t> groups;     // how many products each group has
  size_t ungrouped = 0;          // products behind the last group
  std::map<float*, Accumulators> accumulators;
  size_t begun = 0;
};

struct Asynchronous {
  std::map<const uint64_t*, Phases> barriers;
  std::vector<TensorCopy> copies;
  WarpProducts warps[kMaxThreads / kWarp];
  std::vector<std::pair<uint64_t, uint64_t>> descriptors[kMaxThreads / kWarp / kGroupWarps];
  bool fenced[kMaxThreads] = {};
};
Asynchronous now;
bool touched = true;  // since the last block

unsigned char* at_place(uint32_t place, size_t bytes) {
  if (place < kFirstPlace || place + bytes > kFirstPlace + allowed) {
    stop("shared memory at " + std::to_string(place) + " is outside of the block's");
    return arena;
  }
  return arena + (place - kFirstPlace);
}

// Where 16-byte chunks of an address lie in swizzle mode 128B: bits 4 to 6 change with bits 7 to 9.
uint32_t swizzled(uint32_t place) { return place ^ (place >> 7 & 7) << 4; }

// ------------------------------------------------------------------------------------------------------ mbarriers

Phases* phases_of(const uint64_t* barrier) {
  const auto found = now.barriers.find(barrier);
  if (found != now.barriers.end()) return &found->second;
  stop("a barrier that nobody has made");
  return nullptr;
}

void look_at(Phases& phases) {
  if (phases.missing != 0 || phases.bytes != 0) return;
  ++phases.phase;
  phases.missing = phases.arrivals;
  machine.news = true;
}

// --------------------------------------------------------------------------------------------------------- copies

// Writes the rows of 128 bytes of a copy one after another.
struct RowWriter {
  uint32_t place;
  int64_t bytes = 0;

  // `source`: of number 0 of a row of `numbers`, of which the copy takes 64 from `first` on; null: zeros.
  void row(const unsigned char* source, int64_t first, int64_t numbers) {
    for (int64_t i = 0; i < 64; ++i) {
      const bool inside = source && first + i >= 0 && first + i < numbers;
      unsigned char* target = at_place(swizzled(place + static_cast<uint32_t>(2 * i)), 2);
      if (inside)
        std::memcpy(target, source + 2 * (first + i), 2);
      else
        std::memset(target, 0, 2);
    }
    place += 128;
    bytes += 128;
  }
};

void deliver(const TensorCopy& copy) {
  const TensorMap& map = copy.map;
  RowWriter writer{shared_place(copy.target)};
  if (map.im2col) {
    int64_t w = copy.at[1], h = copy.at[2], n = copy.at[3];
    for (int i = 0; i < map.pixels; ++i) {
      const int64_t x = w + copy.offset[0], y = h + copy.offset[1];
      const bool inside = x >= 0 && x < map.size[1] && y >= 0 && y < map.size[2] && n < map.size[3];
      writer.row(inside ? map.data + x * map.stride[1] + y * map.stride[2] + n * map.stride[3] : nullptr,
                 copy.at[0], map.size[0]);
      w += map.step[0];
      if (w <= map.upper[0]) continue;
      w = map.lower[0];
      h += map.step[1];
      if (h <= map.upper[1]) continue;
      h = map.lower[1];
      ++n;
    }
  } else {
    for (int64_t z = copy.at[2]; z < copy.at[2] + map.box[2]; ++z) {
      for (int64_t y = copy.at[1]; y < copy.at[1] + map.box[1]; ++y) {
        const bool inside = y >= 0 && y < map.size[1] && z >= 0 && z < map.size[2];
        writer.row(inside ? map.data + y * map.stride[1] + z * map.stride[2] : nullptr, copy.at[0], map.size[0]);
      }
    }
  }
  Phases& phases = *phases_of(copy.barrier);
  phases.bytes -= writer.bytes;
  look_at(phases);
}

bool common_rules(TensorMap& map, const void* data, const int64_t* sizes, int rank) {
  map = {};
  map.data = static_cast<const unsigned char*>(data);
  map.rank = rank;
  bool right = reinterpret_cast<uintptr_t>(data) % 16 == 0;
  for (int i = 0; i < rank; ++i) {
    map.size[i] = sizes[i];
    map.stride[i] = i == 0 ? 2 : map.stride[i - 1] * sizes[i - 1];
    right = right && sizes[i] > 0 && sizes[i] <= int64_t{1} << 32;
    right = right && (i == 0 || (map.stride[i] % 16 == 0 && map.stride[i] < int64_t{1} << 40));
  }
  return right;
}

// ------------------------------------------------------------------------------------------------------- products

// The number at a line and a depth of an operand.
float number(uint64_t descriptor, bool across, bool is_bfloat16, uint32_t line, uint32_t depth) {
  const auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  // In rows of 128 bytes, eight rows an atom: along the depth a row is a line; across it a row is a depth and
  // holds 64 lines, `leading` bytes before the next 64.
  const uint32_t row = across ? depth : line, in_row = across ? line % 64 : depth;
  const uint32_t place =
      start + (across ? line / 64 * leading : 0) + row / 8 * stride + row % 8 * 128 + in_row * 2;
  uint16_t bits;
  std::memcpy(&bits, at_place(swizzled(place), 2), 2);
  if (is_bfloat16) return cuda::float_of(uint32_t{bits} << 16);
  cuda::Float16 half;
  half.bits = bits;
  return half;
}

void execute(unsigned warp, Product& product) {
  if (product.done) return;
  product.done = true;
  const AsyncProduct& p = product.what;
  const int columns = p.registers * 2;
  static float a[16][16], b[16][256];
  const auto first_line = static_cast<uint32_t>(warp % kGroupWarps * 16);
  for (uint32_t k = 0; k < 16; ++k) {
    for (uint32_t i = 0; i < 16; ++i) a[i][k] = number(p.a, p.a_across, p.is_bfloat16, first_line + i, k);
    for (uint32_t j = 0; j < static_cast<uint32_t>(columns); ++j)
      b[k][j] = number(p.b, p.b_across, p.is_bfloat16, j, k);
  }
  Accumulators& accumulators = now.warps[warp].accumulators.at(product.c);
  for (int lane = 0; lane < static_cast<int>(kWarp); ++lane) {
    for (int r = 0; r < p.registers; ++r) {
      const int line = lane / 4 + r / 2 % 2 * 8, column = r / 4 * 8 + lane % 4 * 2 + r % 2;
      float sum = accumulators.value[lane][static_cast<size_t>(r)];
      for (int k = 0; k < 16; ++k) sum += a[line][k] * b[k][column];
      accumulators.value[lane][static_cast<size_t>(r)] = sum;
    }
  }
}

void execute_all(unsigned warp) {
  for (Product& product : now.warps[warp].products) execute(warp, product);
}

void begin_product(const void* const* by_lane) {
  const auto brought = [&](unsigned lane) { return *static_cast<const AsyncProduct*>(by_lane[lane]); };
  const unsigned warp = machine.current / kWarp;
  WarpProducts& mine = now.warps[warp];
  const AsyncProduct first = brought(0);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const AsyncProduct other = brought(lane);
    if (other.a != first.a || other.b != first.b)
      return stop("the threads of a warp bring different descriptors to a product");
    if (!now.fenced[warp * kWarp + lane]) return stop("a product without wgmma.fence before it");
  }
  for (const uint64_t descriptor : {first.a, first.b}) {
    constexpr uint64_t kFields = 0x3fff | uint64_t{0x3fff} << 16 | uint64_t{0x3fff} << 32;
    if ((descriptor & ~kFields) != uint64_t{1} << 62)
      return stop("a matrix descriptor whose swizzle mode is not 128B, or with a base offset");
  }
  auto& agreed = now.descriptors[warp / kGroupWarps];
  if (mine.begun == agreed.size()) agreed.emplace_back(first.a, first.b);
  if (agreed[mine.begun++] != std::pair(first.a, first.b))
    return stop("the warps of a warpgroup bring different descriptors to a product");
  if (!mine.accumulators.contains(first.c)) {
    Accumulators& accumulators = mine.accumulators[first.c];
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      accumulators.lane[lane] = brought(lane).c;
      accumulators.value[lane].assign(brought(lane).c, brought(lane).c + first.registers);
    }
  }
  for (unsigned lane = 0; lane < kWarp; ++lane)
    std::memset(brought(lane).c, kUnwritten, sizeof(float) * static_cast<size_t>(first.registers));
  mine.products.push_back({first, first.c});
  ++mine.ungrouped;
  if (at_once()) execute_all(warp);
}

void end_group(const void* const*) {
  WarpProducts& mine = now.warps[machine.current / kWarp];
  mine.groups.push_back(mine.ungrouped);
  mine.ungrouped = 0;
}

void finish_products(const void* const* by_lane) {
  const size_t left = *static_cast<const size_t*>(by_lane[0]);
  const unsigned warp = machine.current / kWarp;
  WarpProducts& mine = now.warps[warp];
  while (mine.groups.size() > left) {
    for (; mine.groups.front() > 0; --mine.groups.front()) {
      execute(warp, mine.products.front());
      mine.products.pop_front();
    }
    mine.groups.pop_front();
  }
  std::erase_if(mine.accumulators, [&](const auto& entry) {
    for (const Product& product : mine.products)
      if (product.c == entry.first) return false;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      std::copy(entry.second.value[lane].begin(), entry.second.value[lane].end(), entry.second.lane[lane]);
      now.fenced[warp * kWarp + lane] = false;  // the thread may use its registers again
    }
    return true;
  });
}

}  // namespace

bool make_tiled_map(TensorMap& map, const void* data, const int64_t* sizes, const int32_t* box) {
  bool right = common_rules(map, data, sizes, 3) && box[0] == 64;  // 128 bytes, as the swizzle mode wants
  for (int i = 0; i < 3; ++i) {
    map.box[i] = box[i];
    right = right && box[i] > 0 && box[i] <= 256;
  }
  map.made = right;
  return right;
}

bool make_im2col_map(TensorMap& map, const void* data, const int64_t* sizes, const int32_t* lower,
                     const int32_t* upper, const int32_t* step, int32_t pixels) {
  bool right = common_rules(map, data, sizes, 4) && pixels > 0 && pixels <= 1024;
  map.im2col = true;
  map.pixels = pixels;
  for (int i = 0; i < 2; ++i) {
    right = right && lower[i] >= -128 && lower[i] <= 127 && upper[i] >= -128 && upper[i] <= 127;
    right = right && step[i] >= 1 && step[i] <= 8;
    map.lower[i] = lower[i];
    map.upper[i] = static_cast<int32_t>(sizes[i + 1] - 1) + upper[i];
    map.step[i] = step[i];
    right = right && map.upper[i] >= map.lower[i];
  }
  map.made = right;
  return right;
}

void allow_dynamic_shared(size_t bytes) { allowed = bytes; }

unsigned char* dynamic_shared() {
  if (allowed > kMostShared) stop("a block wants " + std::to_string(allowed) + " bytes of dynamic shared memory");
  touched = true;
  return arena;
}

uint32_t shared_place(const void* pointer) {
  return kFirstPlace + static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - arena);
}

void make_barrier(uint64_t* barrier, int arrivals, Here here) {
  if (!reach(here.file_name(), here.line())) return;
  at_place(shared_place(barrier), sizeof *barrier);
  now.barriers[barrier] = {arrivals, arrivals, 0, 0, machine.current, false};
}

void show_to_copy_engine(Here here) {
  if (!reach(here.file_name(), here.line())) return;
  for (auto& [barrier, phases] : now.barriers)
    if (phases.maker == machine.current) phases.shown = true;
}

void arrive(uint64_t* barrier, int bytes, Here here) {
  if (!reach(here.file_name(), here.line())) return;
  Phases& phases = *phases_of(barrier);
  if (phases.missing == 0) stop("more arrivals at a barrier than it was made for");
  phases.bytes += bytes;
  --phases.missing;
  look_at(phases);
}

void wait_for_phase(const uint64_t* barrier, uint32_t parity, Here here) {
  if (!reach(here.file_name(), here.line())) return;
  const Phases& phases = *phases_of(barrier);
  while (phases.phase % 2 == parity) {
    machine.self().state = State::awaiting;
    give_way();
  }
}

void copy_tensor(void* target, const TensorMap& map, uint64_t* barrier, const int32_t (&at)[4],
                 const uint16_t (&offset)[2], Here here) {
  if (!reach(here.file_name(), here.line())) return;
  if (!map.made) stop("a copy without a tensor map");
  if (shared_place(target) % 128) stop("a copy to a misaligned address");
  if (!phases_of(barrier)->shown) stop("a copy with a barrier that the copy engine may not see yet");
  if (map.im2col) {
    for (int i = 0; i < 2; ++i)
      if (at[i + 1] < map.lower[i] || at[i + 1] > map.upper[i]) stop("a filter outside of its box");
    if (offset[0] > 255 || offset[1] > 255) stop("offsets of a tap that are too large");
  }
  const TensorCopy copy{
      static_cast<unsigned char*>(target), map, barrier, {at[0], at[1], at[2], at[3]}, {offset[0], offset[1]}};
  if (at_once())
    deliver(copy);
  else
    now.copies.push_back(copy);
}

void fence_products(Here here) {
  if (reach(here.file_name(), here.line())) now.fenced[machine.current] = true;
}

void multiply_async(const AsyncProduct& product, Here here) {
  if (reach(here.file_name(), here.line()))
    warp_together(&product, begin_product, machine.self().file, machine.self().line);
}

void end_product_group(Here here) {
  if (reach(here.file_name(), here.line()))
    warp_together(nullptr, end_group, machine.self().file, machine.self().line);
}

void wait_for_products(size_t groups, Here here) {
  if (reach(here.file_name(), here.line()))
    warp_together(&groups, finish_products, machine.self().file, machine.self().line);
}

void begin_asynchronous() {
  if (!touched) return;
  touched = false;
  now = {};
  std::memset(arena, kUnwritten, sizeof arena);
}

bool deliver_late() {
  if (now.copies.empty()) return false;
  arrange(now.copies);
  const TensorCopy copy = now.copies.front();
  now.copies.erase(now.copies.begin());
  deliver(copy);
  return true;
}

std::string unfinished() {
  if (!now.copies.empty()) return "copies are under way when a block ends";
  for (const WarpProducts& warp : now.warps)
    if (!warp.products.empty()) return "products are under way when a block ends";
  for (unsigned warp = 0; warp < kMaxThreads / kWarp; ++warp)
    if (now.warps[warp].begun != now.descriptors[warp / kGroupWarps].size())
      return "the warps of a warpgroup do not execute the same products";
  return "";
}

}  // namespace cisdl::emulation
