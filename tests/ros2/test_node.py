"""The lifecycle node: what it answers, on which topics, and what its transitions keep and forget."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_ros
import pytest
from fake_ros import CLASSES, GRAPH, SENSOR_DATA, DurabilityPolicy, QoSProfile, ReliabilityPolicy
from robots import NETWORK, PERIOD, PICTURES, Robot, picture

import edgeco

Make = Callable[..., Robot]
SUCCESS, FAILURE = fake_ros.TransitionCallbackReturn.SUCCESS, fake_ros.TransitionCallbackReturn.FAILURE


def started(robot: Make, **parameters: Any) -> Robot:
    made = robot(**parameters)
    assert made.node.trigger_configure() == SUCCESS, made.node.get_logger().lines
    assert made.node.trigger_activate() == SUCCESS, made.node.get_logger().lines
    return made


def expected(numbers: range, top: int = 5) -> list[list[tuple[str, float]]]:
    """What a stream of its own says of the pictures."""
    model = edgeco.load(NETWORK, threads=1)
    prepare = model.preprocessor()
    with model.stream() as stream:
        results = [stream.step(prepare(PICTURES[number % len(PICTURES)])) for number in numbers]
    return [[(score.label, score.score) for score in result.top(top)] for result in results if result.valid]


def said(answers: list[Any]) -> list[list[tuple[str, float]]]:
    return [[(entry.class_id, entry.score) for entry in answer.results] for answer in answers]


def test_answers_are_a_streams_with_the_header_of_the_picture(robot: Make) -> None:
    made = started(robot)
    made.film(range(30))
    assert said(made.answers) == expected(range(30))
    header = made.answers[0].header
    assert header.frame_id == "camera_optical"
    assert header.stamp.sec * 10**9 + header.stamp.nanosec == 10**18 + 13 * PERIOD


def test_topics_and_their_qos(robot: Make) -> None:
    made = started(robot)
    (subscription,) = made.node.subscriptions
    assert subscription.topic == "/robot/edgeco_classifier/image" and subscription.qos is SENSOR_DATA
    found = {publisher.topic: publisher.qos for publisher in made.node.publishers}
    assert found.keys() == {
        "/robot/edgeco_classifier/classification",
        "/robot/edgeco_classifier/vision_info",
        "/diagnostics",
    }
    assert all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in found.values())
    made.send(picture(0, 1), qos=QoSProfile(depth=1))
    assert made.sent == 1, "a reliable camera is heard, too"


def test_who_comes_late_still_learns_the_labels(robot: Make) -> None:
    made = started(robot)
    infos: list[Any] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    made.ears.create_subscription(
        CLASSES["vision_msgs/VisionInfo"], "/robot/edgeco_classifier/vision_info", infos.append, latched
    )
    (info,) = infos
    model = edgeco.load(NETWORK, threads=1)
    assert info.method == model.manifest.name
    assert info.database_location == "/robot/edgeco_classifier/labels"
    assert made.node.get_parameter("labels").value == list(model.labels or ())


def test_indices_in_place_of_labels(robot: Make) -> None:
    made = started(robot, class_ids="indices", top=1)
    made.film(range(20))
    labels = made.node.get_parameter("labels").value
    assert [[labels[int(name)] for name, _ in answer] for answer in said(made.answers)] == [
        [label for label, _ in answer] for answer in expected(range(20), 1)
    ]


def test_a_state_that_is_left_stops_answers_and_forgets_the_past(robot: Make) -> None:
    made = started(robot)
    made.film(range(20))
    assert made.node.trigger_deactivate() == SUCCESS
    assert not made.node.subscriptions and not made.node.timers
    made.send(picture(20, 10**18))
    assert made.sent == 20 and made.node._worker.status().state == "idle"
    assert made.node.trigger_activate() == SUCCESS
    made.film(range(20))
    assert said(made.answers) == 2 * expected(range(20))


def test_cleaning_up_frees_everything_and_it_can_be_configured_again(robot: Make) -> None:
    threads = threading.active_count()
    made = started(robot)
    stream = made.node._stream
    made.node.trigger_deactivate()
    assert made.node.trigger_cleanup() == SUCCESS
    with pytest.raises(edgeco.EdgecoError, match="closed"):
        stream.reset()
    assert made.node.publishers == [] and made.node._model is None
    assert made.node.trigger_configure() == SUCCESS and made.node.trigger_activate() == SUCCESS
    made.film(range(16))
    assert len(made.answers) == 3
    assert made.node.trigger_shutdown() == SUCCESS
    assert made.node.state == "finalized" and made.node._stream is None
    assert threading.active_count() == threads


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "active"])
def test_it_shuts_down_from_every_state(robot: Make, state: str) -> None:
    made = robot()
    if state != "unconfigured":
        made.node.trigger_configure()
    if state == "active":
        made.node.trigger_activate()
    assert made.node.trigger_shutdown() == SUCCESS and made.node.state == "finalized"


WRONG = {
    "no bundle": ({"bundle": ""}, "cannot configure: the parameter 'bundle' names no .edgeco file"),
    "absent": ({"bundle": "absent.edgeco"}, "cannot configure: absent.edgeco does not exist"),
    "input": ({"input": "lidar"}, "the parameter 'input' is 'lidar'; choose image, compressed or array"),
    "ids": ({"class_ids": "names"}, "the parameter 'class_ids' is 'names'; choose labels or indices"),
    "gap": ({"gap": "wait"}, "gap is 'wait'; choose"),
    "engine": ({"engine": "abacus"}, "abacus"),
    "variant": ({"variant": "int4"}, "int4"),
    "pre": ({"pre": "absent_module:f"}, "absent_module"),
}


@pytest.mark.parametrize(("parameters", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_logged_and_leaves_it_unconfigured(
    robot: Make, parameters: dict[str, Any], sentence: str
) -> None:
    made = robot(**parameters)
    assert made.node.trigger_configure() == FAILURE
    assert made.node.state == "unconfigured" and made.node.publishers == [] and made.node._stream is None
    (line,) = [text for level, text in made.node.get_logger().lines if level == "error"]
    assert sentence in line
    made.node.trigger_shutdown()


def test_an_error_nobody_foresaw_is_logged_and_recovered_from(
    robot: Make, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = robot()
    with monkeypatch.context() as patch:
        patch.setattr(module.edgeco, "load", lambda *_, **__: 1 / 0, raising=False)
        assert made.node.trigger_configure() == fake_ros.TransitionCallbackReturn.ERROR
    assert ("error", "cannot configure: ZeroDivisionError: division by zero") in made.node.get_logger().lines
    assert made.node.state == "unconfigured"
    assert made.node.trigger_configure() == SUCCESS


def test_a_whole_number_is_a_rate_too(robot: Make) -> None:
    made = started(robot, fps=25, gap_threshold=1)
    made.film(range(20))
    assert made.node._worker.status().stepped == 20


def test_the_network_is_held_to_its_rate(robot: Make) -> None:
    made = started(robot)
    for number in range(60):
        made.send(picture(number, 10**18 + number * PERIOD // 3))
    assert made.node._worker.status().drops == {"rate": 40}
    assert said(made.answers) == expected(range(0, 60, 3))


def test_warm_answers_only(robot: Make) -> None:
    made = started(robot, warm_only=True)
    made.film(range(15))
    assert len(made.answers) == 2


def diagnosed(made: Robot) -> tuple[bytes, str, dict[str, str]]:
    (timer,) = made.node.timers
    timer.callback()
    (status,) = made.heard["diagnostics"][-1].status
    assert status.name == "edgeco_classifier: camera_motion" and status.hardware_id == "onnxruntime"
    return status.level, status.message, {pair.key: pair.value for pair in status.values}


def test_diagnostics_say_how_it_is(robot: Make) -> None:
    made = started(robot)
    level, message, values = diagnosed(made)
    assert (level, message) == (b"\1", "nothing received yet; check the topic and its QoS")
    made.film(range(3))
    assert diagnosed(made)[:2] == (b"\0", "warming up")
    made.film(range(3, 20))
    level, message, values = diagnosed(made)
    assert (level, message) == (b"\0", "answering")
    assert (values["received"], values["valid"]) == ("20", "7") and float(values["step p99 (ms)"]) > 0
    broken = picture(20, 10**18 + 20 * PERIOD)
    broken.encoding = "16UC1"
    made.send(broken)
    level, message, values = diagnosed(made)
    assert level == b"\1" and message.startswith("images of encoding '16UC1' are not read")
    assert values["dropped: unreadable"] == "1"
    made.film(range(21, 22))
    assert diagnosed(made)[0] == b"\0"
    made.node._worker._heard -= 9
    assert diagnosed(made)[1].startswith("nothing received for 9.")


def test_a_failing_engine_is_an_error_in_diagnostics(robot: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = started(robot)
    monkeypatch.setattr(made.node._stream, "step", lambda _: 1 / 0)
    made.send(picture(0, 1), wait=False)
    made.until(lambda: made.node._worker.status().state == "failed")
    assert diagnosed(made)[:2] == (b"\2", "ZeroDivisionError: division by zero")
    assert made.node.trigger_deactivate() == SUCCESS
    monkeypatch.undo()
    assert made.node.trigger_activate() == SUCCESS
    made.film(range(16))
    assert len(made.answers) == 3


def test_no_diagnostics(robot: Make) -> None:
    assert started(robot, diagnostics_period=0).node.timers == []


def test_simulated_time_and_a_bag_played_twice(robot: Make) -> None:
    made = started(robot, use_sim_time=True)
    for _ in range(2):
        for number in range(16):
            GRAPH.sim_time = 10**9 + number * PERIOD + 5 * 10**6
            made.send(picture(number, 10**9 + number * PERIOD))
    assert said(made.answers) == 2 * expected(range(16))
    status = made.node._worker.status()
    assert status.resets == {"clock": 1}
    assert status.age["max"] == pytest.approx(0.005), "the age is told by the simulated clock"
    assert diagnosed(made)[0] == b"\0"
    stamp = made.heard["diagnostics"][-1].header.stamp
    assert stamp.sec * 10**9 + stamp.nanosec == GRAPH.sim_time


def test_compressed_pictures(robot: Make) -> None:
    cv2 = pytest.importorskip("cv2")
    made = started(robot, input="compressed")
    for number in range(16):
        plain = picture(number, 10**18 + number * PERIOD)
        data = cv2.imencode(".png", PICTURES[number])[1].tobytes()
        message = CLASSES["sensor_msgs/CompressedImage"](header=plain.header, format="png", data=data)
        made.send(message, "~/image/compressed")
    assert said(made.answers) == expected(range(16))


def test_skeletons(robot: Make, tmp_path: Path, module: ModuleType) -> None:
    from toy_bundle import STEPS, toy_manifest, toy_members

    from edgeco.bundle import open_bundle, write_bundle

    write_bundle(tmp_path / "toy.edgeco", toy_manifest(), toy_members())
    frames, answers = open_bundle(tmp_path / "toy.edgeco").golden()
    made = started(robot, bundle=str(tmp_path / "toy.edgeco"), input="array", use_sim_time=True)
    for step in range(STEPS):
        GRAPH.sim_time = 10**9 * (step + 1) + 7
        message = CLASSES["std_msgs/Float32MultiArray"](data=[float(value) for value in frames["frame"][step]])
        made.send(message, "~/array", qos=QoSProfile(depth=10))
    assert len(made.answers) == STEPS - 2
    for answer, values in zip(made.answers, answers["score"][2:], strict=True):
        assert [entry.score for entry in answer.results] == pytest.approx(sorted(values, reverse=True))
    stamp = made.answers[-1].header.stamp
    assert (stamp.sec, stamp.nanosec) == (STEPS, 7), "numbers have no header: their arrival is their time"


def test_a_preprocessing_of_the_users(robot: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_pre.py").write_text(
        "def gray(frame):\n"
        "    return None if frame.index % 4 == 3 else frame.image.mean(2, keepdims=True).astype('uint8')\n"
    )
    made = started(robot, pre=f"{tmp_path / 'my_pre.py'}:gray", fps=0)
    made.film(range(20))
    status = made.node._worker.status()
    assert status.stepped == 15 and status.drops == {"no input": 5}
    assert len(made.answers) == 2


def test_main_starts_itself_when_told(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    monkeypatch.setattr(module.Classifier, "destroy_node", lambda node: states.append(node.state))
    module.main()
    chosen = {"bundle": str(NETWORK), "autostart": True}
    overrides = [fake_ros.Parameter(name, value) for name, value in chosen.items()]
    plain = module.Classifier.__init__
    monkeypatch.setattr(module.Classifier, "__init__", lambda node: plain(node, parameter_overrides=overrides))
    module.main()
    assert states == ["unconfigured", "active"]
    GRAPH.nodes[-1].trigger_shutdown()


def test_messages_of_the_fake_are_those_of_ros() -> None:
    """Held against definitions that the rosbags package carries, where it is installed."""
    typesys = pytest.importorskip("rosbags.typesys")
    for store in (typesys.Stores.ROS2_HUMBLE, typesys.Stores.ROS2_JAZZY):
        known = typesys.get_typestore(store).fielddefs
        compared = 0
        for name, fields in fake_ros.MESSAGES.items():
            package, short = name.split("/")
            if (found := known.get(f"{package}/msg/{short}")) is None or package == "rcl_interfaces":
                continue
            compared += 1
            assert {field: kind(*about) for field, about in found[1]} == fields, name
        assert compared >= 10


def kind(node: Any, about: Any) -> str:
    """The type of a field as the .msg file spells it."""
    if node.name == "BASE":
        return str(about[0])
    return about.replace("/msg/", "/") if node.name == "NAME" else kind(*about[0]) + "[]"
