// What elementwise.cpp exports for each instruction set (see kernels.h), and the one in use.
#pragma once

#include "../common/elementwise.h"
#include "kernels.h"

namespace cisdl {

using ElementwiseFamily = Family<ElementwiseKernels>;

const ElementwiseFamily& elementwise_kernels();

}  // namespace cisdl
