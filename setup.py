# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Package the runtime, the trainer (installed as ood_perception_trainer) and the ROS 2 files."""

import sys
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = 'ood_perception'
# colcon --symlink-install runs this file through a link in its build folder
HERE = Path(__file__).resolve().parent
VERSION = '0.1.0'

# PyPI has an unrelated package `trainer`: ours is installed under another name.
runtime_packages = find_packages(include=[NAME, f'{NAME}.*'])
trainer_packages = [
    package.replace('trainer', 'ood_perception_trainer', 1)
    for package in find_packages(include=['trainer', 'trainer.*'])
]

data_files = [
    ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
    (f'share/{NAME}', ['package.xml', 'LICENSE', 'NOTICE']),
    (f'share/{NAME}/launch', sorted(glob('launch/*.launch.py'))),
    (f'share/{NAME}/config', sorted(path for path in glob('config/*') if Path(path).is_file())),
    (f'share/{NAME}/config/sros2', sorted(glob('config/sros2/*'))),
    (f'share/{NAME}/config/train', sorted(glob('config/train/*'))),
]
# colcon writes the executables to lib/ood_perception itself (setup.cfg). A wheel cannot, so it
# carries small scripts that find their environment's Python from their own place.
if 'bdist_wheel' in sys.argv:
    data_files.append((f'lib/{NAME}', sorted(glob('resource/lib/*'))))

ROS_MESSAGES = ['sensor-msgs', 'diagnostic-msgs', 'visualization-msgs', 'std-srvs']


def ros_wheels(distribution: str) -> list[str]:
    """Return the wheels of a ROS 2 distribution that the node needs."""
    names = ['rclpy', 'rmw-fastrtps-cpp', *ROS_MESSAGES]
    return [f'ros-{distribution}-{name}' for name in names]


BAGS = [
    'rosbags>=0.11,<0.12',
    'mcap>=1.1,<2',
    'backports.zstd>=1,<2; python_version<"3.14"',
]
REPORT = ['jinja2>=3.0,<4']
VIDEO = ['av>=12,<20']
RERUN = ['rerun-sdk>=0.41,<1; python_version>="3.11"']
CUDA = 'cuda-bindings>=12.6,<14'
# TensorRT for RTX (GeForce and RTX cards) has wheels; full TensorRT comes with JetPack or apt.
X86_LINUX = "; sys_platform == 'linux' and platform_machine == 'x86_64'"
RTX_WHEELS = f"{X86_LINUX} and python_version < '3.15'"
TENSORRT_RTX = [
    CUDA,
    f'tensorrt-rtx-cu13-libs>=1.7,<2{RTX_WHEELS}',
    f'tensorrt-rtx-cu13-bindings>=1.7,<2{RTX_WHEELS}',
]
TRAIN = [
    'torch>=2.6,<3',
    'transformers>=4.56,<6',
    'safetensors>=0.4,<1',
    'onnxscript>=0.5,<1',
    'onnxruntime>=1.20,<2',
    *REPORT,
    'matplotlib>=3.8,<4',
    'scipy>=1.11,<2',
    'scikit-learn>=1.4,<2',
]

SIGN = ['py-minisign>=0.20,<1']
FAISS = ['faiss-cpu>=1.8,<2']
SUBMISSION = ['h5py>=3.8,<4']
# many machines: Ray's tasks, recordings and features in object stores (others: gcsfs, adlfs).
# Older releases of s3fs pin releases of fsspec that cannot be installed any more.
FLEET = ['ray>=2.40,<3', 'universal-pathlib>=0.2.6,<1', 's3fs>=2025.12']
# torchmetrics wants torch: install the CPU build or the train extra first, as the Makefile does
TEST = [
    *SUBMISSION,
    'pytest>=8,<10',
    'pytest-xdist>=3.6,<4',
    'hypothesis>=6.100,<7',
    *FAISS,
    *SIGN,
    *VIDEO,
    *REPORT,
    'scikit-learn>=1.4,<2',
    'scipy>=1.11,<2',
    'torchmetrics>=1.4,<2',
    'ruff==0.17.5',
    'mypy==2.4.1',
    *BAGS,
]

setup(
    name=NAME,
    version=VERSION,
    description='Calibrated pixel-level anomaly scores and obstacle masks for ROS 2 cameras',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    author='The ood_perception authors',
    maintainer='The ood_perception authors',
    maintainer_email='maintainers@ood-perception.org',
    python_requires='>=3.10',
    packages=runtime_packages + trainer_packages,
    package_dir={'ood_perception_trainer': 'trainer'},
    package_data={
        NAME: [
            'py.typed',
            'bundles/*/*',
            'bundles/*.json',
            'demo/assets/*/*/*',
            'reports/templates/*',
            'cli/*.sh',
        ],
        'ood_perception_trainer': [
            'backbones/*.yaml',
            'datasets/labels/*.csv',
            'datasets/labels/*.json',
            'datasets/labels/*.yaml',
            'datasets/sets/*.yaml',
        ],
    },
    data_files=data_files,
    install_requires=[
        'numpy>=1.26,<3',
        'opencv-python-headless>=4.6,<6',
        # libjpeg's warnings as errors: neither OpenCV nor Pillow tells of damaged data
        'simplejpeg>=1.8,<2',
        'openvino>=2025.0,<2027',
        'onnx>=1.16,<2',
        'pillow>=9.0,<14',
        'pyyaml>=5.4,<7',
        'tqdm>=4.60,<5',
    ],
    extras_require={
        'ros': ros_wheels('jazzy'),
        'ros-jazzy': ros_wheels('jazzy'),
        'ros-kilted': ros_wheels('kilted'),
        'ros-lyrical': ros_wheels('lyrical'),  # none yet: CONTRIBUTING.md, Versions
        'onnxruntime': ['onnxruntime>=1.20,<2'],
        'faiss': FAISS,
        'sign': SIGN,
        'tensorrt': [CUDA],
        'tensorrt-rtx': TENSORRT_RTX,
        'bags': [*BAGS, *REPORT],
        'report': REPORT,
        'video': VIDEO,
        'rerun': RERUN,
        'train': TRAIN,
        'submission': SUBMISSION,
        'fleet': FLEET,
        'test': TEST,
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [
            f'ood = {NAME}.cli.ood:main',
            f'road_anomaly_node = {NAME}.ros.node:main',
            f'inspect_bundle = {NAME}.cli.bundle:inspect_bundle',
            f'compile_bundle = {NAME}.cli.bundle:compile_bundle',
            f'bench_bundle = {NAME}.cli.bundle:bench_bundle',
            f'adapt_bundle = {NAME}.cli.adapt:adapt_bundle',
            f'evaluate_bag = {NAME}.cli.evaluate_bag:evaluate_bag',
            f'bag_player = {NAME}.ros.tools.bag_player:main',
            f'live_comparison = {NAME}.ros.tools.live_comparison:main',
            'ood_trainer = ood_perception_trainer.__main__:main',
        ],
    },
)
