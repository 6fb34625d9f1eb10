# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
TensorRT and CUDA for machines that have neither a GPU nor the libraries.

The fake module offers the classes, members and argument counts that the real bindings have
(tensorrt_api/*.json, read off the wheels of each version) and nothing else, so a call that a
version lacks fails. Its engines are the ONNX graph itself, run by ONNX Runtime, and its device
does nothing before a stream is synchronised, so a result that is read too early is wrong.
"""

import collections
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ood_perception.engines.tensorrt.cuda import Cuda
from ood_perception.engines.tensorrt.module import TensorRt
from ood_perception.errors import EngineError

API = Path(__file__).parent / 'tensorrt_api'
VERSIONS = ('10.3', '10.13', '11.4', 'rtx-1.7')
MARK = b'fake engine\n'
SIZES = {'UINT8': 1, 'FLOAT': 4, 'HALF': 2}


class FakeCuda(Cuda):
    """Memory that lies in a dictionary, streams that work when they are synchronised."""

    def __init__(self, capability='8.9'):
        self.capability, self.memory, self.hosts, self.streams = capability, {}, {}, {}
        self.log, self.capturing, self.graphs, self.next = [], {}, {}, 4096
        self.fail = ''

    def _number(self):
        self.next += 4096
        return self.next

    def _enqueue(self, stream, work):
        target = self.capturing.get(stream, self.streams[stream])
        target.append(work)

    def device_count(self):
        return 1

    def device(self):
        return 'Fake RTX', self.capability

    def create_stream(self):
        stream = self._number()
        self.streams[stream] = []
        return stream

    def destroy_stream(self, stream):
        del self.streams[stream]

    def synchronize(self, stream):
        assert stream not in self.capturing, 'a capture cannot be synchronised'
        work, self.streams[stream] = self.streams[stream], []
        if self.fail:
            raise EngineError(self.fail)
        for step in work:
            step()

    def allocate(self, size):
        address = self._number() + size * 4096
        self.next = address
        self.memory[address] = np.full(size, 0xA5, np.uint8)
        return address

    def free(self, address):
        del self.memory[address]

    def allocate_host(self, size):
        array = np.full(size, 0x5A, np.uint8)
        self.hosts[array.ctypes.data] = array
        return array

    def free_host(self, array):
        del self.hosts[array.ctypes.data]

    def to_device(self, address, array, stream):
        assert array.ctypes.data in self.hosts, 'not page-locked'

        def work():
            self.memory[address][: array.nbytes] = array

        self._enqueue(stream, work)

    def to_host(self, array, address, stream):
        assert array.ctypes.data in self.hosts, 'not page-locked'

        def work():
            array[:] = self.memory[address][: array.nbytes]

        self._enqueue(stream, work)

    def begin_capture(self, stream):
        assert not self.streams[stream], 'work before the capture is not done'
        self.capturing[stream] = []

    def end_capture(self, stream):
        graph = self._number()
        self.graphs[graph] = self.capturing.pop(stream)
        self.log.append('captured')
        return graph

    def launch(self, graph, stream):
        self.log.append('launched')
        self.streams[stream].extend(self.graphs[graph])

    def destroy_graph(self, graph):
        del self.graphs[graph]

    @property
    def leaks(self):
        return [*self.memory, *self.hosts, *self.streams, *self.graphs]


class Strict:
    """An object of a TensorRT class: members and argument counts as in the real one."""

    def __init__(self, api, kind, **members):
        object.__setattr__(self, '_members', api[kind])
        object.__setattr__(self, '_kind', kind)
        for name, value in members.items():
            assert name in api[kind], f'{kind} has no {name}: the fake is wrong'
            object.__setattr__(self, name, self._counted(name, value))

    def _counted(self, name, value):
        spec = self._members[name]
        if not callable(value):
            return value

        def call(*arguments):
            if isinstance(spec, list):
                least, most = spec
                assert least <= len(arguments) <= most, f'{self._kind}.{name}{arguments}'
            return value(*arguments)

        return call

    def __setattr__(self, name, value):
        spec = self._members.get(name)
        assert spec is not None, f'{self._kind} has no {name} in this version'
        assert spec == 'property', f'{self._kind}.{name} cannot be set'
        object.__setattr__(self, name, value)

    def __getattr__(self, name):
        spec = self.__dict__['_members'].get(name)
        if spec is None:
            raise AttributeError(f'{self._kind} has no {name} in this version')
        return lambda *arguments: None  # what the fake does not need


def fake_tensorrt(version, cuda, refuse=''):
    """Return a TensorRt of one of VERSIONS. refuse: reason why nothing can be deserialised."""
    api = json.loads((API / f'{version}.json').read_text())
    is_rtx = version.startswith('rtx')
    name = 'tensorrt_rtx' if is_rtx else 'tensorrt'
    messages = collections.deque(maxlen=20)
    module = _Module(api, version, cuda, messages, refuse)
    return TensorRt(module, name, version.removeprefix('rtx-'), object(), messages)


class _Module:
    def __init__(self, api, version, cuda, messages, refuse):
        self._api, self._cuda, self._messages, self._refuse = api, cuda, messages, refuse
        self.__version__ = version
        self.builds, self.runtimes, self.configs = 0, [], []
        for kind, members in api.items():
            values = [n for n, spec in members.items() if spec == 'value']
            if values:
                enum = {n: _Value(n, i) for i, n in enumerate(values)}
                setattr(self, kind, SimpleNamespace(__members__=enum, **enum))

        class IProgressMonitor:
            pass

        self.IProgressMonitor = IProgressMonitor

    def Builder(self, logger):  # noqa: N802
        return Strict(
            self._api,
            'Builder',
            create_network=self._network,
            create_builder_config=self._config,
            create_optimization_profile=self._profile,
            build_serialized_network=self._build,
        )

    def _network(self, flags):
        assert flags == 1 << int(self.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.model = None
        layer = Strict(
            self._api, 'ILayer', num_outputs=1, type=SimpleNamespace(name='FAKE'),
            get_output=lambda i: SimpleNamespace(dtype=SimpleNamespace(name='FLOAT')),
        )  # fmt: skip
        return _Network(self, layer)

    def _config(self):
        def set_flag(flag):
            config._flags.append(flag.name)

        config = Strict(
            self._api, 'IBuilderConfig', set_flag=set_flag,
            clear_flag=lambda flag: config._flags.append('no ' + flag.name),
            add_optimization_profile=lambda profile: config._profiles.append(profile),
            create_timing_cache=lambda data: bytes(data) or b'new',
            set_timing_cache=lambda cache, force: cache != b'broken',
            get_timing_cache=lambda: SimpleNamespace(serialize=lambda: b'measured'),
        )  # fmt: skip
        config.__dict__.update(_flags=[], _profiles=[])
        self.configs.append(config)
        return config

    def _profile(self):
        profile = Strict(
            self._api, 'IOptimizationProfile',
            set_shape=lambda name, *shapes: profile._shapes.update({name: shapes}),
        )  # fmt: skip
        profile.__dict__['_shapes'] = {}
        return profile

    def OnnxParser(self, network, logger):  # noqa: N802
        def parse(path):
            import onnx

            assert Path(path).with_suffix('.data').is_file()
            self.model = onnx.load(path)
            network.model = self.model
            return True

        return Strict(self._api, 'OnnxParser', parse_from_file=parse, num_errors=0)

    def _build(self, network, config):
        self.builds += 1
        monitor = config.__dict__.get('progress_monitor')
        if monitor is not None:
            monitor.phase_start('Timing', None, 2)
            assert monitor.step_complete('Timing', 0)
            monitor.phase_finish('Timing')
        shapes = config._profiles[0]._shapes
        header = json.dumps({'profile': shapes}).encode()
        return MARK + header + b'\n' + network.model.SerializeToString()

    def Runtime(self, logger):  # noqa: N802
        runtime = Strict(self._api, 'Runtime', deserialize_cuda_engine=self._deserialise)
        self.runtimes.append(runtime)
        return runtime

    def _deserialise(self, blob):
        if self._refuse or not blob.startswith(MARK):
            self._messages.append(self._refuse or 'magic tag does not match')
            return None
        header, _, model = blob.removeprefix(MARK).partition(b'\n')
        return _engine(self, json.loads(header)['profile'], model)


class _Network:
    num_layers = 1

    def __init__(self, module, layer):
        self._module, self._layer, self.model = module, layer, None

    def get_layer(self, index):
        return self._layer

    @property
    def num_inputs(self):
        return len(self.model.graph.input)

    @property
    def num_outputs(self):
        return len(self.model.graph.output)

    def get_input(self, index):
        return _tensor(self.model.graph.input[index])

    def get_output(self, index):
        return _tensor(self.model.graph.output[index])


class _Value:
    def __init__(self, name, number):
        self.name, self._number = name, number

    def __int__(self):
        return self._number


def _tensor(value):
    kinds = {1: 'FLOAT', 2: 'UINT8', 10: 'HALF'}
    kind = value.type.tensor_type
    shape = [-1 if side.dim_param else side.dim_value for side in kind.shape.dim]
    dtype = SimpleNamespace(name=kinds[kind.elem_type])
    return SimpleNamespace(name=value.name, dtype=dtype, shape=shape)


def _engine(module, profile, serialised):
    import onnx
    import onnxruntime

    model = onnx.ModelProto.FromString(serialised)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # a GPU sums products of bytes in 32 bits; this runtime's int8 on a CPU without VNNI does not
    options.add_session_config_entry('session.disable_quant_qdq', '1')
    session = onnxruntime.InferenceSession(serialised, options, providers=['CPUExecutionProvider'])
    inputs = {t.name: t for t in map(_tensor, model.graph.input)}
    outputs = {t.name: t for t in map(_tensor, model.graph.output)}
    tensors = [*inputs.values(), *outputs.values()]
    by_name = {t.name: t for t in tensors}
    mode = module.TensorIOMode
    members = {
        'num_io_tensors': len(tensors),
        'get_tensor_name': lambda i: tensors[i].name,
        'get_tensor_mode': lambda n: mode.INPUT if n in inputs else mode.OUTPUT,
        'get_tensor_dtype': lambda n: by_name[n].dtype,
        'get_tensor_shape': lambda n: by_name[n].shape,
        'get_tensor_profile_shape': lambda n, p: profile[n],
        'create_execution_context': lambda *config: _context(
            module, session, inputs, outputs, profile
        ),
    }
    if 'IRuntimeCache' in module._api:
        members['create_runtime_config'] = lambda: _runtime_config(module._api)
    return Strict(module._api, 'ICudaEngine', **members)


def _runtime_config(api):
    kept = Strict(
        api, 'IRuntimeCache', deserialize=lambda data: True, serialize=lambda: b'kernels'
    )
    return Strict(
        api, 'IRuntimeConfig', create_runtime_cache=lambda: kept, set_runtime_cache=lambda c: True
    )


def _context(module, session, inputs, outputs, profile):
    addresses, shapes, cuda = {}, {}, module._cuda

    def set_shape(name, shape):
        least, _, most = profile[name]
        good = all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
        if not good:
            module._messages.append(f'{name} {shape} is outside the profile')
            return False
        shapes[name] = tuple(shape)
        return True

    def execute(stream):
        assert set(addresses) == {*inputs, *outputs}, 'an address was not set'
        now = dict(shapes)

        def work():
            feeds = {}
            for name, tensor in inputs.items():
                kind = np.uint8 if tensor.dtype.name == 'UINT8' else np.float32
                size = int(np.prod(now[name])) * SIZES[tensor.dtype.name]
                data = cuda.memory[addresses[name]][:size]
                feeds[name] = data.view(kind).reshape(now[name])
            for name, value in zip(outputs, session.run(list(outputs), feeds), strict=True):
                data = np.ascontiguousarray(value).view(np.uint8).reshape(-1)
                cuda.memory[addresses[name]][: data.size] = data

        cuda._enqueue(stream, work)
        return True

    def set_address(name, address):
        addresses[name] = address
        return True

    return Strict(
        module._api, 'IExecutionContext', set_input_shape=set_shape,
        set_tensor_address=set_address, execute_async_v3=execute,
    )  # fmt: skip


__all__ = ['VERSIONS', 'FakeCuda', 'fake_tensorrt']
