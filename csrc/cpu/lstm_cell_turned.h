// Forward of the LSTM cell with the products turned round, a^T = W x^T: the weights are read where they lie.
//
// x and h are packed once a call, transposed, as panels of kTileCols rows of the batch: small beside the weights,
// and each panel meets all of them. A tile is some rows of W, of one gate, by one panel: of W it broadcasts
// one element after the other, straight from its rows, and lanes are rows of the batch. The weights to come are
// asked for meanwhile, a cache line for each k, which is faster than they are used: from L3 they cost no time of
// their own. So nothing of the weights is packed, copied or transposed, however few rows of the batch they meet.
//
// An item is W hidden units (W: lanes of a vector). Of one panel the sums of all four gates are formed; then they
// are transposed in registers, so that lanes are hidden units, and the activations follow while all is in L1.
#pragma once

#include "lstm_cell_block.h"

namespace cisdl {
namespace {

// Rows of a tile, a divisor of W: 8 x 32 floats with 32 registers of 64 bytes, 4 x 16 with 16 of 32 bytes. Of a
// panel one vector wide more, so that the chains of additions are enough to overlap.
template <class T, int NV>
constexpr int kTurnedRows = NV == 1 || kWidth<T> <= kTileRows ? kWidth<T> : kWidth<T> / 2;

// Rows of the packed panel are asked for so far ahead: L2 answers in time.
constexpr int64_t kTurnedAhead = 24;

// C[MR][NV*W] (+)= A B: rows of A lie `lda` apart, B is a packed panel; `next`: what to ask for meanwhile.
template <class T, int MR, int NV>
void turned_tile(int64_t k, const T* __restrict a, int64_t lda, const T* __restrict b, const T* next, T* c,
                 bool accumulate) {
  constexpr int W = kWidth<T>, kLine = 64 / static_cast<int>(sizeof(T));
  constexpr int64_t N = kTileCols<T>;
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[i][v] = accumulate ? load(c + i * N + v * W) : zero<T>();
  const T* const end = a + k;
#pragma GCC unroll 2
  for (; a < end; ++a) {
    Vec<T> bv[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) bv[v] = load(b + v * W);
#pragma GCC unroll 4
    for (int j = 0; j < NV * W; j += kLine) __builtin_prefetch(b + kTurnedAhead * NV * W + j, 0, 3);
    __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const Vec<T> av = set1(a[i * lda]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) acc[i][v] += av * bv[v];
    }
    b += NV * W;
    next += kLine;
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) store(c + i * N + v * W, acc[i][v]);
}

template <class T, int NV, int MR = kTurnedRows<T, NV>>
CISDL_INLINE void turned_tile_rows(int64_t rows, int64_t k, const T* a, int64_t lda, const T* b, const T* next,
                                   T* c, bool accumulate) {
  if (rows == MR) {
    turned_tile<T, MR, NV>(k, a, lda, b, next, c, accumulate);
  } else if constexpr (MR > 1) {
    turned_tile_rows<T, NV, MR - 1>(rows, k, a, lda, b, next, c, accumulate);
  }
}

// One of the two products: the weights, and the packed rows that they meet.
template <class T>
struct TurnedProduct {
  int64_t size;
  const T* weight;
  const T* panels;  // [panel][size][kTileCols]; the last is one vector wide if it has no more columns
};

template <class T>
TurnedProduct<T> turned_product(const T* rows, int64_t batch, int64_t size, const T* weight, Scratch slot,
                                const Parallel& par) {
  constexpr int64_t N = kTileCols<T>;
  const int64_t count = (batch + N - 1) / N;
  T* panels = static_cast<T*>(scratch(slot, count * size * N * static_cast<int64_t>(sizeof(T))));
  parallel_for(par, count, grain_for(8 * N * size), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      pack_b<T>(lines_are_rows(rows + p * N * size, size), smaller(N, batch - p * N), size, panels + p * N * size,
                N * size);
  });
  return {size, weight, panels};
}

// c[units][kTileCols] = `units` rows of W from `row` on, by one panel; `accumulate`: added to what is there.
template <class T>
void multiply_turned(const TurnedProduct<T>& x, int64_t row, int64_t units, int64_t panel, int64_t rows, T* c,
                     bool accumulate) {
  constexpr int64_t N = kTileCols<T>;
  const int64_t width = panel_vectors<T>(rows) * kWidth<T>;
  const int64_t R = width > kWidth<T> ? kTurnedRows<T, kTileVectors> : kTurnedRows<T, 1>;
  const Parts parts = split_evenly(x.size, kMaxChain, 1);
  for (int64_t u = 0; u < units; u += R) {
    const T* a = x.weight + (row + u) * x.size;
    const T* b = x.panels + panel * N * x.size;
    const int64_t some = smaller(R, units - u);
    for (int64_t k0 = 0; k0 < x.size; k0 += parts.size) {
      const int64_t k = smaller(parts.size, x.size - k0);
      // The rows that follow lie behind these, in one stretch; a part of k asks for a part of it.
      const T* next = a + R * (x.size + k0);
      if (width > kWidth<T>)
        turned_tile_rows<T, kTileVectors>(some, k, a + k0, x.size, b + k0 * width, next, c + u * N,
                                          accumulate || k0 > 0);
      else
        turned_tile_rows<T, 1>(some, k, a + k0, x.size, b + k0 * width, next, c + u * N, accumulate || k0 > 0);
    }
    if (x.size == 0 && !accumulate)
      for (int64_t i = 0; i < some * N; i += kWidth<T>) store(c + u * N + i, zero<T>());
  }
}

// Sums [units][kTileCols], lanes are rows of the batch, into gate `gate` of the block [row][gate][W].
template <class T>
CISDL_INLINE void turn_sums(const T* sums, int64_t units, int64_t rows, int64_t gate, T* block) {
  constexpr int W = kWidth<T>;
  constexpr int64_t N = kTileCols<T>;
  for (int64_t r = 0; r < rows; r += W) {
    Vec<T> t[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) t[i] = i < units ? load(sums + i * N + r) : zero<T>();
    transpose<T>(t);
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) store(block + (r + i) * kGateBlock<T> + gate * W, t[i]);
  }
}

template <class T>
void forward_turned(const LstmCellForward<T>& f, const Parallel& par) {
  constexpr int W = kWidth<T>;
  constexpr int64_t N = kTileCols<T>, kSums = W * N, kBlock = N * kGateBlock<T>;
  const int64_t hidden = f.p.hidden_size, batch = f.p.batch;
  if (batch == 0 || hidden == 0) return;
  const TurnedProduct<T> x = turned_product(f.input, batch, f.p.input_size, f.w_ih, Scratch::shared, par);
  const TurnedProduct<T> h = turned_product(f.hx, batch, hidden, f.w_hh, Scratch::shared2, par);

  // An item: W hidden units by a group of panels; enough groups to occupy every thread.
  const int64_t panels = (batch + N - 1) / N, unit_blocks = (hidden + W - 1) / W;
  const int64_t wanted = (2 * par.num_threads + unit_blocks - 1) / unit_blocks;
  const Parts groups = split_evenly(panels, larger(1, panels / wanted), 1);
  const int64_t work = kGateBlock<T> * groups.size * N * (x.size + h.size);
  parallel_for(par, unit_blocks * groups.count, grain_for(work), [&](int64_t begin, int64_t end) {
    alignas(kVecBytes) T sums[kSums];
    alignas(kVecBytes) T block[kBlock];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t j = item / groups.count * W, units = smaller(W, hidden - j);
      const int64_t first = item % groups.count * groups.size, last = smaller(panels, first + groups.size);
      for (int64_t p = first; p < last; ++p) {
        const int64_t rows = smaller(N, batch - p * N);
        for (int64_t gate = 0; gate < 4; ++gate) {
          multiply_turned<T>(x, gate * hidden + j, units, p, rows, sums, false);
          multiply_turned<T>(h, gate * hidden + j, units, p, rows, sums, true);
          turn_sums<T>(sums, units, rows, gate, block);
        }
        finish_block<T>(f, block, p * N, rows, j, units);
      }
    }
  });
}

}  // namespace
}  // namespace cisdl
