"""A lifecycle node that classifies what it sees.

configure loads the bundle and makes the publishers, activate subscribes and runs, deactivate stops and forgets the
past, cleanup frees everything. Callbacks only hand messages over: the network runs in a thread of its own.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float32MultiArray, Header
from vision_msgs.msg import Classification, ObjectHypothesis, VisionInfo

import edgeco
from edgeco.errors import EdgecoError, SpecError
from edgeco.runtime.pacer import Pacer
from edgeco.runtime.pre import load_pre, preparer
from edgeco.runtime.ros2 import (
    Answer,
    Worker,
    classification,
    decode_array,
    decode_compressed,
    decode_image,
    diagnostics,
    vision_info,
)

from .parameters import PARAMETERS

MESSAGES = SimpleNamespace(
    Classification=Classification,
    ObjectHypothesis=ObjectHypothesis,
    VisionInfo=VisionInfo,
    DiagnosticArray=DiagnosticArray,
    DiagnosticStatus=DiagnosticStatus,
    KeyValue=KeyValue,
)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
LABELS = "labels"
"""The parameter that holds the classes' names, and that VisionInfo points to."""

Return = TransitionCallbackReturn


class Classifier(LifecycleNode):
    """Subscribes ``~/image``, ``~/image/compressed`` or ``~/array``; publishes ``~/classification``, ``~/vision_info``
    (latched) and ``/diagnostics``."""

    def __init__(self, **options: Any) -> None:
        super().__init__("edgeco_classifier", **options)
        for name, default, description in PARAMETERS:
            descriptor = ParameterDescriptor(description=description, dynamic_typing=isinstance(default, float))
            self.declare_parameter(name, default, descriptor)
        self._forget()

    def _forget(self) -> None:
        self._model = self._stream = self._worker = self._subscription = self._timer = None
        self._publishers_made: list[Any] = []

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    # Transitions. rclpy swallows what they raise, so that it is said here first.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("configure", self._configure, state, super().on_configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("activate", self._activate, state, super().on_activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("deactivate", self._deactivate, state, super().on_deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("clean up", self._free, state, super().on_cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shut down", self._free, state, super().on_shutdown)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("recover", self._free, state, super().on_error)

    def destroy_node(self) -> Any:
        self._free()
        return super().destroy_node()

    def _transition(self, what: str, act: Any, state: LifecycleState, pass_on: Any) -> TransitionCallbackReturn:
        try:
            if what != "activate":
                act()
                return pass_on(state)
            passed = pass_on(state)  # publishers first: what they are given while they are not active is lost
            if passed == Return.SUCCESS:
                act()
            return passed
        except EdgecoError as error:
            self.get_logger().error(f"cannot {what}: {error}")
            if what == "configure":
                self._free()
            elif what == "activate":
                super().on_deactivate(state)
            return Return.FAILURE
        except Exception as error:
            self.get_logger().error(f"cannot {what}: {type(error).__name__}: {error}")
            return Return.ERROR

    def _configure(self) -> None:
        bundle = self._value("bundle")
        if not bundle:
            raise SpecError("the parameter 'bundle' names no .edgeco file")
        if self._value("input") not in ("image", "compressed", "array"):
            raise SpecError(f"the parameter 'input' is {self._value('input')!r}; choose image, compressed or array")
        if self._value("class_ids") not in ("labels", "indices"):
            raise SpecError(f"the parameter 'class_ids' is {self._value('class_ids')!r}; choose labels or indices")
        logger = self.get_logger()
        self._model = edgeco.load(
            bundle,
            engine=self._value("engine"),
            threads=self._value("threads") or None,
            variant=self._value("variant") or None,
            say=logger.info,
        )
        logger.info(self._model.why)
        self._stream = self._model.stream()
        self._worker = self._make_worker(self._model, self._stream)
        self._answers = self._publisher(Classification, "~/classification", 10)
        self._info = self._publisher(VisionInfo, "~/vision_info", LATCHED)
        self._diagnostics = self._publisher(DiagnosticArray, "/diagnostics", 10)
        if self.has_parameter(LABELS):
            self.undeclare_parameter(LABELS)
        if self._model.labels:
            self.declare_parameter(LABELS, list(self._model.labels), ParameterDescriptor(description="class names"))

    def _make_worker(self, model: Any, stream: Any) -> Worker:
        kind, inputs = self._value("input"), model.manifest.inputs
        if kind == "array":
            decode = partial(decode_array, shape=inputs[0].shape)
        else:
            decode = decode_image if kind == "image" else decode_compressed
        fps, threshold = float(self._value("fps")), float(self._value("gap_threshold"))
        pacer = Pacer(
            model.manifest.timeline.fps if fps < 0 else fps, self._value("gap"), None if threshold < 0 else threshold
        )
        pre = self._value("pre")
        prepare = preparer(model, load_pre(pre) if pre else None)
        logger, clock = self.get_logger(), self.get_clock()
        return Worker(
            stream,
            decode,
            prepare,
            self._publish,
            pacer,
            clock=lambda: clock.now().nanoseconds,
            say=lambda text: logger.warning(text),
        )

    def _publisher(self, kind: Any, topic: str, qos: Any) -> Any:
        made = self.create_lifecycle_publisher(kind, topic, qos)
        self._publishers_made.append(made)
        return made

    def _activate(self) -> None:
        self._worker.start()
        stamp = self.get_clock().now().to_msg()
        location = f"{self.get_fully_qualified_name()}/{LABELS}" if self._model.labels else ""
        self._info.publish(vision_info(MESSAGES, stamp, self._model.manifest, location))
        kind = self._value("input")
        if kind == "array":
            # Numbers are small and without a header: none should be lost on the way, and the arrival is their time.
            self._subscription = self.create_subscription(Float32MultiArray, "~/array", self._on_array, 10)
        elif kind == "compressed":
            topic = "~/image/compressed"
            self._subscription = self.create_subscription(
                CompressedImage, topic, self._on_image, qos_profile_sensor_data
            )
        else:
            self._subscription = self.create_subscription(Image, "~/image", self._on_image, qos_profile_sensor_data)
        period = float(self._value("diagnostics_period"))
        if period > 0:
            self._timer = self.create_timer(period, self._diagnose)

    def _deactivate(self) -> None:
        if self._timer is not None:
            self.destroy_timer(self._timer)
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
        self._timer = self._subscription = None
        if self._worker is not None:
            self._worker.stop()

    def _free(self) -> None:
        self._deactivate()
        if self._stream is not None:
            self._stream.close()
        for publisher in self._publishers_made:
            self.destroy_lifecycle_publisher(publisher)
        self._forget()

    # Callbacks, and what the worker calls.

    def _on_image(self, message: Any) -> None:
        stamp = message.header.stamp
        self._worker.offer(message, stamp.sec * 10**9 + stamp.nanosec)

    def _on_array(self, message: Any) -> None:
        self._worker.offer(message, self.get_clock().now().nanoseconds)

    def _publish(self, answer: Answer) -> None:
        result = answer.result
        if self._value("warm_only") and not result.warm:
            return
        header = getattr(answer.message, "header", None)
        if header is None:
            header = Header()
            header.stamp.sec, header.stamp.nanosec = divmod(answer.stamp, 10**9)
        by_label = self._value("class_ids") == "labels"
        self._answers.publish(classification(MESSAGES, header, result.top(self._value("top")), by_label))

    def _diagnose(self) -> None:
        stamp = self.get_clock().now().to_msg()
        name = f"{self.get_name()}: {self._model.manifest.name}"
        status = self._worker.status()
        self._diagnostics.publish(diagnostics(MESSAGES, stamp, name, self._model.engine.name, status))


def main(args: Any = None) -> None:
    """Run the node until ROS 2 shuts down."""
    rclpy.init(args=args)
    node = Classifier()
    try:
        if node.get_parameter("autostart").value and node.trigger_configure() == Return.SUCCESS:
            node.trigger_activate()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
