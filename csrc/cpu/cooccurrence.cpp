// Counting neighbours by sorting them: for GloVe's matrix X, X_ij = sum of 1 / distance over all places where i
// and j stand within `window` words of each other.
//
// Every pair of neighbours becomes one 64-bit number, (i words + j) << 8 | distance with i <= j: X is symmetric,
// half of it is enough. A radix sort brings equal pairs together (11 bits a pass, the pairs' bits only), and one
// scan adds up their 1 / distance in double. No table of words^2, and memory is 16 bytes a pair whatever the text:
// the caller cuts the text into stretches and merges their sorted sums.
//
// Integer code with nothing for vectors to do: compiled once, for every CPU.
#include <cstring>

#include "../common/word_vectors.h"

namespace cisdl {
namespace {

constexpr int kDistanceBits = 8, kDigitBits = 11, kDigits = 1 << kDigitBits;

int bits_of(uint64_t n) { return n == 0 ? 0 : 64 - __builtin_clzll(n); }

// f(a, b, distance) for every pair of places in a sentence that are at most `window` apart.
template <class F>
void each_pair(const CooccurrenceCount& c, F&& f) {
  int64_t begin = 0;  // of the sentence
  for (int64_t i = 0; i < c.size; ++i) {
    const int32_t word = c.tokens[i];
    if (word < 0) {
      begin = i + 1;
      continue;
    }
    const int64_t from = i - begin < c.window ? begin : i - c.window;
    for (int64_t j = i - 1; j >= from; --j) f(word, c.tokens[j], i - j);
  }
}

void radix_pass(const uint64_t* from, uint64_t* to, int64_t n, int shift) {
  int64_t place[kDigits] = {};
  for (int64_t i = 0; i < n; ++i) ++place[from[i] >> shift & (kDigits - 1)];
  int64_t sum = 0;
  for (int64_t& p : place) {
    const int64_t count = p;
    p = sum;
    sum += count;
  }
  for (int64_t i = 0; i < n; ++i) to[place[from[i] >> shift & (kDigits - 1)]++] = from[i];
}

}  // namespace

int64_t cooccurrence_pairs(const CooccurrenceCount& c) {
  int64_t pairs = 0, place = 0;  // in the sentence
  for (int64_t i = 0; i < c.size; ++i) {
    if (c.tokens[i] < 0) {
      place = 0;
      continue;
    }
    pairs += place < c.window ? place : c.window;
    ++place;
  }
  return pairs;
}

int64_t cooccurrence_sort(const CooccurrenceCount& c, uint64_t* sorted, uint64_t* spare) {
  const auto words = static_cast<uint64_t>(c.words);
  const int key_bits = bits_of(words * words), passes = (key_bits + kDigitBits - 1) / kDigitBits;
  // So that the last pass ends in `sorted`.
  uint64_t *from = passes % 2 ? spare : sorted, *to = passes % 2 ? sorted : spare;
  uint64_t* end = from;
  each_pair(c, [&](int32_t a, int32_t b, int64_t distance) {
    const auto low = static_cast<uint64_t>(a < b ? a : b), high = static_cast<uint64_t>(a < b ? b : a);
    *end++ = (low * words + high) << kDistanceBits | static_cast<uint64_t>(distance);
  });
  const int64_t n = end - from;
  for (int pass = 0; pass < passes; ++pass) {
    radix_pass(from, to, n, kDistanceBits + pass * kDigitBits);
    uint64_t* swapped = from;
    from = to;
    to = swapped;
  }
  int64_t different = n > 0;
  for (int64_t i = 1; i < n; ++i) different += (sorted[i] ^ sorted[i - 1]) >> kDistanceBits != 0;
  return different;
}

void cooccurrence_sum(const CooccurrenceCount& c, int64_t pairs, const uint64_t* sorted, int64_t* keys,
                      double* values) {
  for (int64_t i = 0; i < pairs;) {
    const uint64_t key = sorted[i] >> kDistanceBits;
    double sum = 0;
    for (; i < pairs && sorted[i] >> kDistanceBits == key; ++i)
      sum += 1.0 / static_cast<double>(sorted[i] & ((1 << kDistanceBits) - 1));
    const bool same = key / static_cast<uint64_t>(c.words) == key % static_cast<uint64_t>(c.words);
    *keys++ = static_cast<int64_t>(key);
    *values++ = same ? 2 * sum : sum;
  }
}

}  // namespace cisdl
