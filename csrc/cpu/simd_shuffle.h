// Moving lanes between vectors: transposes and sums of several vectors at once, for any Vec<T>.
//
// All is built from two-operand shuffles with constant indices, chosen so that each compiles to one instruction:
// within 128-bit blocks (unpck*, shuf*; zip on NEON) or of whole blocks (perm2f128, shuff32x4).
#pragma once

#include <utility>

#include "simd.h"

namespace cisdl {
namespace {

// shuffle<T, Index>(a, b): lane i of the result is lane Index::at(i) of a followed by b.
template <class T, class Index, int... I>
CISDL_INLINE Vec<T> shuffle_lanes(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Index::at(I)...);
#else
  return __builtin_shuffle(a, b, Mask<T>{Index::at(I)...});
#endif
}

template <class T, class Index>
CISDL_INLINE Vec<T> shuffle(Vec<T> a, Vec<T> b) {
  return shuffle_lanes<T, Index>(a, b, std::make_integer_sequence<int, kWidth<T>>{});
}

// Lanes of one 128-bit block, and how many blocks a vector has.
template <class T>
constexpr int kBlockLanes = 16 / static_cast<int>(sizeof(T));
constexpr int kBlocks = kVecBytes / 16;

// In every block, `Step` lanes at a time: a0 b0 (high half: a1 b1) ...; Step = half a block is "unpack halves".
template <class T, int Step, bool High>
struct InterleaveInBlock {
  static constexpr int at(int lane) {
    const int block = lane / kBlockLanes<T>, i = lane % kBlockLanes<T>;
    const int unit = i / Step, within = i % Step;  // units alternate between a and b
    const int from = block * kBlockLanes<T> + (High ? kBlockLanes<T> / 2 : 0) + (unit / 2) * Step + within;
    return from + (unit % 2 ? kWidth<T> : 0);
  }
};

// In every block: the even (odd) lanes of a's block, then those of b's.
template <class T, bool Odd>
struct UnzipInBlock {
  static constexpr int at(int lane) {
    const int block = lane / kBlockLanes<T>, i = lane % kBlockLanes<T>, half = kBlockLanes<T> / 2;
    const int from = block * kBlockLanes<T> + (i % half) * 2 + (Odd ? 1 : 0);
    return from + (i >= half ? kWidth<T> : 0);
  }
};

// Whole blocks: the even (odd) blocks of a, then those of b.
template <class T, bool Odd>
struct UnzipBlocks {
  static constexpr int at(int lane) {
    const int block = lane / kBlockLanes<T>, i = lane % kBlockLanes<T>;
    return (2 * block + (Odd ? 1 : 0)) * kBlockLanes<T> + i;  // runs on into b by itself
  }
};

// Transposes the W x W matrix whose rows are v[0..W): first within 128-bit blocks, then the blocks themselves.
template <class T>
CISDL_INLINE void transpose(Vec<T> (&v)[kWidth<T>]) {
  constexpr int W = kWidth<T>, L = kBlockLanes<T>;
  Vec<T> t[W];
  // Each group of L consecutive rows: afterwards row g*L + i holds, in block c, column c*L + i of those rows.
#pragma GCC unroll 16
  for (int g = 0; g < W; g += L) {
    if constexpr (L == 4) {
      const Vec<T> ab_lo = shuffle<T, InterleaveInBlock<T, 1, false>>(v[g], v[g + 1]);
      const Vec<T> ab_hi = shuffle<T, InterleaveInBlock<T, 1, true>>(v[g], v[g + 1]);
      const Vec<T> cd_lo = shuffle<T, InterleaveInBlock<T, 1, false>>(v[g + 2], v[g + 3]);
      const Vec<T> cd_hi = shuffle<T, InterleaveInBlock<T, 1, true>>(v[g + 2], v[g + 3]);
      t[g] = shuffle<T, InterleaveInBlock<T, 2, false>>(ab_lo, cd_lo);
      t[g + 1] = shuffle<T, InterleaveInBlock<T, 2, true>>(ab_lo, cd_lo);
      t[g + 2] = shuffle<T, InterleaveInBlock<T, 2, false>>(ab_hi, cd_hi);
      t[g + 3] = shuffle<T, InterleaveInBlock<T, 2, true>>(ab_hi, cd_hi);
    } else {
      t[g] = shuffle<T, InterleaveInBlock<T, 1, false>>(v[g], v[g + 1]);
      t[g + 1] = shuffle<T, InterleaveInBlock<T, 1, true>>(v[g], v[g + 1]);
    }
  }
  // For each i, the kBlocks rows t[g*L + i] form a matrix of blocks; transpose that.
#pragma GCC unroll 4
  for (int i = 0; i < L; ++i) {
    if constexpr (kBlocks == 1) {
      v[i] = t[i];
    } else if constexpr (kBlocks == 2) {
      v[i] = shuffle<T, UnzipBlocks<T, false>>(t[i], t[L + i]);
      v[L + i] = shuffle<T, UnzipBlocks<T, true>>(t[i], t[L + i]);
    } else {
      const Vec<T> even_ab = shuffle<T, UnzipBlocks<T, false>>(t[i], t[L + i]);
      const Vec<T> odd_ab = shuffle<T, UnzipBlocks<T, true>>(t[i], t[L + i]);
      const Vec<T> even_cd = shuffle<T, UnzipBlocks<T, false>>(t[2 * L + i], t[3 * L + i]);
      const Vec<T> odd_cd = shuffle<T, UnzipBlocks<T, true>>(t[2 * L + i], t[3 * L + i]);
      v[i] = shuffle<T, UnzipBlocks<T, false>>(even_ab, even_cd);
      v[L + i] = shuffle<T, UnzipBlocks<T, false>>(odd_ab, odd_cd);
      v[2 * L + i] = shuffle<T, UnzipBlocks<T, true>>(even_ab, even_cd);
      v[3 * L + i] = shuffle<T, UnzipBlocks<T, true>>(odd_ab, odd_cd);
    }
  }
}

// Halves a and b and puts the halves' sums side by side.
template <class T, template <class, bool> class Unzip>
CISDL_INLINE Vec<T> fold_pair(Vec<T> a, Vec<T> b) {
  return shuffle<T, Unzip<T, false>>(a, b) + shuffle<T, Unzip<T, true>>(a, b);
}

// sums[i] = the sum of all lanes of v[i], for N vectors: about three instructions each, where a sum on its own
// takes nine. The order of additions is fixed, and the same for every i.
template <class T, int N>
CISDL_INLINE void sum_lanes_of(const Vec<T> (&v)[N], T* sums) {
  constexpr int W = kWidth<T>;
#pragma GCC unroll 16
  for (int first = 0; first < N; first += W) {
    // Folding pairs log2(W) times leaves one vector with the W sums in order. A missing partner is the vector
    // itself: what it computes twice is not stored.
    Vec<T> t[W];
    int live = N - first < W ? N - first : W;
#pragma GCC unroll 16
    for (int i = 0; i < live; ++i) t[i] = v[first + i];
#pragma GCC unroll 4
    for (int lanes = 1; lanes < W; lanes *= 2) {
#pragma GCC unroll 8
      for (int i = 0; i < live; i += 2) {
        const Vec<T> a = t[i], b = i + 1 < live ? t[i + 1] : t[i];
        t[i / 2] = lanes < kBlockLanes<T> ? fold_pair<T, UnzipInBlock>(a, b) : fold_pair<T, UnzipBlocks>(a, b);
      }
      live = (live + 1) / 2;
    }
    if (N - first >= W) {
      store(sums + first, t[0]);
    } else {
      T last[W];
      store(last, t[0]);
#pragma GCC unroll 16
      for (int i = first; i < N; ++i) sums[i] = last[i - first];
    }
  }
}

}  // namespace
}  // namespace cisdl
