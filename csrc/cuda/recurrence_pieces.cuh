// Parts of recurrence.cuh, whose opening says what they are for: the times and their rows, which block and thread
// is responsible for what, and how a warp reads its share of the depth and multiplies it.
#pragma once

#include "../common/recurrences.h"
#include "published.cuh"

namespace cisdl::cuda {

constexpr int kUnits = 8;      // hidden units of a block: the columns of an mma
constexpr int kTileRows = 16;  // the lines of an mma
constexpr int kMaxTiles = 8;   // of a group
constexpr int kWarps = kThreads / 32;
constexpr int kPlaces = kTileRows * kUnits;  // of a tile: each has a thread of its own for the cell
template <class T>
constexpr int kLaneDepth = sizeof(Chunk) / sizeof(T);  // numbers that a lane reads of a piece
template <class T>
constexpr int kPieceDepth = 4 * kLaneDepth<T>;  // numbers of a piece

// The rows of one time: [begin, begin + count) belong to the first `count` sequences.
struct Rows {
  int64_t begin = 0;
  int64_t count = 0;
};

// Goes through the times, one up or one down at a move.
class Walk {
 public:
  // At the first time (up) or the last one.
  __device__ Walk(const Sequences& s, bool up) : s_(s), up_(up), time_(up ? 0 : s.steps - 1) {
    rows_.count = up || !s.packed ? s.batch : 0;
    if (!up) {
      grow();
      rows_.begin = s.rows - rows_.count;
    }
  }
  // None before the first and behind the last time.
  __device__ Rows rows() const { return time_ < 0 || time_ >= s_.steps ? Rows{} : rows_; }
  __device__ void move() {
    if (up_) {
      ++time_;
      rows_.begin += rows_.count;
      if (s_.packed)
        while (rows_.count > 0 && s_.lengths[rows_.count - 1] <= time_) --rows_.count;
    } else {
      --time_;
      grow();
      rows_.begin -= rows_.count;
    }
  }

 private:
  __device__ void grow() {
    if (s_.packed)
      while (rows_.count < s_.batch && s_.lengths[rows_.count] > time_) ++rows_.count;
  }

  const Sequences& s_;
  bool up_;
  int64_t time_;
  Rows rows_;
};

// What this block and thread are responsible for.
struct Place {
  int64_t first_unit;  // of the block
  int first_tile, groups;
  int warp, lane;
  bool has_cell;  // this thread applies the cell to one place of each tile: ...
  int row;        // ... this row of the tile
  int64_t unit;   // ... this hidden unit

  __device__ explicit Place(const Sequences& s) {
    const auto blocks = static_cast<unsigned>(s.hidden_size / kUnits);
    first_unit = int64_t{blockIdx.x % blocks} * kUnits;
    first_tile = static_cast<int>(blockIdx.x / blocks);
    groups = static_cast<int>(gridDim.x / blocks);
    warp = threadIdx.x / 32;
    lane = threadIdx.x % 32;
    // Thread 4 * lane + register of the sums of an mma.
    const int of_lane = threadIdx.x / 4, of_register = threadIdx.x % 4;
    has_cell = CISDL_INSIDE(threadIdx.x < kPlaces);
    row = of_lane / 4 + of_register / 2 * 8;
    unit = first_unit + of_lane % 4 * 2 + of_register % 2;
  }
  // The depth of this lane's 16 bytes in its warp's piece number `piece`.
  template <class T>
  __device__ int64_t depth(int piece) const {
    return int64_t{(piece * kWarps + warp) * kPieceDepth<T> + lane % 4 * kLaneDepth<T>};
  }
};

// A word of a weight. Of floats the compiler takes it for another one at every turn: what is made of it is made
// again, and does not stay in registers beside it.
template <class T>
__device__ uint32_t used_here(uint32_t word) {
#ifdef __CUDACC__
  if constexpr (sizeof(T) == 4) asm volatile("mov.b32 %0, %0;" : "+r"(word));
#endif
  return word;
}

// Floats as TF32, and what that leaves of them, again as TF32: together 22 bits of mantissa. Of an infinite number
// nothing is left.
template <int n>
__device__ void split_floats(const uint32_t (&value)[n], uint32_t (&high)[n], uint32_t (&low)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) {
    high[i] = to_tf32(value[i]);
    const float rest = float_of(value[i]) - float_of(high[i]);
    low[i] = to_tf32(bits_of((high[i] & 0x7f800000u) == 0x7f800000u ? 0.0f : rest));
  }
}

// sum += A W^T for one piece: lines[0] of row lane / 4 and lines[1] of the row 8 on; w of column lane / 4. Of
// floats without `tf32` three products: all but that of the two rests.
template <class T>
__device__ void multiply_piece(float (&sum)[4], const Chunk (&lines)[2], const Chunk& w, bool tf32) {
#pragma unroll
  for (int half = 0; half < 4; half += 2) {
    const uint32_t a[4] = {lines[0].word[half], lines[1].word[half], lines[0].word[half + 1],
                           lines[1].word[half + 1]};
    const uint32_t b[2] = {used_here<T>(w.word[half]), used_here<T>(w.word[half + 1])};
    if constexpr (sizeof(T) == 2) {
      multiply_add<T>(sum, a, b);
    } else {
      uint32_t a_high[4], a_low[4], b_high[2], b_low[2];
      split_floats(a, a_high, a_low);
      split_floats(b, b_high, b_low);
      if (!tf32) {
        multiply_add<T>(sum, a_low, b_high);
        multiply_add<T>(sum, a_high, b_low);
      }
      multiply_add<T>(sum, a_high, b_high);
    }
  }
}

// How many gates' pieces are on their way at once in backward: all, or what registers have room for.
template <class T>
__host__ __device__ constexpr int gates_together(int gates, int pieces) {
  const int most = sizeof(T) == 4 ? 8 : 12;  // splitting floats takes registers, too
  int together = gates;
  while (together > 1 && (gates % together || together * pieces > most)) --together;
  return together;
}

// Where a row's numbers are: null stands for zeros, and what others publish is awaited.
template <class T>
struct Line {
  const T* data = nullptr;
  bool awaited = false;

  // 16 bytes at `depth` of the `size` numbers that begin at `begin`.
  __device__ Chunk load(int64_t begin, int64_t depth, int64_t size) const {
    return data && CISDL_INSIDE(depth < size) ? load_published(data + begin + depth) : Chunk{};
  }
};

// Reads this warp's pieces of the first `parts` parts of two lines, a part being `size` numbers, until all is
// there.
template <int parts, int pieces, class T>
__device__ void read_lines(Chunk (&to)[parts * pieces][2], const Line<T> (&lines)[2], const Place& place,
                           int64_t size) {
  constexpr int count = parts * pieces;
  const auto load = [&](int i, int l) {
    return lines[l].load(i / pieces * size, place.depth<T>(i % pieces), size);
  };
#pragma unroll
  for (int i = 0; i < count; ++i)
#pragma unroll
    for (int l = 0; l < 2; ++l) to[i][l] = load(i, l);
  for (;;) {
    bool missing = false;
#pragma unroll
    for (int i = 0; i < count; ++i)
#pragma unroll
      for (int l = 0; l < 2; ++l) missing = missing || (lines[l].awaited && has_unpublished<T>(to[i][l]));
    if (!await(missing)) return;
#pragma unroll
    for (int i = 0; i < count; ++i)
#pragma unroll
      for (int l = 0; l < 2; ++l)
        if (lines[l].awaited && has_unpublished<T>(to[i][l])) to[i][l] = load(i, l);
  }
}

}  // namespace cisdl::cuda
