// cisdl::lstm_layer (one layer in one direction, with a projection if w_hr is given; Sak et al. 2014) and its
// gradient. Training keeps the gates i, f, g, o and the cell state that each step began with.
#include <ATen/ops/mul.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>

#include "recurrence.h"
#include "recurrent_autograd.h"

namespace cisdl::ops {
namespace {

// Of input, hx, cx, w_ih, w_hh, b_ih, b_hh, w_hr, and which of them are wanted.
using Grads = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Mask8 = std::array<bool, 8>;

constexpr int64_t kGates = 4;
constexpr const char* kName = "lstm_layer";
constexpr const char* kBackwardName = "lstm_layer_backward";

// ---------------------------------------------------------------------------------------------- kernels

struct Inputs : RecurrentInputs {
  Tensor cx, w_hr;  // w_hr: [state_size, hidden_size], or undefined: the state is the hidden one
};

Inputs contiguous(const Inputs& in) {
  return {in.RecurrentInputs::contiguous(), in.cx.contiguous(),
          in.w_hr.defined() ? in.w_hr.contiguous() : in.w_hr};
}

template <class I>
struct Sizes : RecurrentSizes<I> {
  I hidden_size;
};

template <class I>
Sizes<I> check_inputs(const char* op, const Inputs& in, const RecurrentOptions& options) {
  const auto rows = check_rows<I>(op, options.form, in.input, in.hx, options.batch_sizes);
  check_like(op, "cx", in.cx, "input", in.input);
  const auto c = sizes_of<I>(in.cx);
  TORCH_CHECK(c.size() == 2 && c[0] == rows.batch, op, ": cx: expected shape [", rows.batch,
              ", hidden_size], got ", c);
  if (in.w_hr.defined()) {
    check_saved<I>(op, "w_hr", in.w_hr, in.input, {rows.state_size, c[1]});
  } else {
    check_shape<I>(op, "cx", in.cx, sizes_of<I>(in.hx));
  }
  check_weights<I>(op, in, rows, c[1] * kGates);
  return {rows, c[1]};
}

struct Results {
  Tensor output, h_n, c_n, gates, c_before;  // the last two: in training
};

// Everything in one kernel, where there is one for it; c_n holds cx.
bool forward_whole(const Inputs& in, const std::vector<Step>& steps, const Results& results) {
  bool done = false;
  with_dtype(in.input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    LstmLayerForward<T> f{};
    f.p = layer_of(steps, in, in.cx.size(1));
    f.projected = in.w_hr.defined();
    const auto* layer =
        whole_layer(Op::lstm_layer, in.input, of_type<T>(recurrent_layer_kernels()).lstm_forward, f);
    if (!layer) return;
    const Tensor packed = packed_weights(f.p, kGates, in.input, true);
    set_forward(f, in, packed, results.gates, results.output, results.h_n);
    f.c = results.c_n.mutable_data_ptr<T>();
    f.c_before = mutable_or_null<T>(results.c_before);
    layer->run(f, torch_threads());
    done = true;
  });
  return done;
}

template <class I>
Results allocate(const Inputs& in, const Sizes<I>& sizes, bool training) {
  const auto rows_of = [&](const I& features) { return empty_of<I>(sizes.with(features), in.input); };
  return {rows_of(sizes.state_size), empty_of<I>({sizes.batch, sizes.state_size}, in.input),
          empty_of<I>({sizes.batch, sizes.hidden_size}, in.input),
          training ? rows_of(sizes.hidden_size * kGates) : Tensor(),
          training ? rows_of(sizes.hidden_size) : Tensor()};
}

template <class I>
Results forward(const Inputs& args, const RecurrentOptions& options, bool training) {
  const auto sizes = check_inputs<I>(kName, args, options);
  const Results results = allocate<I>(args, sizes, training);
  if constexpr (std::is_same_v<I, int64_t>) {
    const Inputs in = contiguous(args);
    const int64_t batch = sizes.batch, state = sizes.state_size, hidden = sizes.hidden_size,
                  units = kGates * hidden;
    const bool projected = in.w_hr.defined();
    results.c_n.copy_(in.cx);
    const std::vector<Step> steps = steps_of(options.form, in.input, options.batch_sizes, options.reverse);
    if (forward_whole(in, steps, results)) return results;
    results.h_n.copy_(in.hx);
    if (batch == 0) return results;
    const auto scratch = [&](int64_t rows, int64_t features) {
      return at::empty({rows, features}, in.input.options());
    };
    const Tensor gates = training ? results.gates : scratch(all_rows(steps), units);
    const Tensor h_part = scratch(batch, units), unprojected = projected ? scratch(batch, hidden) : Tensor();
    with_dtype(in.input.scalar_type(), [&](auto t) {
      using T = decltype(t);
      T* part = h_part.mutable_data_ptr<T>();
      T* h = results.h_n.mutable_data_ptr<T>();
      product<T>(all_rows(steps), in.input.const_data_ptr<T>(), in.w_ih, in.b_ih, gates.mutable_data_ptr<T>());
      for (const Step& s : steps) {
        T* output = at_row(results.output.mutable_data_ptr<T>(), s.row, state);
        product<T>(s.rows, h, in.w_hh, in.b_hh, part);
        run(Op::lstm_step, in.input, of_type<T>(recurrent_kernels()).lstm_forward,
            LstmStepForward<T>{{s.rows, hidden},
                               part,
                               at_row(gates.mutable_data_ptr<T>(), s.row, units),
                               results.c_n.mutable_data_ptr<T>(),
                               projected ? unprojected.mutable_data_ptr<T>() : h,
                               projected ? nullptr : output,
                               at_row(mutable_or_null<T>(results.c_before), s.row, hidden),
                               at_row(gates.const_data_ptr<T>(), s.row, units),
                               units,
                               hidden});
        if (projected) {
          product<T>(s.rows, unprojected.const_data_ptr<T>(), in.w_hr, {}, output);
          results.h_n.narrow(0, 0, s.rows).copy_(results.output.view({-1, state}).narrow(0, s.row, s.rows));
        }
      }
    });
  }
  return results;
}

struct Saved {
  Tensor output, gates, c_before;
};

template <class I>
Grads check_backward(const Tensor& grad_output, const Tensor& grad_h_n, const Tensor& grad_c_n, const Inputs& in,
                     const RecurrentOptions& options, const Saved& saved, const Mask8& mask) {
  const auto sizes = check_inputs<I>(kBackwardName, in, options);
  const I &batch = sizes.batch, &state = sizes.state_size, &hidden = sizes.hidden_size;
  const auto check = [&](const char* name, const Tensor& t, c10::ArrayRef<I> shape) {
    check_saved<I>(kBackwardName, name, t, in.input, shape);
  };
  check("grad_output", grad_output, sizes.with(state));
  check("grad_h_n", grad_h_n, {batch, state});
  check("grad_c_n", grad_c_n, {batch, hidden});
  check("output", saved.output, sizes.with(state));
  check("gates", saved.gates, sizes.with(hidden * kGates));
  check("c_before", saved.c_before, sizes.with(hidden));
  const auto grad_of = [&](int i, const Tensor& t) {
    return mask[i] && t.defined() ? empty_of<I>(sizes_of<I>(t), t) : Tensor();
  };
  const auto of_bias = [&](int i) { return mask[i] ? empty_of<I>({hidden * kGates}, in.input) : Tensor(); };
  return {grad_of(0, in.input), grad_of(1, in.hx), grad_of(2, in.cx), grad_of(3, in.w_ih),
          grad_of(4, in.w_hh),  of_bias(5),        of_bias(6),        grad_of(7, in.w_hr)};
}

// Everything in one kernel, where there is one for it; the gradients of the states hold those of the last ones.
bool backward_whole(const Tensor& grad_output, const Inputs& in, const std::vector<Step>& steps,
                    const Saved& saved, const Tensor& grad_h, const Tensor& grad_c, const Grads& grads) {
  const auto& [grad_input, grad_hx, grad_cx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh, grad_w_hr] = grads;
  const Tensor& grad_bias = grad_b_ih.defined() ? grad_b_ih : grad_b_hh;
  bool done = false;
  with_dtype(in.input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    LstmLayerBackward<T> b{};
    b.p = layer_of(steps, in, in.cx.size(1));
    b.projected = in.w_hr.defined();
    const auto* layer =
        whole_layer(Op::lstm_layer_backward, in.input, of_type<T>(recurrent_layer_kernels()).lstm_backward, b);
    if (!layer) return;
    const Tensor packed = packed_weights(b.p, kGates, in.input, false);
    const Tensor grad_gates = scratch_like(in.input, {b.p.rows, gate_stride(kGates * b.p.hidden_size)});
    const Tensor h_before =
        grad_w_hh.defined() ? states_before(Form::layer, steps, in.hx, saved.output) : Tensor();
    set_backward(b, grad_output, in, h_before, packed, grad_gates, grad_h, grad_hx.defined(),
                 {grad_input, grad_w_ih, grad_w_hh, grad_bias});
    b.gates = saved.gates.const_data_ptr<T>();
    b.c_before = saved.c_before.const_data_ptr<T>();
    b.grad_c = grad_c.mutable_data_ptr<T>();
    layer->run(b, torch_threads());
    done = true;
  });
  return done;
}

template <class I>
Grads backward(const Tensor& grad_output_arg, const Tensor& grad_h_n, const Tensor& grad_c_n, const Inputs& args,
               const RecurrentOptions& options, const Saved& saved, const Mask8& mask) {
  Grads grads = check_backward<I>(grad_output_arg, grad_h_n, grad_c_n, args, options, saved, mask);
  if constexpr (std::is_same_v<I, int64_t>) {
    auto& [grad_input, grad_hx, grad_cx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh, grad_w_hr] = grads;
    const Inputs in = contiguous(args);
    const int64_t batch = in.cx.size(0), hidden = in.cx.size(1), state = in.hx.size(1), units = kGates * hidden;
    const bool projected = in.w_hr.defined();
    const Tensor grad_output = grad_output_arg.defined() ? grad_output_arg.contiguous() : Tensor();
    const Tensor gates = saved.gates.contiguous(), c_before = saved.c_before.contiguous();
    const std::vector<Step> steps = steps_of(options.form, in.input, options.batch_sizes, options.reverse);
    const int64_t rows = all_rows(steps);
    const Tensor grad_h = state_gradient(grad_h_n, in.hx, grad_hx),
                 grad_c = state_gradient(grad_c_n, in.cx, grad_cx);
    if (backward_whole(grad_output, in, steps, {saved.output, gates, c_before}, grad_h, grad_c, grads)) {
      if (grad_b_ih.defined() && grad_b_hh.defined()) grad_b_hh.copy_(grad_b_ih);
      return grads;
    }
    const Tensor grad_gates = at::empty_like(gates);
    // With a projection, of every row: the whole gradient of h' and, for that of w_hr, what was projected.
    Tensor grad_projected, grad_unprojected, unprojected;
    if (projected) {
      grad_projected = grad_output.defined() ? grad_output.view({rows, state}).clone()
                                             : at::zeros({rows, state}, in.input.options());
      grad_unprojected = at::empty({batch, hidden}, in.input.options());
      unprojected = at::empty({rows, hidden}, in.input.options());
    }
    with_dtype(in.input.scalar_type(), [&](auto t) {
      using T = decltype(t);
      for (auto s = steps.rbegin(); s != steps.rend(); ++s) {
        T* da = at_row(grad_gates.mutable_data_ptr<T>(), s->row, units);
        if (projected) {
          grad_projected.narrow(0, s->row, s->rows).add_(grad_h.narrow(0, 0, s->rows));
          product_backward<T>(s->rows, at_row(grad_projected.const_data_ptr<T>(), s->row, state), in.w_hr,
                              grad_unprojected.mutable_data_ptr<T>());
        }
        run(Op::lstm_step_backward, in.input, of_type<T>(recurrent_kernels()).lstm_backward,
            LstmStepBackward<T>{{s->rows, hidden},
                                projected ? nullptr : at_row(data_or_null<T>(grad_output), s->row, hidden),
                                (projected ? grad_unprojected : grad_h).template const_data_ptr<T>(),
                                at_row(gates.const_data_ptr<T>(), s->row, units),
                                at_row(c_before.const_data_ptr<T>(), s->row, hidden),
                                grad_c.mutable_data_ptr<T>(),
                                da,
                                units,
                                at_row(mutable_or_null<T>(unprojected), s->row, hidden)});
        if (grad_hx.defined() || s + 1 != steps.rend())
          product_backward<T>(s->rows, da, in.w_hh, grad_h.mutable_data_ptr<T>());
      }
      if (grad_input.defined())
        product_backward<T>(rows, grad_gates.const_data_ptr<T>(), in.w_ih, grad_input.mutable_data_ptr<T>());
      const Tensor& grad_bias = grad_b_ih.defined() ? grad_b_ih : grad_b_hh;
      weight_gradients<T>(grad_gates, in.input, grad_w_ih, grad_bias);
      if (grad_w_hh.defined())
        weight_gradients<T>(grad_gates, states_before(options.form, steps, in.hx, saved.output), grad_w_hh, {});
      if (grad_w_hr.defined()) weight_gradients<T>(grad_projected, unprojected, grad_w_hr, {});
    });
    if (grad_b_ih.defined() && grad_b_hh.defined()) grad_b_hh.copy_(grad_b_ih);
  }
  return grads;
}

// ------------------------------------------------------------------------- in one kernel on a GPU

optional<Results> forward_on_gpu(const Inputs& args, const RecurrentOptions& options, bool training) {
  const auto sizes = check_inputs<int64_t>(kName, args, options);
  if (args.w_hr.defined()) return std::nullopt;
  const Inputs in = contiguous(args);
  const Results r = allocate<int64_t>(in, sizes, training);
  const RecurrenceResults results{r.output, r.h_n, r.c_n, r.gates, r.c_before};
  const bool done = forward_in_one_kernel(Op::lstm_layer, RecurrentCell::lstm, in, in.cx, options, results);
  return done ? optional<Results>(r) : std::nullopt;
}

optional<Grads> backward_on_gpu(const Tensor& grad_output, const Tensor& grad_h_n, const Tensor& grad_c_n,
                                const Inputs& args, const RecurrentOptions& options, const Saved& saved,
                                const Mask8& mask) {
  const Mask8 of_states{false, mask[1], mask[2]};
  Grads grads = check_backward<int64_t>(grad_output, grad_h_n, grad_c_n, args, options, saved, of_states);
  if (args.w_hr.defined()) return std::nullopt;
  auto& [grad_input, grad_hx, grad_cx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh, grad_w_hr] = grads;
  const auto given = backward_in_one_kernel(
      Op::lstm_layer_backward, RecurrentCell::lstm, contiguous(args), options,
      {saved.output.contiguous(), {}, {}, saved.gates.contiguous(), saved.c_before.contiguous()},
      {contiguous_or_undefined(grad_output), contiguous_or_undefined(grad_h_n), contiguous_or_undefined(grad_c_n),
       grad_hx, grad_cx},
      {mask[0], mask[3], mask[4], mask[5], mask[6]});
  if (!given) return std::nullopt;
  grad_input = given->input;
  grad_w_ih = given->w_ih;
  grad_w_hh = given->w_hh;
  grad_b_ih = given->b_ih;
  grad_b_hh = given->b_hh;
  return grads;
}

// -------------------------------------------------------------------------------------------------- ops
// Kernels with I = int64_t, fake ones with I = c10::SymInt.

template <class I>
std::tuple<Tensor, Tensor, Tensor> layer(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                         const Tensor& w_ih, const Tensor& w_hh, const Optional& b_ih,
                                         const Optional& b_hh, const Optional& w_hr, const Optional& batch_sizes,
                                         bool reverse) {
  const Results r = forward<I>({inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh), cx, or_undefined(w_hr)},
                               {Form::layer, or_undefined(batch_sizes), reverse}, false);
  return {r.output, r.h_n, r.c_n};
}

template <class I>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> layer_training(const Tensor& input, const Tensor& hx,
                                                                  const Tensor& cx, const Tensor& w_ih,
                                                                  const Tensor& w_hh, const Optional& b_ih,
                                                                  const Optional& b_hh, const Optional& w_hr,
                                                                  const Optional& batch_sizes, bool reverse) {
  const Results r = forward<I>({inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh), cx, or_undefined(w_hr)},
                               {Form::layer, or_undefined(batch_sizes), reverse}, true);
  return {r.output, r.h_n, r.c_n, r.gates, r.c_before};
}

template <class I>
Grads layer_backward(const Optional& grad_output, const Optional& grad_h_n, const Optional& grad_c_n,
                     const Tensor& input, const Tensor& hx, const Tensor& cx, const Tensor& w_ih,
                     const Tensor& w_hh, const Optional& w_hr, const Optional& batch_sizes, bool reverse,
                     const Tensor& output, const Tensor& gates, const Tensor& c_before, Mask8 mask) {
  return backward<I>(or_undefined(grad_output), or_undefined(grad_h_n), or_undefined(grad_c_n),
                     {inputs_of(input, hx, w_ih, w_hh), cx, or_undefined(w_hr)},
                     {Form::layer, or_undefined(batch_sizes), reverse}, {output, gates, c_before}, mask);
}

optional<std::tuple<Tensor, Tensor, Tensor>> layer_on_gpu(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                                          const Tensor& w_ih, const Tensor& w_hh,
                                                          const Optional& b_ih, const Optional& b_hh,
                                                          const Optional& w_hr, const Optional& batch_sizes,
                                                          bool reverse) {
  const auto r = forward_on_gpu({inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh), cx, or_undefined(w_hr)},
                                {Form::layer, or_undefined(batch_sizes), reverse}, false);
  if (!r) return std::nullopt;
  return std::make_tuple(r->output, r->h_n, r->c_n);
}

optional<std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>> layer_training_on_gpu(
    const Tensor& input, const Tensor& hx, const Tensor& cx, const Tensor& w_ih, const Tensor& w_hh,
    const Optional& b_ih, const Optional& b_hh, const Optional& w_hr, const Optional& batch_sizes, bool reverse) {
  const auto r = forward_on_gpu({inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh), cx, or_undefined(w_hr)},
                                {Form::layer, or_undefined(batch_sizes), reverse}, true);
  if (!r) return std::nullopt;
  return std::make_tuple(r->output, r->h_n, r->c_n, r->gates, r->c_before);
}

optional<Grads> layer_backward_on_gpu(const Optional& grad_output, const Optional& grad_h_n,
                                      const Optional& grad_c_n, const Tensor& input, const Tensor& hx,
                                      const Tensor& cx, const Tensor& w_ih, const Tensor& w_hh,
                                      const Optional& w_hr, const Optional& batch_sizes, bool reverse,
                                      const Tensor& output, const Tensor& gates, const Tensor& c_before,
                                      Mask8 mask) {
  return backward_on_gpu(or_undefined(grad_output), or_undefined(grad_h_n), or_undefined(grad_c_n),
                         {inputs_of(input, hx, w_ih, w_hh), cx, or_undefined(w_hr)},
                         {Form::layer, or_undefined(batch_sizes), reverse}, {output, gates, c_before}, mask);
}

CISDL_OP(lstm_layer, (layer<int64_t>))
CISDL_OP(lstm_layer_training, (layer_training<int64_t>))
CISDL_OP(lstm_layer_backward, (layer_backward<int64_t>))

// ------------------------------------------------------------------------------------------ derivatives

struct Lstm {
  static constexpr const char* name = "Lstm";
  static constexpr size_t kInputs = 8, kStates = 2, kSaved = 2;  // results: output, h_n, c_n, gates, c_before

  static Variables run(const Variables& in, const RecurrentOptions& options, bool training) {
    const Optional b_ih = or_none(in[5]), b_hh = or_none(in[6]), w_hr = or_none(in[7]);
    const Optional batch_sizes = or_none(options.batch_sizes);
    if (!training) {
      const auto [output, h_n, c_n] =
          lstm_layer_op().call(in[0], in[1], in[2], in[3], in[4], b_ih, b_hh, w_hr, batch_sizes, options.reverse);
      return {output, h_n, c_n};
    }
    const auto [output, h_n, c_n, gates, c_before] = lstm_layer_training_op().call(
        in[0], in[1], in[2], in[3], in[4], b_ih, b_hh, w_hr, batch_sizes, options.reverse);
    return {output, h_n, c_n, gates, c_before};
  }

  static Variables formula(const Variables& in, const RecurrentOptions& options) {
    const Tensor &w_hh = in[4], &b_hh = in[6], &w_hr = in[7];
    const auto step = [&](const Tensor& from_x, const Variables& state) -> Variables {
      const std::vector<Tensor> a = at::add(from_x, linear_of(state[0], w_hh, b_hh)).chunk(kGates, -1);
      const Tensor i = at::sigmoid(a[0]), f = at::sigmoid(a[1]), g = at::tanh(a[2]), o = at::sigmoid(a[3]);
      const Tensor c = at::add(at::mul(f, state[1]), at::mul(i, g));
      const Tensor h = at::mul(o, at::tanh(c));
      return {w_hr.defined() ? linear_of(h, w_hr, {}) : h, c, at::cat({i, f, g, o}, -1), state[1]};
    };
    return layer_by_formula(linear_of(in[0], in[3], in[5]), {in[1], in[2]}, options, step);
  }

  template <class ResultOf>
  static Variables backward(const Variables& grads, const Variables& in, const ResultOf& results,
                            const RecurrentOptions& options, const Mask8& mask) {
    const auto [input, hx, cx, w_ih, w_hh, b_ih, b_hh, w_hr] = lstm_layer_backward_op().call(
        or_none(grads[0]), or_none(grads[1]), or_none(grads[2]), in[0], in[1], in[2], in[3], in[4], or_none(in[7]),
        or_none(options.batch_sizes), options.reverse, results(0), results(3), results(4), mask);
    return {input, hx, cx, w_ih, w_hh, b_ih, b_hh, w_hr};
  }
};

// The ops on top of `evaluate(inputs, options)`, which gives what Lstm::run gives.

template <auto evaluate>
std::tuple<Tensor, Tensor, Tensor> layer_by(const Tensor& input, const Tensor& hx, const Tensor& cx,
                                            const Tensor& w_ih, const Tensor& w_hh, const Optional& b_ih,
                                            const Optional& b_hh, const Optional& w_hr,
                                            const Optional& batch_sizes, bool reverse) {
  return pick<3>(evaluate({input, hx, cx, w_ih, w_hh, or_undefined(b_ih), or_undefined(b_hh), or_undefined(w_hr)},
                          {Form::layer, or_undefined(batch_sizes), reverse}));
}

template <auto evaluate>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> layer_training_by(const Tensor& input, const Tensor& hx,
                                                                     const Tensor& cx, const Tensor& w_ih,
                                                                     const Tensor& w_hh, const Optional& b_ih,
                                                                     const Optional& b_hh, const Optional& w_hr,
                                                                     const Optional& batch_sizes, bool reverse) {
  return pick<5>(evaluate({input, hx, cx, w_ih, w_hh, or_undefined(b_ih), or_undefined(b_hh), or_undefined(w_hr)},
                          {Form::layer, or_undefined(batch_sizes), reverse}));
}

void register_kernels(torch::Library& m) {
  m.impl("lstm_layer", InFloat32<layer<int64_t>, layer_on_gpu>::call);
  m.impl("lstm_layer_training", InFloat32<layer_training<int64_t>, layer_training_on_gpu>::call);
  m.impl("lstm_layer_backward", InFloat32<layer_backward<int64_t>, layer_backward_on_gpu>::call);
}

}  // namespace

#define CISDL_INPUTS "Tensor input, Tensor hx, Tensor cx, Tensor w_ih, Tensor w_hh"
#define CISDL_OPTIONS \
  ", Tensor? b_ih=None, Tensor? b_hh=None, Tensor? w_hr=None, Tensor? batch_sizes=None, bool reverse=False"
#define CISDL_THREE "Tensor, Tensor, Tensor"

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  const auto define = [&](const char* schema) { m.def(schema, {at::Tag::pt2_compliant_tag}); };
  define("lstm_layer(" CISDL_INPUTS CISDL_OPTIONS ") -> (" CISDL_THREE ")");
  define("lstm_layer_training(" CISDL_INPUTS CISDL_OPTIONS ") -> (" CISDL_THREE ", Tensor, Tensor)");
  define("lstm_layer_backward(Tensor? grad_output, Tensor? grad_h_n, Tensor? grad_c_n, " CISDL_INPUTS
         ", Tensor? w_hr, Tensor? batch_sizes, bool reverse, Tensor output, Tensor gates, Tensor c_before, "
         "bool[8] output_mask) -> (" CISDL_THREE ", " CISDL_THREE ", Tensor, Tensor)");
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("lstm_layer", layer<c10::SymInt>);
  m.impl("lstm_layer_training", layer_training<c10::SymInt>);
  m.impl("lstm_layer_backward", layer_backward<c10::SymInt>);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("lstm_layer", layer_by<inference_autograd<Lstm>>);
  m.impl("lstm_layer_training", layer_training_by<training_autograd<Lstm>>);
  m.impl("lstm_layer_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(cisdl, FuncTorchBatched, m) {
  m.impl("lstm_layer", layer_by<Lstm::formula>);
  m.impl("lstm_layer_training", layer_training_by<Lstm::formula>);
}

}  // namespace cisdl::ops
