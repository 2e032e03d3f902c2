"""An outside planner behind an OpenAI-compatible endpoint: a server of our own stands in for it."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fake_env import DotEnv
from tests.test_heads import trained
from tests.test_train import fake_dataset
from vla.agent import load
from vla.cli import main
from vla.contracts import Chunk, Observation, VlaError
from vla.rollout.planner import Endpoint, Planned


class Stub(ThreadingHTTPServer):
    """Answers with what ``said`` holds, one after the other; the last one again and again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.said: list[str | bytes] = []
        self.asked: list[tuple[str, dict, str | None]] = []
        self.where = f"stub@http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers.get("Authorization")))
        said = self.server.said[0] if len(self.server.said) == 1 else self.server.said.pop(0)
        answer = said if isinstance(said, bytes) else json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(500 if said == b"broken" else 200)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Listener:
    """Notes what it is told."""

    name, spec, execute, observation_steps = "listener", DotEnv().env_spec, 2, (0,)

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self):
        return self

    def act_batch(self, observations, noise_seeds):
        self.told += [one.instruction for one in observations]
        return [Chunk(np.zeros((2, 1), np.float32), 0.1, one.time) for one in observations]


def observation(time: float) -> Observation:
    image = np.zeros((6, 8, 3), np.uint8)
    image[2, 3] = (250, 10, 20)
    return Observation({"scene": image}, np.zeros(2, np.float32), "tidy the desk", time)


def test_the_agent_is_told_steps_and_the_planner_what_was_told(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    stub.said = ["“put the red pen in the tray”\nbecause it lies there", b"broken", "Put the cup away", "DONE."]
    agent = Listener()
    planned = Planned(agent, Endpoint(stub.where), every_s=1.0)
    episode = planned.begin()
    said = [episode.act_batch([observation(0.5 * look)], [0])[0].words for look in range(8)]
    assert agent.told == said == ["put the red pen in the tray"] * 4 + ["Put the cup away"] * 4
    assert len(stub.asked) == 4 and planned.spec is agent.spec and "stub" in planned.name
    path, body, key = stub.asked[-1]
    assert path == "/v1/chat/completions" and key == "Bearer secret" and body["model"] == "stub"
    text, shown = body["messages"][1]["content"]
    assert "tidy the desk" in text["text"] and "put the red pen in the tray; Put the cup away" in text["text"]
    picture = base64.b64decode(shown["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture))), observation(0.0).images["scene"])


@pytest.mark.parametrize("said", [b"broken", b"not JSON", b'{"choices": []}', b"[]", " \n", "x" * 201])
def test_a_planner_that_never_gave_a_step_is_told_in_one_line(stub: Stub, said: str | bytes) -> None:
    stub.said = [said]
    with pytest.raises(VlaError, match="gave no step") as error:
        Planned(Listener(), Endpoint(stub.where)).begin().act_batch([observation(0.0)], [0])
    assert "\n" not in str(error.value) and "127.0.0.1" in str(error.value)


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:1/v1", "mine@file:///etc/passwd", "mine@127.0.0.1:80", "@http://a/v1"]
)
def test_an_address_that_is_none(where: str) -> None:
    with pytest.raises(VlaError, match="MODEL@ADDRESS"):
        Endpoint(where)


def test_an_evaluation_is_planned(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)
    trained(data, tmp_path / "flow")
    stub.said = ["go to the right"]
    out = tmp_path / "eval"
    words = ["eval", "--env", "tests.fake_env:DotEnv", "--agent", str(tmp_path / "flow"), "--episodes", "2"]
    words += ["--workers", "1", "--videos", "0", "--planner", stub.where, "--out", str(out)]
    assert main(words) == 0
    found = json.loads((out / "results.json").read_text())
    assert [one["said"] for one in found["episodes_detail"]] == [[[0.0, "go to the right"]]] * 2
    assert (
        found["settings"]["planner"] == stub.where and found["agent_hash"] == load(tmp_path / "flow", "cpu").hash[:16]
    )
    assert "go to the right" in (out / "report.html").read_text()
    capsys.readouterr()
    again = ["eval", "--repeat", str(out), "--env", "tests.fake_env:DotEnv"]
    assert main(again) == 2 and "can't be repeated" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "no"), "--planner", "mine@http://127.0.0.1:1/v1"]) == 2
    assert "the planner at http://127.0.0.1:1/v1 gave no step" in capsys.readouterr().err
