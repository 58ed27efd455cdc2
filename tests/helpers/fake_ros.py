"""As much of ROS 2 as the node uses, in one process: messages, rclpy, QoS, parameters, lifecycle, latched topics.

Written after the published sources of rclpy (Humble to Jazzy) and the .msg files. What they check is checked here:
types of fields, names and types of parameters, QoS of both ends, states from which a transition may start. Transitions
swallow exceptions as rclpy's do.
"""

from __future__ import annotations

import array
import enum
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

MESSAGES: dict[str, dict[str, str]] = {
    "builtin_interfaces/Time": {"sec": "int32", "nanosec": "uint32"},
    "std_msgs/Header": {"stamp": "builtin_interfaces/Time", "frame_id": "string"},
    "std_msgs/MultiArrayDimension": {"label": "string", "size": "uint32", "stride": "uint32"},
    "std_msgs/MultiArrayLayout": {"dim": "std_msgs/MultiArrayDimension[]", "data_offset": "uint32"},
    "std_msgs/Float32MultiArray": {"layout": "std_msgs/MultiArrayLayout", "data": "float32[]"},
    "sensor_msgs/Image": {
        "header": "std_msgs/Header",
        "height": "uint32",
        "width": "uint32",
        "encoding": "string",
        "is_bigendian": "uint8",
        "step": "uint32",
        "data": "uint8[]",
    },
    "sensor_msgs/CompressedImage": {"header": "std_msgs/Header", "format": "string", "data": "uint8[]"},
    "vision_msgs/ObjectHypothesis": {"class_id": "string", "score": "float64"},
    "vision_msgs/Classification": {"header": "std_msgs/Header", "results": "vision_msgs/ObjectHypothesis[]"},
    "vision_msgs/VisionInfo": {
        "header": "std_msgs/Header",
        "method": "string",
        "database_location": "string",
        "database_version": "int32",
    },
    "diagnostic_msgs/KeyValue": {"key": "string", "value": "string"},
    "diagnostic_msgs/DiagnosticStatus": {
        "level": "byte",
        "name": "string",
        "message": "string",
        "hardware_id": "string",
        "values": "diagnostic_msgs/KeyValue[]",
    },
    "diagnostic_msgs/DiagnosticArray": {"header": "std_msgs/Header", "status": "diagnostic_msgs/DiagnosticStatus[]"},
    "rcl_interfaces/ParameterDescriptor": {"description": "string", "read_only": "bool", "dynamic_typing": "bool"},
}
"""Fields by message. Of ParameterDescriptor only those in use; of the others all."""

CONSTANTS = {"diagnostic_msgs/DiagnosticStatus": {"OK": b"\0", "WARN": b"\1", "ERROR": b"\2", "STALE": b"\3"}}
_PLAIN = {"string": (str, ""), "bool": (bool, False), "float64": (float, 0.0), "byte": (bytes, b"\0")}
_RANGES = {"uint8": (0, 2**8), "int32": (-(2**31), 2**31), "uint32": (0, 2**32)}
_CODES = {"uint8": "B", "float32": "f"}
CLASSES: dict[str, type] = {}


def _default(kind: str) -> Any:
    if kind.endswith("[]"):
        return array.array(_CODES[kind[:-2]]) if kind[:-2] in _CODES else []
    if kind in _RANGES:
        return 0
    return _PLAIN[kind][1] if kind in _PLAIN else CLASSES[kind]()


def _check(kind: str, value: Any) -> Any:
    """What a generated setter asserts; bytes for uint8[] become an array, as they do there."""
    if kind.endswith("[]") and kind[:-2] in _CODES:
        if isinstance(value, array.array):
            assert value.typecode == _CODES[kind[:-2]]
            return value
        assert isinstance(value, (list, tuple, bytes, bytearray))
        return array.array(_CODES[kind[:-2]], value)
    if kind.endswith("[]"):
        assert isinstance(value, list) and all(type(entry) is CLASSES[kind[:-2]] for entry in value)
    elif kind in _RANGES:
        assert isinstance(value, int) and _RANGES[kind][0] <= value < _RANGES[kind][1], (kind, value)
    elif kind == "byte":
        assert isinstance(value, (bytes, bytearray)) and len(value) == 1, value
    elif kind in _PLAIN:
        assert isinstance(value, _PLAIN[kind][0]), (kind, value)
    else:
        assert type(value) is CLASSES[kind], (kind, value)
    return value


class Message:
    """Base of all messages: keyword arguments, slots, checked setters."""

    FIELDS: dict[str, str]

    def __init__(self, **fields: Any) -> None:
        assert fields.keys() <= self.FIELDS.keys(), f"Invalid arguments passed to constructor: {fields.keys()}"
        for name, kind in self.FIELDS.items():
            setattr(self, name, fields[name] if name in fields else _default(kind))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.FIELDS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, _check(self.FIELDS[name], value))

    def check(self) -> None:
        """What serializing finds: lists filled after they were set are checked then."""
        for name, kind in self.FIELDS.items():
            value = _check(kind, getattr(self, name))
            for entry in value if isinstance(value, list) else [value]:
                if isinstance(entry, Message):
                    entry.check()


for _name, _fields in MESSAGES.items():
    CLASSES[_name] = type(_name.split("/")[1], (Message,), {"FIELDS": _fields, **CONSTANTS.get(_name, {})})


class HistoryPolicy(enum.IntEnum):
    SYSTEM_DEFAULT, KEEP_LAST, KEEP_ALL = range(3)


class ReliabilityPolicy(enum.IntEnum):
    SYSTEM_DEFAULT, RELIABLE, BEST_EFFORT = range(3)


class DurabilityPolicy(enum.IntEnum):
    SYSTEM_DEFAULT, TRANSIENT_LOCAL, VOLATILE = range(3)


class QoSProfile:
    def __init__(self, **fields: Any) -> None:
        assert fields.keys() <= {"history", "depth", "reliability", "durability", "lifespan", "deadline", "liveliness"}
        if "history" not in fields and "depth" not in fields:
            raise TypeError("History and/or depth settings are required.")
        self.depth = fields.get("depth", 0)
        self.history = fields.get("history", HistoryPolicy.KEEP_LAST)
        self.reliability = fields.get("reliability", ReliabilityPolicy.RELIABLE)
        self.durability = fields.get("durability", DurabilityPolicy.VOLATILE)


SENSOR_DATA = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def _qos(given: QoSProfile | int) -> QoSProfile:
    if isinstance(given, QoSProfile):
        return given
    assert isinstance(given, int) and given >= 0
    return QoSProfile(depth=given)


class ParameterError(Exception):
    """Stands for rclpy's ParameterNotDeclaredException and its like."""


class Parameter:
    def __init__(self, name: str, value: Any = None) -> None:
        self.name, self.value = name, value


class Time:
    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds = nanoseconds

    def to_msg(self) -> Any:
        sec, nanosec = divmod(self.nanoseconds, 10**9)
        return CLASSES["builtin_interfaces/Time"](sec=sec, nanosec=nanosec)


class Graph:
    """All topics of the process."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.latched: dict[str, list[Any]] = {}
        self.sim_time: int | None = None
        self.shut_down = False

    def publish(self, topic: str, message: Any, qos: QoSProfile) -> int:
        """Give a message to every subscription it reaches; returns to how many."""
        message.check()
        if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            self.latched[topic] = [*self.latched.get(topic, []), message][-qos.depth :]
        reached = 0
        for node in self.nodes:
            for subscription in list(node.subscriptions):
                if subscription.topic == topic and _compatible(qos, subscription.qos):
                    assert type(message) is subscription.msg_type
                    subscription.callback(message)
                    reached += 1
        return reached


GRAPH = Graph()


def _compatible(offered: QoSProfile, asked: QoSProfile) -> bool:
    reliable = ReliabilityPolicy.RELIABLE
    sure = offered.reliability == reliable or asked.reliability != reliable
    lasting = DurabilityPolicy.TRANSIENT_LOCAL
    return sure and (offered.durability == lasting or asked.durability != lasting)


class Logger:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, message: str) -> None:
        self.lines.append(("info", message))

    def warning(self, message: str) -> None:
        self.lines.append(("warning", message))

    def error(self, message: str) -> None:
        self.lines.append(("error", message))


class Node:
    def __init__(self, node_name: str, *, namespace: str = "", parameter_overrides: Any = None) -> None:
        self._name, self._namespace = node_name, "/" + namespace.strip("/") if namespace else ""
        self._overrides = {parameter.name: parameter.value for parameter in parameter_overrides or []}
        self._parameters: dict[str, Any] = {}
        self._descriptors: dict[str, Any] = {}
        self.publishers: list[Any] = []
        self.subscriptions: list[Any] = []
        self.timers: list[Any] = []
        self._logger = Logger()
        self.destroyed = False
        self.declare_parameter("use_sim_time", False)
        GRAPH.nodes.append(self)

    def get_name(self) -> str:
        return self._name

    def get_fully_qualified_name(self) -> str:
        return f"{self._namespace}/{self._name}"

    def get_logger(self) -> Logger:
        return self._logger

    def get_clock(self) -> Any:
        simulated = self._parameters["use_sim_time"]
        return SimpleNamespace(now=lambda: Time(GRAPH.sim_time or 0 if simulated else time.time_ns()))

    def declare_parameter(self, name: str, value: Any = None, descriptor: Any = None) -> Parameter:
        if name in self._parameters:
            raise ParameterError(f"already declared: {name}")
        given = self._overrides.get(name, value)
        if not (descriptor and descriptor.dynamic_typing) and type(given) is not type(value):
            raise ParameterError(f"Wrong parameter type for {name}: {given!r}")
        assert isinstance(given, (bool, int, float, str)) or (given and {type(entry) for entry in given} == {str})
        self._parameters[name], self._descriptors[name] = given, descriptor
        return Parameter(name, given)

    def undeclare_parameter(self, name: str) -> None:
        if self._descriptors[name] is not None and self._descriptors[name].read_only:
            raise ParameterError(f"immutable: {name}")
        del self._parameters[name], self._descriptors[name]

    def has_parameter(self, name: str) -> bool:
        return name in self._parameters

    def get_parameter(self, name: str) -> Parameter:
        if name not in self._parameters:
            raise ParameterError(f"not declared: {name}")
        return Parameter(name, self._parameters[name])

    def _topic(self, topic: str) -> str:
        if topic.startswith("~/"):
            return f"{self.get_fully_qualified_name()}/{topic[2:]}"
        return topic if topic.startswith("/") else f"{self._namespace}/{topic}"

    def create_publisher(self, msg_type: Any, topic: str, qos_profile: Any, *, publisher_class: Any = None) -> Any:
        assert msg_type in CLASSES.values()
        made = (publisher_class or Publisher)(msg_type, self._topic(topic), _qos(qos_profile))
        self.publishers.append(made)
        return made

    def create_subscription(self, msg_type: Any, topic: str, callback: Any, qos_profile: Any) -> Any:
        assert msg_type in CLASSES.values()
        name, qos = self._topic(topic), _qos(qos_profile)
        made = SimpleNamespace(msg_type=msg_type, topic=name, callback=callback, qos=qos)
        self.subscriptions.append(made)
        if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            for message in GRAPH.latched.get(name, []):
                callback(message)
        return made

    def create_timer(self, timer_period_sec: float, callback: Any) -> Any:
        made = SimpleNamespace(period=timer_period_sec, callback=callback)
        self.timers.append(made)
        return made

    def destroy_subscription(self, subscription: Any) -> bool:
        self.subscriptions.remove(subscription)
        return True

    def destroy_timer(self, timer: Any) -> bool:
        self.timers.remove(timer)
        return True

    def destroy_publisher(self, publisher: Any) -> bool:
        self.publishers.remove(publisher)
        publisher.destroyed = True
        return True

    def destroy_node(self) -> None:
        self.destroyed = True
        GRAPH.nodes.remove(self)


class Publisher:
    def __init__(self, msg_type: Any, topic: str, qos: QoSProfile) -> None:
        self.msg_type, self.topic, self.qos, self.destroyed = msg_type, topic, qos, False
        self.published: list[Any] = []

    def publish(self, message: Any) -> None:
        assert not self.destroyed, "InvalidHandle: cannot use Destroyable because destruction was requested"
        assert type(message) is self.msg_type, f"Expected {self.msg_type}, got {type(message)}"
        self.published.append(message)
        GRAPH.publish(self.topic, message, self.qos)


class TransitionCallbackReturn(enum.Enum):
    SUCCESS, FAILURE, ERROR = "transition_success", "transition_failure", "transition_error"


class LifecycleState(NamedTuple):
    label: str
    state_id: int


class LifecyclePublisher(Publisher):
    enabled = False

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        self.enabled = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        self.enabled = False
        return TransitionCallbackReturn.SUCCESS

    def publish(self, message: Any) -> None:
        if self.enabled:
            Publisher.publish(self, message)


_STATES = {"unconfigured": 1, "inactive": 2, "active": 3, "finalized": 4}
_TRANSITIONS = {
    "configure": ({"unconfigured"}, "inactive"),
    "activate": ({"inactive"}, "active"),
    "deactivate": ({"active"}, "inactive"),
    "cleanup": ({"inactive"}, "unconfigured"),
    "shutdown": ({"unconfigured", "inactive", "active"}, "finalized"),
}


class LifecycleNode(Node):
    def __init__(self, node_name: str, *, enable_communication_interface: bool = True, **options: Any) -> None:
        super().__init__(node_name, **options)
        self._managed_entities: set[Any] = set()
        self.state = "unconfigured"

    def create_lifecycle_publisher(self, *args: Any, **kwargs: Any) -> LifecyclePublisher:
        made: LifecyclePublisher = Node.create_publisher(self, *args, **kwargs, publisher_class=LifecyclePublisher)
        self._managed_entities.add(made)
        return made

    def destroy_lifecycle_publisher(self, publisher: LifecyclePublisher) -> bool:
        self._managed_entities.discard(publisher)
        return Node.destroy_publisher(self, publisher)

    def _entities(self, what: str, state: LifecycleState) -> TransitionCallbackReturn:
        for entity in self._managed_entities:
            answer = getattr(entity, f"on_{what}", lambda _: TransitionCallbackReturn.SUCCESS)(state)
            if answer != TransitionCallbackReturn.SUCCESS:
                return answer
        return TransitionCallbackReturn.SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._entities("configure", state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._entities("activate", state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._entities("deactivate", state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._entities("cleanup", state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._entities("shutdown", state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._entities("error", state)

    def _change(self, what: str) -> TransitionCallbackReturn:
        begins, ends = _TRANSITIONS[what]
        if self.state not in begins:
            raise RuntimeError(f"RCLError: no transition {what} from {self.state}")
        before = LifecycleState(self.state, _STATES[self.state])
        try:
            answer = getattr(self, f"on_{what}")(before)
        except Exception:
            answer = TransitionCallbackReturn.ERROR
        if answer == TransitionCallbackReturn.SUCCESS:
            self.state = ends
        elif answer == TransitionCallbackReturn.ERROR:
            try:
                recovered = self.on_error(before)
            except Exception:
                recovered = TransitionCallbackReturn.ERROR
            self.state = "unconfigured" if recovered == TransitionCallbackReturn.SUCCESS else "finalized"
        elif what == "shutdown":
            self.state = "finalized"
        return answer

    def trigger_configure(self) -> TransitionCallbackReturn:
        return self._change("configure")

    def trigger_activate(self) -> TransitionCallbackReturn:
        return self._change("activate")

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        return self._change("deactivate")

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        return self._change("cleanup")

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        return self._change("shutdown")


class ExternalShutdownException(Exception):
    pass


def modules() -> dict[str, ModuleType]:
    """The modules by their names, for ``sys.modules``."""
    spun: list[Any] = []

    def spin(node: Any) -> None:
        spun.append(node)
        raise ExternalShutdownException

    contents: dict[str, dict[str, Any]] = {
        "rclpy": {"init": lambda args=None: None, "spin": spin, "try_shutdown": lambda: None, "spun": spun},
        "rclpy.executors": {"ExternalShutdownException": ExternalShutdownException},
        "rclpy.lifecycle": {
            "LifecycleNode": LifecycleNode,
            "LifecycleState": LifecycleState,
            "TransitionCallbackReturn": TransitionCallbackReturn,
        },
        "rclpy.qos": {
            "DurabilityPolicy": DurabilityPolicy,
            "HistoryPolicy": HistoryPolicy,
            "QoSProfile": QoSProfile,
            "ReliabilityPolicy": ReliabilityPolicy,
            "qos_profile_sensor_data": SENSOR_DATA,
        },
    }
    for name, made in CLASSES.items():
        package = name.split("/")[0]
        contents.setdefault(package, {})
        contents.setdefault(f"{package}.msg", {})[made.__name__] = made
    built = {}
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members, __path__=[])
        built[name] = module
    return built


def install(patch: Any) -> None:
    """Make the modules importable for one test, by pytest's ``monkeypatch``, and begin with an empty graph."""
    GRAPH.__init__()  # type: ignore[misc]
    for name, module in modules().items():
        patch.setitem(sys.modules, name, module)
