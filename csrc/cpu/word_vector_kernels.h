// What word2vec.cpp and glove.cpp export for each instruction set (see kernels.h), and the ones in use.
#pragma once

#include "../common/word_vectors.h"
#include "kernels.h"

namespace cisdl {

const Word2VecKernels& word2vec_kernels();
const GloveKernels& glove_kernels();

}  // namespace cisdl
