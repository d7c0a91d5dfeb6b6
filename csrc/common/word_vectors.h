// Training of word vectors: skip-gram and CBOW with negative sampling (word2vec), and GloVe.
//
// As in problems.h: sizes, then pointers, every tensor with its shape, dense. Both work in place on rows of two
// matrices, one for words and one for contexts.
#pragma once

#include "parallel.h"

namespace cisdl {

// -------------------------------------------------------------------------------------------- word2vec

// The generator of word2vec.c, modulo 2^64. Only the high bits of a state are any good; they are what is used.
static inline uint64_t next_random(uint64_t state) { return state * 25214903917u + 11u; }

// What one call did, summed over the workers. The loss is that of a sample of the updates, before each.
struct Word2VecReport {
  int64_t words;    // left by subsampling
  int64_t updates;  // centre-context pairs; CBOW: centres
  double loss;      // sum over `losses` updates of -log sigma(h v+) - sum log sigma(-h v-)
  int64_t losses;
};

// One pass over `tokens` (word2vec.cpp has the formulas).
struct Word2VecTrain {
  int64_t vocabulary, dim;
  int64_t size;    // of tokens
  int64_t window;  // the largest distance; each centre draws its own from 1 to this
  int64_t negative;
  int64_t workers;  // stretches of tokens, each trained in its order, all at once
  bool cbow;
  bool shared_negatives;
  float lr_begin, lr_end;   // from the first token to the last
  const int32_t* tokens;    // [size], words by number; -1 ends a sentence
  const float* keep;        // [vocabulary], the probability to keep a word; or null: all
  const float* threshold;   // [vocabulary]: column i of the alias table gives i with this probability,
  const int32_t* alias;     // [vocabulary]: otherwise this
  float* input_vectors;     // [vocabulary, dim]
  float* output_vectors;    // [vocabulary, dim]
  uint64_t* random;         // [workers], states of the generator
  Word2VecReport* reports;  // [workers]
};

struct Word2VecKernels {
  void (*train)(const Word2VecTrain&, const Parallel&);
};

// --------------------------------------------------------------------------------------------- glove

// How often words i <= j are neighbours, for every pair of a stretch of text: sum of 1 / distance over all
// occurrences within `window`, twice that for i = j (cooccurrence.cpp).
struct CooccurrenceCount {
  int64_t words, size;
  int64_t window;         // at most 255
  const int32_t* tokens;  // [size], -1 ends a sentence
};

int64_t cooccurrence_pairs(const CooccurrenceCount& c);
// Fills `sorted` [pairs] with the pairs, sorted; `spare` [pairs] is overwritten. Returns how many different ones.
int64_t cooccurrence_sort(const CooccurrenceCount& c, uint64_t* sorted, uint64_t* spare);
// keys [different], i * words + j ascending, and their values [different].
void cooccurrence_sum(const CooccurrenceCount& c, int64_t pairs, const uint64_t* sorted, int64_t* keys,
                      double* values);

// One pass of AdaGrad over all records (glove.cpp has the formulas). The matrix of counts is cut into blocks x
// blocks blocks, word n into block n mod blocks; the records of block (r, c) lie from offsets[r blocks + c] on.
// Threads take blocks by `teams`, which divide `blocks`: block n belongs to team n mod teams.
struct GloveTrain {
  int64_t words, width, blocks, teams;
  float lr;
  uint64_t seed;           // of the order of blocks and records
  const int64_t* offsets;  // [blocks^2 + 1]
  const int32_t* pairs;    // [records, 2], word and context
  const float* targets;    // [records, 2], log x and f(x)
  float* word_rows;        // [words, 2, width]: vector, accumulators
  float* context_rows;     // [words, 2, width]
  double* losses;          // [teams], sums of f(x) d^2 / 2
};

struct GloveKernels {
  void (*train)(const GloveTrain&, const Parallel&);
};

}  // namespace cisdl
