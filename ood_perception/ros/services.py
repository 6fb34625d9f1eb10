# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Services that answer whatever they are asked: rclpy ends the process at some requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically


def answer_always(node: Any) -> None:
    """
    Have all services of a node, rclpy's own as well, answer a request that raises.

    rclpy raises for a lifecycle transition that does not fit the state, and for parameters of a
    type that there is not. The answer says that it failed, the log says why.
    """
    for service in node.services:
        service.callback = partial(_answered, node, service.srv_name, service.callback)


def _answered(
    node: Any, name: str, callback: Callable[[Any, Any], Any], request: Any, response: Any
) -> Any:
    try:
        return callback(request, response)
    except Exception as error:
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        node.get_logger().error(f'{name}: request refused: {reason}')
    refused = SetParametersResult(successful=False, reason=reason)
    if isinstance(response, SetParameters.Response):
        left = len(request.parameters) - len(response.results)
        response.results = [*response.results, *[refused] * left]
    elif isinstance(response, SetParametersAtomically.Response):
        response.result = refused
    return response
