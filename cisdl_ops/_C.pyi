from collections.abc import Sequence

from torch import Tensor

def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...
def linear_activation(
    input: Tensor, weight: Tensor, bias: Tensor | None, activation: str, negative_slope: float
) -> Tensor: ...
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor: ...
def conv2d_activation(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
    negative_slope: float,
) -> Tensor: ...
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> Tensor: ...
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor: ...
def max_pool2d(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    relu: bool,
) -> Tensor: ...
def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[Tensor, Tensor]: ...
def avg_pool2d(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor: ...
def adaptive_max_pool2d(input: Tensor, output_size: Sequence[int]) -> Tensor: ...
def adaptive_max_pool2d_with_indices(input: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]: ...
def adaptive_avg_pool2d(input: Tensor, output_size: Sequence[int]) -> Tensor: ...
def lstm_cell(
    input: Tensor,
    hx: Tensor,
    cx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, Tensor]: ...
def gru_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> Tensor: ...
def rnn_tanh_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> Tensor: ...
def rnn_relu_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> Tensor: ...
def zero_rows(rows: int, cols: int) -> Tensor: ...
def cooccurrence(tokens: Tensor, words: int, window: int) -> tuple[Tensor, Tensor]: ...
def glove_blocks(keys: Tensor, words: int, blocks: int) -> Tensor: ...
def glove_records(
    keys: Tensor,
    values: Tensor,
    words: int,
    blocks: int,
    x_max: float,
    alpha: float,
    next: Tensor,
    pairs: Tensor,
    targets: Tensor,
) -> None: ...
def adam_step(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    m: Sequence[Tensor],
    v: Sequence[Tensor],
    largest_v: Sequence[Tensor],
    steps: Sequence[Tensor],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> bool: ...
def sgd_step(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    first: bool,
) -> bool: ...
def isa() -> str: ...
def isas_built() -> list[str]: ...
def isas_supported() -> list[str]: ...
def op_names() -> list[str]: ...
def implementations(op: str) -> list[str]: ...
def last_implementation(op: str) -> str: ...
def forced_implementation(op: str) -> str: ...
def force_implementation(op: str, name: str) -> None: ...
def enable_tuning(on: bool) -> None: ...
def tuning_enabled() -> bool: ...
def tuned_choices() -> list[tuple[str, str]]: ...
def remember_choice(problem: str, implementation: str) -> None: ...
def forget_choices() -> None: ...
def measure_peak_gflops(is_double: bool, threads: int, seconds: float = 0.3) -> float: ...
