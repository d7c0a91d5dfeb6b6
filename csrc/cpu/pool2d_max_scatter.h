// The gradient of max pooling by scattering, for either layout and both kinds of index.
//
// A block is one plane in [N, C, H, W], or one image, with its channels interleaved, in [N, H, W, C]. It is set
// to zero and each output's gradient added to the cell its index names, one by one, in the order of the outputs.
// A plane fits L1, so this is bound by additions to memory, about one a nanosecond. Threads share blocks.
#pragma once

#include "pool2d_plain.h"

namespace cisdl {
namespace {

template <class T>
void max_scatter(const MaxPool2dBackward<T>& a, const Parallel& par) {
  const Pool2dProblem& p = a.p;
  const bool nhwc = a.layout == Layout::nhwc;
  const int64_t blocks = nhwc ? p.batch : p.batch * p.channels, C = nhwc ? p.channels : 1;
  const int64_t in_cells = p.in_h * p.in_w, out_cells = p.out_h * p.out_w;
  parallel_for(par, blocks, planes_grain(in_cells * C), [&](int64_t begin, int64_t end) {
    int64_t place[255];  // of a window's cell, from the window's first; index 255: no cell inside the image
    if (a.index == PoolIndex::window)
      for (int64_t tap = 0; tap < p.kernel_h * p.kernel_w; ++tap)
        place[tap] = (tap / p.kernel_w * p.dilation_h * p.in_w + tap % p.kernel_w * p.dilation_w) * C;
    for (int64_t block = begin; block < end; ++block) {
      T* out = a.grad_input + block * in_cells * C;
      const T* grad = a.grad_output + block * out_cells * C;
      std::memset(out, 0, static_cast<size_t>(in_cells * C) * sizeof(T));
      if (a.index == PoolIndex::flat) {
        const int64_t* index = static_cast<const int64_t*>(a.indices) + block * out_cells * C;
        for (int64_t i = 0; i < out_cells; ++i)
          for (int64_t c = 0; c < C; ++c, ++index, ++grad)
            if (*index >= 0 && *index < in_cells) out[*index * C + c] += *grad;
        continue;
      }
      const uint8_t* index = static_cast<const uint8_t*>(a.indices) + block * out_cells * C;
      if (!nhwc) {
        for (int64_t oh = 0; oh < p.out_h; ++oh, index += p.out_w, grad += p.out_w) {
          const int64_t first = (oh * p.stride_h - p.pad_h) * p.in_w - p.pad_w;
          for (int64_t ow = 0; ow < p.out_w; ++ow)
            if (index[ow] != 255) out[first + ow * p.stride_w + place[index[ow]]] += grad[ow];
        }
        continue;
      }
      for (int64_t oh = 0; oh < p.out_h; ++oh) {
        for (int64_t ow = 0; ow < p.out_w; ++ow) {
          const int64_t first = ((oh * p.stride_h - p.pad_h) * p.in_w + ow * p.stride_w - p.pad_w) * C;
          for (int64_t c = 0; c < C; ++c, ++index, ++grad)
            if (*index != 255) out[first + c + place[*index]] += *grad;
        }
      }
    }
  });
}

}  // namespace
}  // namespace cisdl
