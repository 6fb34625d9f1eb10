# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node that ties cameras, model and outputs together."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool

from ood_perception.errors import ConfigError, OodPerceptionError
from ood_perception.parameters.table import NODE, Value, check_change
from ood_perception.ros import parameters
from ood_perception.ros.health import Health
from ood_perception.ros.outputs import missing_outputs
from ood_perception.ros.session import Session

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_WATCH_PERIOD = 0.5
_REPEAT_SECONDS = 5.0
_CHECK_SECONDS = 3.0
# Seconds for the frames in work when the process ends; it has four for all (ros/node.py).
_LAST_SECONDS = 2.0


class RoadAnomalyNode(LifecycleNode):  # type: ignore[misc]
    """
    Camera frames in, scores, masks and obstacles out; the interface is that of the README.

    Configuring loads the bundle, compiles the engine and creates the topics; activating starts
    the worker. Nothing that a frame causes ends the node.
    """

    def __init__(self, name: str = NODE, **options: Any) -> None:
        """Declare the parameters; raises ConfigError for an override that cannot be used."""
        super().__init__(name, **options)
        self.session: Session | None = None
        self.state_label = 'unconfigured'
        self.start_error = ''
        self._enabled = True
        self._configuring = False
        parameters.declare(self)
        unknown = parameters.undeclared(self)
        if unknown:
            self.get_logger().warning(unknown)
        self._applied = parameters.values_of(self)
        # Humble lacks the first and the third; there the timer applies what has changed.
        if hasattr(self, 'add_pre_set_parameters_callback'):
            self.add_pre_set_parameters_callback(
                lambda given: [parameters.as_declared(parameter) for parameter in given]
            )
        self.add_on_set_parameters_callback(self._check_parameters)
        if hasattr(self, 'add_post_set_parameters_callback'):
            self.add_post_set_parameters_callback(lambda _: self._apply_parameters())
        self.create_service(SetBool, '~/enable', self._enable)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_WATCH_PERIOD, self._watch, clock=steady)
        self.health = Health(self)
        answer_always(self)

    @property
    def enabled(self) -> bool:
        """Whether frames are used, as ~/enable says."""
        return self._enabled

    def log(self, severity: str, text: str) -> None:
        """Log; what every frame could repeat is said at most every five seconds."""
        logger = self.get_logger()
        # Each severity has its own place here: rclpy throttles per calling line.
        if severity == 'error':
            logger.error(text, throttle_duration_sec=_REPEAT_SECONDS)
        elif severity == 'warning':
            logger.warning(text, throttle_duration_sec=_REPEAT_SECONDS)
        else:
            logger.info(text)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle, compile the engine, create subscriptions and publishers."""
        self._configuring = True
        self._applied = parameters.values_of(self)
        try:
            with self.health.compiling():
                self.session = Session(self, self._applied)
        except Exception as error:  # rclpy would swallow it without a word
            return self._refuse(error)
        finally:
            self._configuring = False
        model = self.session.model
        parameters.describe_classes(self, model.classes, model.default_classes)
        self.start_error = ''
        if missing := missing_outputs():
            self.get_logger().warning(missing)
        return self._entered('inactive', super().on_configure(state))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker."""
        outcome = super().on_activate(state)
        if self.session is not None:
            self.session.activate()
            self.log('info', f'active: {self.session.summary}')
        return self._entered('active', outcome)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the frames in work and stop."""
        if self.session is not None:
            self.session.deactivate()
        return self._entered('inactive', super().on_deactivate(state))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the engine and the topics."""
        self._end_session()
        return self._entered('unconfigured', super().on_cleanup(state))

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
        self._end_session()
        return self._entered('finalized', super().on_shutdown(state))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        self._end_session()
        return self._entered('unconfigured', SUCCESS)

    def destroy_node(self) -> None:
        """Release everything, then the node; a frame that takes long is not waited for."""
        self._end_session(_LAST_SECONDS)
        # Kilted's context destroys a node, too, whose constructor refused a parameter
        if hasattr(self, 'health'):
            self.health.stop()
        super().destroy_node()

    def autostart(self) -> bool:
        """Configure and activate; return whether both worked (start_error says why not)."""
        if self.trigger_configure() != SUCCESS:
            return False
        if self.trigger_activate() != SUCCESS:
            self.start_error = self.start_error or 'activation failed'
            return False
        return True

    def set_parameters_atomically(self, parameter_list: list[Any]) -> SetParametersResult:
        """Refuse a value of another type in our words; rclpy names types by numbers."""
        if wrong := parameters.wrong_type(parameter_list):
            return SetParametersResult(successful=False, reason=wrong)
        return super().set_parameters_atomically(parameter_list)

    def _entered(self, label: str, outcome: TransitionCallbackReturn) -> TransitionCallbackReturn:
        if outcome == SUCCESS:
            self.state_label = label
        return outcome

    def _refuse(self, error: Exception) -> TransitionCallbackReturn:
        expected = isinstance(error, OodPerceptionError)
        self.start_error = str(error) if expected else f'{type(error).__name__}: {error}'
        self.health.failed(self.start_error)
        self.get_logger().fatal(f'cannot configure: {self.start_error}')
        return FAILURE

    def _end_session(self, patience: float = math.inf) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close(patience)

    def _check_parameters(self, changes: Sequence[Any]) -> SetParametersResult:
        """
        Refuse what cannot be used; changes nothing.

        Files (roi.masks) are read meanwhile, on a thread: a disk that does not answer must not
        stop the executor.
        """
        current = parameters.values_of(self)
        late = f'not checked within {_CHECK_SECONDS:g} s: does the disk of its file answer?'
        results = [SetParametersResult(successful=False, reason=late)]
        thread = threading.Thread(
            target=lambda: results.append(self._checked(current, changes)), daemon=True
        )
        thread.start()
        thread.join(_CHECK_SECONDS)
        return results[-1]

    def _checked(
        self, current: Mapping[str, Value], changes: Sequence[Any]
    ) -> SetParametersResult:
        session = self.session
        try:
            values = parameters.changed_values(changes)
            if values and self._configuring:  # not in the session that is being made, nor checked
                raise ConfigError(
                    f'{", ".join(values)}: the node is being configured, set it again when the '
                    'log says "active"'
                )
            check_change(
                current,
                values,
                configured=session is not None,
                known_classes=session.model.classes if session else (),
            )
            if session is not None:
                values = {**current, **values}
                session.model.check(values)
                session.ranging.check(values)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:
            return SetParametersResult(successful=False, reason=f'{type(error).__name__}: {error}')
        return SetParametersResult(successful=True)

    def _apply_parameters(self) -> None:
        values = parameters.values_of(self)
        if values == self._applied:
            return
        self._applied = values
        if self.session is not None:
            self.session.apply(values)

    def _watch(self) -> None:
        self._apply_parameters()
        if self.session is not None:
            self.session.update_inputs()

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = bool(request.data)
        if self.session is not None:
            self.session.update_inputs()
        response.success = True
        response.message = (
            'enabled' if self._enabled else 'disabled: frames are counted as skipped'
        )
        return response


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
