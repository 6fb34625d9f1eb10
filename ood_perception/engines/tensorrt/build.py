# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A typed ONNX graph to a TensorRT engine: TensorRT 10.x, 11.x and TensorRT for RTX in one path.

Networks are strongly typed: the graph says what is computed in which precision. Nothing is used
that TensorRT 11 removed (precision flags, calibrators, EXPLICIT_BATCH).
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from ood_perception.engines.tensorrt.module import BuildOptions, TensorRt, load_tensorrt
from ood_perception.errors import EngineError, OodPerceptionError
from ood_perception.files import make_file
from ood_perception.types import JsonDict, Tell

SECONDS_BETWEEN_LINES = 2.0
# TensorRT for RTX 1.7: "FP32 GEMM is not supported" on Turing, and a head needs float32 products.
WITHOUT_FLOAT32 = frozenset({'SM75'})


def build_engine(
    model: Path,
    options: BuildOptions,
    tell: Tell | None = None,
    timing_cache: Path | None = None,
    tensorrt: TensorRt | None = None,
) -> tuple[bytes, JsonDict]:
    """
    Build an engine of a typed ONNX file (its external data beside it); no torch, no GPU for RTX.

    Returns the serialised engine, and how it was made as plain JSON values.
    tell: gets a line of progress every few seconds. timing_cache: file of measured kernels, read
    and written again (not RTX: it measures nothing). tensorrt: default, what is installed.

    Raises DependencyError without TensorRT, EngineError with its reason when it refuses.
    """
    trt = tensorrt or load_tensorrt()
    _check_supported(trt, options)
    start = time.perf_counter()
    trt.messages.clear()
    builder = trt.module.Builder(trt.logger)
    if builder is None:
        raise EngineError(f'TensorRT cannot build here: {trt.last_error()}')
    network, parser = _parse(trt, builder, model)
    parsed = time.perf_counter()
    config = _configure(trt, builder, network, options)
    if tell:
        config.progress_monitor = _monitor(trt, tell)
    if timing_cache is not None and not trt.is_rtx:
        _read_timing(config, timing_cache)
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise EngineError(f'TensorRT cannot build {model.name}: {trt.last_error()}')
    if timing_cache is not None and not trt.is_rtx:
        _write_timing(config, timing_cache)
    seconds = {'parse_seconds': parsed - start, 'build_seconds': time.perf_counter() - parsed}
    blob = bytes(serialised)
    facts = _facts(trt, options, network, len(blob), seconds)
    del parser  # it owns what the network was parsed from, so it goes last
    return blob, facts


def _facts(
    trt: TensorRt, options: BuildOptions, network: Any, size: int, seconds: dict[str, float]
) -> JsonDict:
    """Return how an engine was built, as plain JSON values."""
    return {
        'runtime': trt.name,
        'version': trt.version,
        'compute_capability': options.compute_capability or 'of this machine',
        'options': {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(options).items()
        },
        'bytes': size,
        **{name: round(value, 3) for name, value in seconds.items()},
        **_network_facts(network),
    }


def supported_gpus(trt: TensorRt) -> tuple[str, ...]:
    """Return the compute capabilities that can be built for without such a GPU, as '8.9'."""
    if not trt.is_rtx:
        return ()
    names = set(trt.module.ComputeCapability.__members__) - WITHOUT_FLOAT32
    names = {name for name in names if name.startswith('SM')}
    return tuple(f'{name[2:-1]}.{name[-1]}' for name in sorted(names, key=lambda n: int(n[2:])))


def _check_supported(trt: TensorRt, options: BuildOptions) -> None:
    if trt.is_rtx and (options.version_compatible or options.hardware_compatible):
        raise EngineError(
            'TensorRT for RTX knows no version- or hardware-compatible engines: name the GPUs '
            'instead, or use TensorRT 10 or 11'
        )
    wanted, known = options.compute_capability, supported_gpus(trt)
    if wanted and not trt.is_rtx:
        raise EngineError(
            f'compute capability {wanted}: TensorRT {trt.version} builds for the GPU of this '
            'machine alone; name none, or use TensorRT for RTX'
        )
    if wanted and trt.is_rtx and wanted not in known:
        raise EngineError(
            f'compute capability {wanted}: TensorRT for RTX {trt.version} builds float32 heads '
            f'for {", ".join(known)}; use TensorRT 10 or 11 on that GPU'
        )


def _parse(trt: TensorRt, builder: Any, model: Path) -> tuple[Any, Any]:
    flag = trt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    parser = trt.module.OnnxParser(network, trt.logger)
    if not parser.parse_from_file(str(model)):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise EngineError(f'TensorRT cannot read {model}: {"; ".join(reasons)}')
    return network, parser


def _configure(trt: TensorRt, builder: Any, network: Any, options: BuildOptions) -> Any:
    module = trt.module
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        batch, *sizes = tensor.shape  # axis 0, where free, is the batch
        if min(sizes, default=1) < 0:
            raise EngineError(
                f'input {tensor.name} of the graph has the free shape {tuple(tensor.shape)}: '
                'the node runs one size; pack the bundle again'
            )
        least, most = (1, options.max_batch) if batch < 0 else (batch, batch)
        profile.set_shape(tensor.name, *((size, *sizes) for size in (least, most, most)))
    config.add_optimization_profile(profile)
    # On by default; it would round all float32 products, the head's distances too, to 10 bits.
    config.clear_flag(module.BuilderFlag.TF32)
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # for the engine inspector
    if options.workspace_mib:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.compute_capability and trt.is_rtx:
        config.num_compute_capabilities = 1
        name = 'SM' + options.compute_capability.replace('.', '')
        config.set_compute_capability(getattr(module.ComputeCapability, name), 0)
    return config


def _monitor(trt: TensorRt, tell: Tell) -> Any:
    base: Any = trt.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        """Tells the phase that is running and the seconds so far, every few seconds."""

        def __init__(self) -> None:
            base.__init__(self)
            self._start = self._told = time.monotonic()
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._steps[name] = steps

        def phase_finish(self, name: str) -> None:
            self._steps.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self._told >= SECONDS_BETWEEN_LINES:
                self._told = now
                of = self._steps.get(name, 0)
                tell(f'TensorRT: {name}, step {step + 1} of {of}, {now - self._start:.0f} s')
            return True  # go on

    return Monitor()


def _read_timing(config: Any, path: Path) -> None:
    """Load measured kernels; a file that TensorRT refuses only costs time."""
    data = path.read_bytes() if path.is_file() else b''
    kept = config.create_timing_cache(data)
    if kept is None or not config.set_timing_cache(kept, False):
        config.set_timing_cache(config.create_timing_cache(b''), False)


def _write_timing(config: Any, path: Path) -> None:
    kept = config.get_timing_cache()
    if kept is None:
        return
    data = bytes(kept.serialize())
    with suppress(OSError, OodPerceptionError):  # it only saves time
        make_file(path, lambda file: file.write_bytes(data))


def _network_facts(network: Any) -> JsonDict:
    """Return inputs, outputs and how many layers compute in which type."""
    layers: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kinds = {layer.get_output(i).dtype.name for i in range(layer.num_outputs)}
        layers[f'{layer.type.name} {"/".join(sorted(kinds))}'] += 1
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return {
        'inputs': {t.name: [t.dtype.name, list(t.shape)] for t in inputs},
        'outputs': {t.name: [t.dtype.name, list(t.shape)] for t in outputs},
        'network_layers': dict(sorted(layers.items())),
    }
